//! `/p2pnode/hop/1`, the relay's side: receives requests and returns answers.
//!
//! The event loop decides the answer. [`crate::swarm::circuit`] knows who is a party to a circuit and over which connection it
//! runs, [`crate::core::connections`] what the relay knows of that connection.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::{
    exchange::{Handler, Report},
    hop::{Answer, Hop, Refusal, Request},
};

use crate::core::limiter::{Limiter, Measure};

/// A node asks once for each circuit that opens, and then every 30 s: this serves a thousand circuits of one peer.
const MEASURE: Measure = Measure {
    burst: 256,
    period: Duration::from_millis(30),
};

/// Requests at once on one connection. A node sends one for each circuit that opens, and asks again later if one is dropped.
const MAX_CONCURRENT: usize = 32;

/// A request that awaits its answer. If it is dropped, its stream closes without one.
#[derive(Debug)]
pub(crate) struct Question {
    /// The peer that asks.
    pub(crate) peer: PeerId,
    /// The connection on which the peer asks.
    pub(crate) connection: ConnectionId,
    /// The request.
    pub(crate) request: Request,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// The relay's side of the protocol.
pub(crate) struct Behaviour {
    limiter: Limiter,
    questions: VecDeque<Question>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            limiter: Limiter::new(MEASURE),
            questions: VecDeque::new(),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler<Hop>;
    type ToSwarm = Question;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(MAX_CONCURRENT))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(MAX_CONCURRENT))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionClosed(closed) = event
            && closed.remaining_established == 0
        {
            self.limiter.forget(&closed.peer_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        let (request, reply) = match report {
            Report::Asked(request, reply) => (request, reply),
            Report::Replied(never, _) => match never {},
        };
        if self.limiter.admits(peer, Instant::now()) {
            self.questions.push_back(Question {
                peer,
                connection,
                request,
                reply,
            });
        } else {
            // An error means that the stream is gone.
            let _ = reply.send(Answer::Refused(Refusal::TooOften));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Question, THandlerInEvent<Self>>> {
        // Questions come from events of handlers, after which the swarm polls.
        self.questions
            .pop_front()
            .map_or(Poll::Pending, |question| {
                Poll::Ready(ToSwarm::GenerateEvent(question))
            })
    }
}
