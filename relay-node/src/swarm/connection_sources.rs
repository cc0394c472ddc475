//! How many connections a source may have.
//!
//! Only connections whose handshake is over are counted: until then the address may be forged, and whoever forges it could
//! use up the share of another. Those that are not over share `limits.pending_connections` ([`crate::core::handshakes`]).

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

use crate::core::source::{PerSource, Source, decrement};

/// The source has as many connections as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded(Source);

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self.0 {
            Source::Ip4(_) => "limits.connections_per_ip4",
            Source::Net6(_) => "limits.connections_per_ip6_net",
        };
        write!(f, "{} has as many connections as {key} admits", self.0)
    }
}

impl std::error::Error for Exceeded {}

/// Refuses connections beyond the limit.
#[derive(Debug)]
pub(crate) struct Behaviour {
    limits: PerSource,
    connections: HashMap<ConnectionId, Source>,
    counts: HashMap<Source, usize>,
}

impl Behaviour {
    /// None is open yet.
    pub(crate) fn new(limits: PerSource) -> Self {
        Self {
            limits,
            connections: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    fn check(&self, remote: &Multiaddr) -> Result<(), ConnectionDenied> {
        let Some(source) = Source::of(remote) else {
            return Ok(());
        };
        let held = self.counts.get(&source).copied().unwrap_or_default();
        if self.limits.admits(source, held) {
            Ok(())
        } else {
            Err(ConnectionDenied::new(Exceeded(source)))
        }
    }

    fn opened(&mut self, connection: ConnectionId, remote: &Multiaddr) {
        if let Some(source) = Source::of(remote) {
            self.connections.insert(connection, source);
            *self.counts.entry(source).or_default() += 1;
        }
    }

    fn closed(&mut self, connection: ConnectionId) {
        if let Some(source) = self.connections.remove(&connection) {
            decrement(&mut self.counts, source);
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    /// Spares the handshake where its end is known.
    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.check(remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(remote)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            if established.endpoint.is_listener() {
                self.opened(
                    established.connection_id,
                    established.endpoint.get_remote_address(),
                );
            }
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.closed(closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a multiaddr")
    }

    #[test]
    fn a_source_has_as_many_connections_as_its_limit_says_and_one_that_closes_makes_room() {
        let mut behaviour = Behaviour::new(PerSource { ip4: 2, ip6_net: 1 });
        let (one, same, other) = (
            address("/ip4/198.51.100.7/tcp/4"),
            address("/ip4/198.51.100.7/udp/5/quic-v1"),
            address("/ip4/198.51.100.8/tcp/4"),
        );
        behaviour.opened(id(1), &one);
        assert!(behaviour.check(&same).is_ok());
        behaviour.opened(id(2), &same);
        let denied = behaviour.check(&one).expect_err("the limit is reached");
        let exceeded = denied.downcast::<Exceeded>().expect("ours");
        assert!(exceeded.to_string().contains("198.51.100.7"), "{exceeded}");
        assert!(behaviour.check(&other).is_ok());
        behaviour.closed(id(1));
        behaviour.closed(id(1));
        assert!(behaviour.check(&one).is_ok());
        behaviour.closed(id(2));
        assert!(behaviour.counts.is_empty() && behaviour.connections.is_empty());
    }

    #[test]
    fn an_ipv6_64_is_one_source() {
        let mut behaviour = Behaviour::new(PerSource { ip4: 0, ip6_net: 1 });
        behaviour.opened(id(1), &address("/ip6/2001:db8:0:7::1/tcp/4"));
        assert!(
            behaviour
                .check(&address("/ip6/2001:db8:0:7::2/udp/4/quic-v1"))
                .is_err()
        );
        assert!(
            behaviour
                .check(&address("/ip6/2001:db8:0:8::2/tcp/4"))
                .is_ok()
        );
    }
}
