//! The connections that are open: whose they are, how they travel, and how many of them a peer or a source has.
//!
//! Of incoming connections only those count whose handshake is over: until then the address may be forged, and its forger
//! could use up the share of another. Those that are not over share `limits.pending_connections` ([`super::handshakes`]).

use std::{collections::HashMap, net::IpAddr, time::Duration};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_protocol::{
    Source, Transport,
    hop::{Leg, Near},
};

use crate::{
    config::Limits,
    core::{
        denied::Denied,
        limits::count32,
        source::{self, decrement},
    },
};

/// The open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    open: HashMap<ConnectionId, Connection>,
    of_peer: HashMap<PeerId, usize>,
    of_source: HashMap<Source, usize>,
}

#[derive(Debug)]
struct Connection {
    peer: PeerId,
    /// `None` if its address does not say how it travels.
    leg: Option<Leg>,
    /// Where it comes from; `None` if the relay has dialed it.
    source: Option<Source>,
}

/// Whether the last connection of a peer was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remaining {
    /// It was the last.
    None,
    /// There are others.
    Some,
}

impl Connections {
    /// Without connections; admits as many as `limits` allow.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            open: HashMap::new(),
            of_peer: HashMap::new(),
            of_source: HashMap::new(),
        }
    }

    /// Whether `remote` may have one more connection.
    pub(crate) fn check_source(&self, remote: &Multiaddr) -> Result<(), Denied> {
        let Some(source) = Source::of(remote) else {
            return Ok(());
        };
        let held = self.of_source.get(&source).copied().unwrap_or_default();
        if source::admits(self.limits.connections_per_source, source, held) {
            Ok(())
        } else {
            Err(Denied::SourceConnections(source))
        }
    }

    /// Whether `peer` may have one more connection.
    pub(crate) fn check_peer(&self, peer: &PeerId) -> Result<(), Denied> {
        let held = self.of_peer.get(peer).copied().unwrap_or_default();
        if held >= count32(self.limits.connections_per_peer) {
            Err(Denied::PeerConnections)
        } else if self.open.len() >= count32(self.limits.connections) {
            Err(Denied::Connections)
        } else {
            Ok(())
        }
    }

    /// A connection was established.
    pub(crate) fn established(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        endpoint: &ConnectedPoint,
    ) {
        let source = endpoint
            .is_listener()
            .then(|| Source::of(endpoint.get_remote_address()))
            .flatten();
        let new = Connection {
            peer,
            leg: leg(endpoint),
            source,
        };
        if self.open.insert(connection, new).is_none() {
            *self.of_peer.entry(peer).or_default() += 1;
            if let Some(source) = source {
                *self.of_source.entry(source).or_default() += 1;
            }
        }
    }

    /// A connection was closed. `None` if it was not known.
    pub(crate) fn closed(&mut self, connection: ConnectionId) -> Option<Remaining> {
        let Connection { peer, source, .. } = self.open.remove(&connection)?;
        decrement(&mut self.of_peer, peer);
        if let Some(source) = source {
            decrement(&mut self.of_source, source);
        }
        Some(match self.of_peer.contains_key(&peer) {
            true => Remaining::Some,
            false => Remaining::None,
        })
    }

    /// Ping measured a round trip.
    pub(crate) fn measured(&mut self, connection: ConnectionId, rtt: Duration) {
        let connection = self.open.get_mut(&connection);
        if let Some(leg) = connection.and_then(|connection| connection.leg.as_mut()) {
            leg.rtt = Some(rtt);
        }
    }

    /// All of them.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.open.keys().copied()
    }

    /// How a connection travels, as far as that is known.
    pub(crate) fn leg(&self, connection: ConnectionId) -> Option<Leg> {
        self.open.get(&connection)?.leg
    }
}

fn leg(endpoint: &ConnectedPoint) -> Option<Leg> {
    let address = endpoint.get_remote_address();
    let first = address.iter().next()?;
    let ip = if let Protocol::Ip4(ip) = first {
        IpAddr::V4(ip)
    } else if let Protocol::Ip6(ip) = first {
        // An IPv4 peer at a socket for both families.
        ip.to_canonical()
    } else {
        return None;
    };
    Some(Leg {
        transport: Transport::of(address)?,
        family: ip.into(),
        rtt: None,
        near: Near::default(),
    })
}

#[cfg(test)]
mod tests {
    use p2pnode_protocol::Family;

    use super::*;
    use crate::config::PerSource;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn from(remote: &str) -> ConnectedPoint {
        ConnectedPoint::Listener {
            local_addr: "/ip6/::/udp/443/quic-v1".parse().expect("a multiaddr"),
            send_back_addr: remote.parse().expect("a multiaddr"),
        }
    }

