//! `/p2pnode/hop/1`, the relay's side: takes questions and gives back answers. What the answer is,
//! [`crate::core::RelayState`] decides.

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
use p2pnode_protocol::hop::{self, Answer, Request};

use crate::swarm::exchange::{self, Handler};

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
#[derive(Default)]
pub(crate) struct Behaviour {
    questions: VecDeque<Question>,
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

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        (request, reply): THandlerOutEvent<Self>,
    ) {
        self.questions.push_back(Question {
            peer,
            connection,
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
