//! Keeps what a connection has of all protocols in one block of its own.
//!
//! libp2p-swarm moves a connection's handler by value through an async function. The future has room for it as an argument, as a
//! variable and at each place where it may be taken apart. All that room lasts as long as the connection. The same goes for what
//! the handler reports. With the handlers of a relay that was a fifth of what a reservation took (`docs/notes.md`).

use std::task::{Context, Poll};

use libp2p::{
    PeerId,
    swarm::{
        ConnectionHandler, ConnectionId, NetworkBehaviour, SubstreamProtocol, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::behaviour::{EventOf, PollOf};

/// A behaviour whose handlers, and what passes between them and it, are boxed.
pub(crate) struct BoxedHandlers<B>(pub(crate) B);

impl<B> std::ops::Deref for BoxedHandlers<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.0
    }
}

impl<B> std::ops::DerefMut for BoxedHandlers<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.0
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for BoxedHandlers<B> {
    type ConnectionHandler = Handler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    p2pnode_protocol::wraps!(self.0, |handler, _, _| Handler(Box::new(handler)));

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.0.on_connection_handler_event(peer, connection, *event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.0.poll(cx).map(|action| action.map_in(Box::new))
    }
}

/// The handler of one connection.
pub(crate) struct Handler<H>(Box<H>);

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = Box<H::FromBehaviour>;
    type ToBehaviour = Box<H::ToBehaviour>;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.0.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.0.connection_keep_alive()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> PollOf<Self> {
        self.0.poll(cx).map(|event| event.map_custom(Box::new))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.0.poll_close(cx).map(|event| event.map(Box::new))
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.0.on_behaviour_event(*event);
    }

    fn on_connection_event(&mut self, event: EventOf<'_, Self>) {
        self.0.on_connection_event(event);
    }
}
