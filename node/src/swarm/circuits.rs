//! Circuits over the relay legs of one IP family.
//!
//! libp2p's relay client takes the first connection that it has to a relay, for reservations and circuits alike. A node may have
//! a leg to a relay in each family, so the node runs one client per family. Each client takes only addresses of its family, and
//! sees only connections of its family. So the address that the node names chooses the leg.

use std::{
    collections::HashSet,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId, TransportError,
    core::{
        Endpoint, Transport,
        transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    },
    multiaddr::Protocol,
    relay::client,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};
use p2pnode_protocol::Scope;
use p2pnode_transports::Family;

/// The relay client of one family, in two halves.
pub(crate) fn new(local: PeerId, family: Family) -> (Circuits, Client) {
    let (transport, behaviour) = client::new(local);
    (
        Circuits {
            inner: transport,
            family,
        },
        Client {
            inner: behaviour,
            family,
            ours: HashSet::new(),
        },
    )
}

/// Whether a circuit over a relay at `address` is this family's. A name that leaves it open is IPv4's.
fn is_of(address: &Multiaddr, family: Family) -> bool {
    Family::of(address).unwrap_or(Family::Ip4) == family
}

/// The transport half.
pub(crate) struct Circuits {
    inner: client::Transport,
    family: Family,
}

impl Transport for Circuits {
    type Output = <client::Transport as Transport>::Output;
    type Error = <client::Transport as Transport>::Error;
    type ListenerUpgrade = <client::Transport as Transport>::ListenerUpgrade;
    type Dial = <client::Transport as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        if is_of(&address, self.family) {
            self.inner.listen_on(id, address)
        } else {
            Err(TransportError::MultiaddrNotSupported(address))
        }
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        if is_of(&address, self.family) {
            self.inner.dial(address, opts)
        } else {
            Err(TransportError::MultiaddrNotSupported(address))
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// What a relay client reports.
#[derive(Debug)]
pub(crate) struct Event {
    /// Whose client.
    pub(crate) family: Family,
    /// What.
    pub(crate) event: client::Event,
}

/// The behaviour half.
pub(crate) struct Client {
    inner: client::Behaviour,
    family: Family,
    /// The direct connections that the inner one sees: those of its family, and what it dials by itself.
    ours: HashSet<ConnectionId>,
}

impl Client {
    /// Whether the inner one is to see this connection, which is not relayed.
    fn claims(&mut self, connection: ConnectionId, address: &Multiaddr) -> bool {
        if Family::of(address) == Some(self.family) {
            self.ours.insert(connection);
        }
        self.ours.contains(&connection)
    }
}

impl NetworkBehaviour for Client {
    type ConnectionHandler = THandler<client::Behaviour>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.claims(connection, local) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.claims(connection, address) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the rest is about listeners and addresses, of which each client knows its own"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm) {
        let concerns_inner = match &event {
            FromSwarm::ConnectionEstablished(established) => {
                self.ours.contains(&established.connection_id)
            }
            FromSwarm::ConnectionClosed(closed) => self.ours.remove(&closed.connection_id),
            FromSwarm::DialFailure(failure) => {
                self.ours.remove(&failure.connection_id);
                true
            }
            FromSwarm::ListenFailure(failure) => {
                self.ours.remove(&failure.connection_id);
                true
            }
            _ => true,
        };
        if concerns_inner {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner
            .on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        let family = self.family;
        loop {
            let action = futures::ready!(self.inner.poll(cx));
            if let ToSwarm::Dial { opts } = &action {
                self.ours.insert(opts.connection_id());
            }
            if let ToSwarm::ExternalAddrConfirmed(address) = &action
                && !is_publishable(address)
            {
                continue;
            }
            return Poll::Ready(action.map_out(|event| Event { family, event }));
        }
    }
}

/// Whether identify may list this circuit address to anybody: not if the relay is on this host.
fn is_publishable(address: &Multiaddr) -> bool {
    let ip = match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(IpAddr::V4(ip)),
        Some(Protocol::Ip6(ip)) => Some(IpAddr::V6(ip)),
        _ => None,
    };
    ip.is_none_or(|ip| matches!(Scope::of(ip), Scope::Global | Scope::Private))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_over_a_relay_on_this_host_is_not_listed() {
        for (host, expected) in [
            ("/ip4/127.0.0.1", false),
            ("/ip6/::1", false),
            ("/ip6/fe80::1", false),
            ("/ip4/203.0.113.1", true),
            ("/ip4/192.168.1.2", true),
            ("/dns/relay.example.net", true),
        ] {
            let address = format!("{host}/tcp/443/p2p-circuit");
            let address = address.parse().expect("a multiaddr");
            assert_eq!(is_publishable(&address), expected, "{host}");
        }
    }
}
