//! `/p2pnode/join/1`, the relay's side: takes what peers present to show that they may use the relay, and returns the answers.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
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
use p2pnode_protocol::join::{self, Answer, Request};

use crate::swarm::exchange::{self, Handler};

/// The protocol. A node presents one token on each connection, and perhaps the next one when its file changes.
pub(crate) struct Join;

impl exchange::Protocol for Join {
    const NAME: StreamProtocol = join::PROTOCOL;
    const AT_ONCE: usize = 2;
    type Request = Request;
    type Answer = Answer;
}

/// A peer presents a token, or only itself. If the reply is dropped, its stream closes without an answer.
#[derive(Debug)]
pub(crate) struct Question {
    /// The peer.
    pub(crate) peer: PeerId,
    /// What it presents.
    pub(crate) request: Request,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// The relay's side of the protocol.
#[derive(Default)]
pub(crate) struct Behaviour {
    questions: VecDeque<Question>,
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler<Join>;
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

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        (request, reply): THandlerOutEvent<Self>,
    ) {
        self.questions.push_back(Question {
            peer,
            request,
            reply,
        });
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
