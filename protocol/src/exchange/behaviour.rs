//! A protocol of one request and one answer in the swarm. It takes the requests of peers, and sends requests of this side. The
//! event loop answers.

use std::collections::VecDeque;

use futures::channel::oneshot;
use libp2p::{
    PeerId,
    swarm::{ConnectionId, NetworkBehaviour, NotifyHandler, THandlerOutEvent, ToSwarm},
};

use super::{Handler, Never, Protocol, Reply, Report};

/// What the event loop learns.
#[derive(Debug)]
pub enum Event<S: Protocol, C: Protocol> {
    /// A peer asks.
    Asked(Question<S>),
    /// A request of this side has ended.
    Replied {
        /// The peer that was asked.
        peer: PeerId,
        /// The request.
        request: C::Request,
        /// How it ended.
        reply: Reply<C::Answer>,
    },
}

/// A request that awaits its answer. If it is dropped, its stream closes without one.
#[derive(Debug)]
pub struct Question<S: Protocol> {
    /// The peer that asks.
    pub peer: PeerId,
    /// The connection on which it asks.
    pub connection: ConnectionId,
    /// The request.
    pub request: S::Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<S::Answer>,
}

/// Serves `S`, and asks `C`.
#[derive(Debug)]
pub struct Behaviour<S: Protocol, C: Protocol = Never> {
    max_concurrent: usize,
    is_eager: bool,
    queue: VecDeque<ToSwarm<Event<S, C>, C::Request>>,
}

impl<S: Protocol, C: Protocol> Behaviour<S, C> {
    /// With up to `max_concurrent` exchanges at once on one connection, each way. What goes beyond is dropped unread.
    #[must_use]
    pub fn new(max_concurrent: usize) -> Self {
        Self {
            max_concurrent,
            is_eager: false,
            queue: VecDeque::new(),
        }
    }

    /// One that asks remotes which have not identified themselves.
    #[must_use]
    pub fn eager(self) -> Self {
        Self {
            is_eager: true,
            ..self
        }
    }

    fn handler(&self) -> Handler<S, C> {
        let handler = Handler::new(self.max_concurrent);
        match self.is_eager {
            true => handler.eager(),
            false => handler,
        }
    }

    /// Asks `peer` on a connection.
    ///
    /// To be called while the swarm is being polled: the request goes out at the next poll.
    pub fn ask(&mut self, peer: PeerId, connection: ConnectionId, request: C::Request) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: request,
        });
    }
}

impl<S: Protocol, C: Protocol> NetworkBehaviour for Behaviour<S, C> {
    type ConnectionHandler = Handler<S, C>;
    type ToSwarm = Event<S, C>;

    crate::handlers!(self => self.handler());
    crate::no_swarm_events!();

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        let event = match report {
            Report::Asked(request, reply) => Event::Asked(Question {
                peer,
                connection,
                request,
                reply,
            }),
            Report::Replied(request, reply) => Event::Replied {
                peer,
                request,
                reply,
            },
        };
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    crate::polls!(self.queue);
}