    fn known(remote: &str) -> Option<(Transport, Family)> {
        let endpoint = from(remote);
        let mut connections = Connections::new(&Limits::UNLIMITED);
        connections.established(id(1), PeerId::random(), &endpoint);
        connections
            .leg(id(1))
            .map(|leg| (leg.transport, leg.family))
    }

    #[test]
    fn transport_and_family_are_those_of_the_packets() {
        let quic = (Transport::Quic, Family::Ip4);
        assert_eq!(known("/ip4/198.51.100.7/udp/4/quic-v1"), Some(quic));
        assert_eq!(known("/ip6/::ffff:198.51.100.7/udp/4/quic-v1"), Some(quic));
        assert_eq!(
            known("/ip6/2001:db8::7/tcp/4"),
            Some((Transport::Tcp, Family::Ip6))
        );
        assert_eq!(known("/memory/4"), None);
    }

    #[test]
    fn a_round_trip_is_remembered_until_its_connection_closes() {
        let mut connections = Connections::new(&Limits::UNLIMITED);
        let rtt = Duration::from_millis(7);
        connections.measured(id(1), rtt);
        assert!(connections.leg(id(1)).is_none());
        let peer = PeerId::random();
        connections.established(id(1), peer, &from("/ip4/198.51.100.7/tcp/4"));
        connections.measured(id(1), rtt);
        let measured = connections.leg(id(1)).and_then(|leg| leg.rtt);
        assert_eq!(measured, Some(rtt));
        assert_eq!(connections.closed(id(1)), Some(Remaining::None));
        assert!(connections.leg(id(1)).is_none());
        assert_eq!(connections.closed(id(1)), None);
    }

    #[test]
    fn a_source_has_as_many_connections_as_its_limit_says_and_one_that_closes_makes_room() {
        let mut connections = Connections::new(&Limits {
            connections_per_source: PerSource { ip4: 2, ip6_net: 1 },
            ..Limits::UNLIMITED
        });
        let peers = [(); 3].map(|()| PeerId::random());
        let check = |connections: &Connections, remote: &str| {
            connections.check_source(&remote.parse().expect("a multiaddr"))
        };
        let (one, same) = ("/ip4/198.51.100.7/tcp/4", "/ip4/198.51.100.7/udp/5/quic-v1");
        connections.established(id(1), peers[0], &from(one));
        assert_eq!(check(&connections, same), Ok(()));
        connections.established(id(2), peers[1], &from(same));
        let full = check(&connections, one).expect_err("the limit is reached");
        assert!(full.to_string().contains("198.51.100.7"), "{full}");
        assert_eq!(check(&connections, "/ip4/198.51.100.8/tcp/4"), Ok(()));
        let net = "/ip6/2001:db8:0:7::1/tcp/4";
        connections.established(id(3), peers[2], &from(net));
        assert!(check(&connections, "/ip6/2001:db8:0:7::2/udp/4/quic-v1").is_err());
        assert_eq!(check(&connections, "/ip6/2001:db8:0:8::2/tcp/4"), Ok(()));
        assert_eq!(connections.closed(id(1)), Some(Remaining::None));
        assert_eq!(connections.closed(id(1)), None);
        assert_eq!(check(&connections, one), Ok(()));
        connections.closed(id(2));
        connections.closed(id(3));
        let Connections {
            open,
            of_peer,
            of_source,
            ..
        } = connections;
        assert!(open.is_empty() && of_peer.is_empty() && of_source.is_empty());
    }

    #[test]
    fn a_peer_and_all_peers_together_have_a_limit_and_what_the_relay_dials_counts_for_no_source() {
        let mut connections = Connections::new(&Limits {
            connections: 3,
            connections_per_peer: 2,
            connections_per_source: PerSource { ip4: 1, ip6_net: 1 },
            ..Limits::UNLIMITED
        });
        let [peer, other] = [(); 2].map(|()| PeerId::random());
        let dialed = ConnectedPoint::Dialer {
            address: "/ip4/198.51.100.7/tcp/4".parse().expect("a multiaddr"),
            role_override: libp2p::core::Endpoint::Dialer,
            port_use: libp2p::core::transport::PortUse::Reuse,
        };
        connections.established(id(1), peer, &dialed);
        assert_eq!(
            connections.check_source(dialed.get_remote_address()),
            Ok(())
        );
        assert_eq!(connections.check_peer(&peer), Ok(()));
        connections.established(id(2), peer, &dialed);
        assert_eq!(connections.check_peer(&peer), Err(Denied::PeerConnections));
        assert_eq!(connections.check_peer(&other), Ok(()));
        connections.established(id(3), other, &dialed);
        assert_eq!(connections.check_peer(&other), Err(Denied::Connections));
        assert_eq!(connections.closed(id(1)), Some(Remaining::Some));
        assert_eq!(connections.check_peer(&other), Ok(()));
    }
}
