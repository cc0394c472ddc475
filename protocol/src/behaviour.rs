//! What behaviours of a swarm have in common, written once: methods as macros, and short names of long types.

use std::task::Poll;

use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, handler::ConnectionEvent};

/// What a connection reports to its handler `H`.
pub type EventOf<'a, H> = ConnectionEvent<
    'a,
    <H as ConnectionHandler>::InboundProtocol,
    <H as ConnectionHandler>::OutboundProtocol,
    <H as ConnectionHandler>::InboundOpenInfo,
    <H as ConnectionHandler>::OutboundOpenInfo,
>;

/// What a poll of a handler `H` returns.
pub type PollOf<H> = Poll<
    ConnectionHandlerEvent<
        <H as ConnectionHandler>::OutboundProtocol,
        <H as ConnectionHandler>::OutboundOpenInfo,
        <H as ConnectionHandler>::ToBehaviour,
    >,
>;

/// Inbound and outbound connections have the same handler. It may depend on the connection, the peer, and the address that names
/// the circuit of a relayed connection: the local one of an inbound connection, the dialed one of an outbound connection.
#[macro_export]
macro_rules! handlers {
    ($this:ident => $handler:expr) => {
        $crate::handlers!($this, _, _, _ => $handler);
    };
    ($this:ident, $connection:tt, $peer:tt, $address:tt => $handler:expr) => {
        fn handle_established_inbound_connection(
            &mut $this,
            $connection: libp2p::swarm::ConnectionId,
            $peer: libp2p::PeerId,
            $address: &libp2p::Multiaddr,
            _: &libp2p::Multiaddr,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            Ok($handler)
        }

        fn handle_established_outbound_connection(
            &mut $this,
            $connection: libp2p::swarm::ConnectionId,
            $peer: libp2p::PeerId,
            $address: &libp2p::Multiaddr,
            _: libp2p::core::Endpoint,
            _: libp2p::core::transport::PortUse,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            Ok($handler)
        }
    };
}

/// The behaviour sees no events of the swarm.
#[macro_export]
macro_rules! no_swarm_events {
    () => {
        fn on_swarm_event(&mut self, _: libp2p::swarm::FromSwarm<'_>) {}
    };
}

/// The handlers report nothing.
#[macro_export]
macro_rules! no_reports {
    () => {
        fn on_connection_handler_event(
            &mut self,
            _: libp2p::PeerId,
            _: libp2p::swarm::ConnectionId,
            never: libp2p::swarm::THandlerOutEvent<Self>,
        ) {
            match never {}
        }
    };
}

/// The behaviour asks nothing of the swarm, or only what is in its queue.
///
/// A queue is polled after each event of a handler and after each pass of the event loop. What is queued elsewhere needs a waker.
#[macro_export]
macro_rules! polls {
    (nothing) => {
        $crate::polls!(@ self, std::task::Poll::Pending);
    };
    ($this:ident.$queue:ident) => {
        $crate::polls!(@ $this, match $this.$queue.pop_front() {
            Some(action) => std::task::Poll::Ready(action),
            None => std::task::Poll::Pending,
        });
    };
    (@ $this:ident, $next:expr) => {
        fn poll(
            &mut $this,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<
            libp2p::swarm::ToSwarm<Self::ToSwarm, libp2p::swarm::THandlerInEvent<Self>>,
        > {
            $next
        }
    };
}

/// A behaviour around another one: pending connections and events of the swarm are those of the inner one, and its handler is put
/// into one that may depend on the peer and on its address.
#[macro_export]
macro_rules! wraps {
    ($this:ident.$inner:tt, |$handler:ident, $peer:tt, $remote:tt| $wrapped:expr) => {
        fn handle_pending_inbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            local: &libp2p::Multiaddr,
            remote: &libp2p::Multiaddr,
        ) -> Result<(), libp2p::swarm::ConnectionDenied> {
            let inner = &mut self.$inner;
            inner.handle_pending_inbound_connection(connection, local, remote)
        }

        fn handle_pending_outbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            peer: Option<libp2p::PeerId>,
            addresses: &[libp2p::Multiaddr],
            role: libp2p::core::Endpoint,
        ) -> Result<Vec<libp2p::Multiaddr>, libp2p::swarm::ConnectionDenied> {
            let inner = &mut self.$inner;
            inner.handle_pending_outbound_connection(connection, peer, addresses, role)
        }

        fn handle_established_inbound_connection(
            &mut $this,
            connection: libp2p::swarm::ConnectionId,
            peer: libp2p::PeerId,
            local: &libp2p::Multiaddr,
            remote: &libp2p::Multiaddr,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            let inner = &mut $this.$inner;
            let $handler =
                inner.handle_established_inbound_connection(connection, peer, local, remote)?;
            let ($peer, $remote) = (peer, remote);
            Ok($wrapped)
        }

        fn handle_established_outbound_connection(
            &mut $this,
            connection: libp2p::swarm::ConnectionId,
            peer: libp2p::PeerId,
            remote: &libp2p::Multiaddr,
            role: libp2p::core::Endpoint,
            port_use: libp2p::core::transport::PortUse,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            let inner = &mut $this.$inner;
            let $handler = inner
                .handle_established_outbound_connection(connection, peer, remote, role, port_use)?;
            let ($peer, $remote) = (peer, remote);
            Ok($wrapped)
        }

        fn on_swarm_event(&mut self, event: libp2p::swarm::FromSwarm<'_>) {
            self.$inner.on_swarm_event(event);
        }
    };
}
