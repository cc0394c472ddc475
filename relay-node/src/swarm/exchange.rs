//! A protocol of one request and one answer in the swarm. It takes the requests of peers, and sends requests of the relay. The
//! answers come from [`RelayState`](crate::core::RelayState) through the event loop.

use std::collections::VecDeque;

use futures::channel::oneshot;
use libp2p::{
    PeerId,
    swarm::{ConnectionId, NetworkBehaviour, NotifyHandler, THandlerOutEvent, ToSwarm},
};
use p2pnode_protocol::exchange::{Handler, Never, Protocol, Reply, Report};

/// What the event loop learns.
#[derive(Debug)]
pub(crate) enum Event<S: Protocol, C: Protocol> {
    /// A peer asks.
    Asked(Question<S>),
    /// A request of the relay has ended.
    Replied {
        peer: PeerId,
        request: C::Request,
        reply: Reply<C::Answer>,
    },
}

/// A request that awaits its answer. If it is dropped, its stream closes without one.
#[derive(Debug)]
pub(crate) struct Question<S: Protocol> {
    /// The peer that asks.
    pub(crate) peer: PeerId,
    /// The connection on which it asks.
    pub(crate) connection: ConnectionId,
    /// The request.
    pub(crate) request: S::Request,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<S::Answer>,
}

/// Serves `S`, and asks `C`.
pub(crate) struct Behaviour<S: Protocol, C: Protocol = Never> {
    max_concurrent: usize,
    is_eager: bool,
    queue: VecDeque<ToSwarm<Event<S, C>, C::Request>>,
}

impl<S: Protocol, C: Protocol> Behaviour<S, C> {
    /// With up to `max_concurrent` exchanges at once on one connection, each way. What goes beyond is dropped unread.
    pub(crate) fn new(max_concurrent: usize) -> Self {
        Self {
            max_concurrent,
            is_eager: false,
            queue: VecDeque::new(),
        }
    }

    /// One that asks remotes which have not identified themselves.
    pub(crate) fn eager(self) -> Self {
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
    pub(crate) fn ask(&mut self, peer: PeerId, connection: ConnectionId, request: C::Request) {
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

    p2pnode_protocol::handlers!(self => self.handler());
    p2pnode_protocol::no_swarm_events!();

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

    p2pnode_protocol::polls!(self.queue);
}
