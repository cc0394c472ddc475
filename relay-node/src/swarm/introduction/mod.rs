//! `/p2pnode/meet/1`, the relay's side: takes questions and sends introductions. Who is introduced to whom,
//! [`crate::core::RelayState`] decides.

mod handler;

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use futures::channel::oneshot;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::introduction::{Answer, Introduction, Request};

use handler::{Handler, Report};

/// What is told to the event loop.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer wants to be introduced.
    Asked(Question),
    /// The peer that was asked for has taken its introduction, or has not.
    Told {
        /// The peer.
        peer: PeerId,
        /// Whether it has.
        taken: bool,
    },
}

/// A question, to be answered. If it is dropped, its stream closes without an answer.
#[derive(Debug)]
pub(crate) struct Question {
    /// Who asks.
    pub(crate) peer: PeerId,
    /// What it asks.
    pub(crate) request: Request,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// The relay's side of the protocol.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    queue: VecDeque<ToSwarm<Event, Introduction>>,
}

impl Behaviour {
    /// Sends an introduction to `peer` on a connection.
    ///
    /// To be called while the swarm is being polled: the introduction goes out at the next poll.
    pub(crate) fn introduce(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        introduction: Introduction,
    ) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: introduction,
        });
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

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
        report: THandlerOutEvent<Self>,
    ) {
        let event = match report {
            Report::Told(taken) => Event::Told { peer, taken },
            Report::Asked(request, reply) => Event::Asked(Question {
                peer,
                request,
                reply,
            }),
        };
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        // The swarm polls after each event of a handler, and the event loop after each answer.
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
