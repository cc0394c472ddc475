//! `/p2pnode/hop/1`, the relay's side: takes questions and gives back answers. What the answer is, others decide: see
//! [`crate::swarm::circuit`] for who is a party and over which connection a circuit runs, and [`crate::core::connections`] for what is known of
//! that connection.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::hop::{self, Answer, Refusal, Request};

use crate::{
    core::limiter::{Limiter, Measure},
    swarm::exchange::{self, Handler},
};

/// A node over whose relay many circuits open together asks once for each of them, and then every 30 s: this serves a thousand
/// circuits of one peer.
const MEASURE: Measure = Measure {
    burst: 256,
    period: Duration::from_millis(30),
};

/// The protocol. A node has one question going for each circuit that opens, and asks again later where one is dropped.
pub(crate) struct Hop;

impl exchange::Protocol for Hop {
    const NAME: StreamProtocol = hop::PROTOCOL;
    const AT_ONCE: usize = 32;
    type Request = Request;
    type Answer = Answer;
}

/// A question, to be answered. If it is dropped, its stream closes without an answer.
#[derive(Debug)]
pub(crate) struct Question {
    /// Who asks.
    pub(crate) peer: PeerId,
    /// The connection on which it asks.
    pub(crate) connection: ConnectionId,
    /// What it asks.
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
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
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
        (request, reply): THandlerOutEvent<Self>,
    ) {
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
        // The swarm polls after each event of a handler, which is where questions come from.
        self.questions
            .pop_front()
            .map_or(Poll::Pending, |question| {
                Poll::Ready(ToSwarm::GenerateEvent(question))
            })
    }
}
