//! The connections that are open: whose they are, how they travel, and how many of them a peer or a source has.
//!
//! Of incoming connections only those count whose handshake is over. Until then the address may be forged, and its forger could
//! use up the share of another. Those that are not over share `limits.pending_connections` ([`super::handshakes`]).
//!
//! Once `limits.connections` are open, one that nobody uses is closed for a newcomer: the oldest of the source that has the most.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_daemon::shares::Places;
use p2pnode_protocol::{
    Network, Source, Transport,
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

/// How long a connection that nobody uses stays before one of no heavier source displaces it: time for its peer to ask for a
/// reservation or a circuit.
const PATIENCE: Duration = Duration::from_secs(10);

/// The open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    open: HashMap<ConnectionId, Connection>,
    of_peer: HashMap<PeerId, usize>,
    /// Those that peers have made and that are not being closed.
    incoming: Places<ConnectionId, Network>,
    /// How many are being closed for a newcomer.
    displaced: usize,
}

#[derive(Debug)]
struct Connection {
    peer: PeerId,
    /// `None` if its address does not say how it travels.
    leg: Option<Leg>,
    is_displaced: bool,
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
            incoming: {
                let limit = count32(limits.connections);
                Places::new(limit, limit / 8)
            },
            displaced: 0,
        }
    }

    /// Whether `remote` may have one more connection.
    pub(crate) fn check_source(&self, remote: &Multiaddr) -> Result<(), Denied> {
        let Some(source) = Source::of(remote) else {
            return Ok(());
        };
        let limits = self.limits.connections_per_source;
        let is_within = |network| source::admits(limits, network, self.incoming.shares.of(network));
        if source.networks().all(is_within) {
            Ok(())
        } else {
            Err(Denied::SourceConnections(source))
        }
    }

    /// Whether `peer` may have one more connection, an `incoming` one from that address or one that the relay has dialed. Returns
    /// the one that has to be closed for it, if any. Only those are closed that `may` be.
    pub(crate) fn admit(
        &mut self,
        peer: &PeerId,
        incoming: Option<&Multiaddr>,
        now: Instant,
        may: impl Fn(PeerId, ConnectionId) -> bool,
    ) -> Result<Option<ConnectionId>, Denied> {
        let held = self.of_peer.get(peer).copied().unwrap_or_default();
        if held >= count32(self.limits.connections_per_peer) {
            return Err(Denied::PeerConnections);
        }
        incoming.map_or(Ok(()), |remote| self.check_source(remote))?;
        let networks = networks(incoming);
        let is_full = self.open.len() - self.displaced >= count32(self.limits.connections);
        let may = |id: &ConnectionId| self.open.get(id).is_some_and(|open| may(open.peer, *id));
        let place = self.incoming.place(&networks, is_full, PATIENCE, now, may);
        let displaced = place.or(Denied::Connections)?;
        if let Some(open) = displaced.and_then(|id| self.open.get_mut(&id)) {
            open.is_displaced = true;
            self.displaced += 1;
        }
        if let Some(id) = displaced {
            self.incoming.leave(&id);
        }
        Ok(displaced)
    }

    /// A connection was established.
    pub(crate) fn established(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        endpoint: &ConnectedPoint,
        now: Instant,
    ) {
        let remote = endpoint.get_remote_address();
        let networks = networks(endpoint.is_listener().then_some(remote));
        let new = Connection {
            peer,
            leg: leg(endpoint),
            is_displaced: false,
        };
        if self.open.insert(connection, new).is_none() {
            *self.of_peer.entry(peer).or_default() += 1;
            if !networks.is_empty() {
                self.incoming.take(connection, &networks, now);
            }
        }
    }

    /// A connection was closed. `None` if it was not known.
    pub(crate) fn closed(&mut self, connection: ConnectionId) -> Option<Remaining> {
        let Connection {
            peer, is_displaced, ..
        } = self.open.remove(&connection)?;
        decrement(&mut self.of_peer, peer);
        self.incoming.leave(&connection);
        self.displaced -= usize::from(is_displaced);
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

    /// How many peers there are.
    pub(crate) fn peers(&self) -> usize {
        self.of_peer.len()
    }

    /// How a connection travels, as far as that is known.
    pub(crate) fn leg(&self, connection: ConnectionId) -> Option<Leg> {
        self.open.get(&connection)?.leg.clone()
    }
}

/// The networks of an address, the smallest first; none of what is no IP address, or is none of a peer's.
fn networks(remote: Option<&Multiaddr>) -> Vec<Network> {
    let source = remote.and_then(Source::of);
    source.into_iter().flat_map(Source::networks).collect()
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
        seen: Vec::new(),
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
        connections.established(id(1), PeerId::random(), &endpoint, Instant::now());
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
        connections.established(
            id(1),
            peer,
            &from("/ip4/198.51.100.7/tcp/4"),
            Instant::now(),
        );
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
        connections.established(id(1), peers[0], &from(one), Instant::now());
        assert_eq!(check(&connections, same), Ok(()));
        connections.established(id(2), peers[1], &from(same), Instant::now());
        let full = check(&connections, one).expect_err("the limit is reached");
        assert!(full.to_string().contains("198.51.100.7"), "{full}");
        assert_eq!(check(&connections, "/ip4/198.51.100.8/tcp/4"), Ok(()));
        let net = "/ip6/2001:db8:0:7::1/tcp/4";
        connections.established(id(3), peers[2], &from(net), Instant::now());
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
            incoming,
            ..
        } = connections;
        assert!(open.is_empty() && of_peer.is_empty() && incoming.shares.is_empty());
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
        let dials = |connections: &mut Connections, peer: &PeerId| {
            connections.admit(peer, None, Instant::now(), |_, _| true)
        };
        connections.established(id(1), peer, &dialed, Instant::now());
        assert_eq!(
            connections.check_source(dialed.get_remote_address()),
            Ok(())
        );
        assert_eq!(dials(&mut connections, &peer), Ok(None));
        connections.established(id(2), peer, &dialed, Instant::now());
        assert_eq!(dials(&mut connections, &peer), Err(Denied::PeerConnections));
        assert_eq!(dials(&mut connections, &other), Ok(None));
        connections.established(id(3), other, &dialed, Instant::now());
        assert_eq!(dials(&mut connections, &other), Err(Denied::Connections));
        assert_eq!(connections.closed(id(1)), Some(Remaining::Some));
        assert_eq!(dials(&mut connections, &other), Ok(None));
    }

    #[test]
    fn a_full_relay_closes_what_nobody_uses_and_first_that_of_the_source_with_the_most() {
        const LIMIT: usize = 16;
        let mut connections = Connections::new(&Limits {
            connections: LIMIT as u32,
            ..Limits::UNLIMITED
        });
        let begun = Instant::now();
        let peers: Vec<PeerId> = (0..=LIMIT).map(|_| PeerId::random()).collect();
        let new = peers[LIMIT];
        let (many, few, late): (_, _, Multiaddr) = (
            "/ip4/198.51.100.1/tcp/4",
            "/ip4/198.51.100.2/tcp/4",
            "/ip4/198.51.100.3/tcp/4".parse().expect("a multiaddr"),
        );
        // An eighth is kept for IPv6.
        let taken = LIMIT - LIMIT / 8;
        for (number, peer) in peers.iter().enumerate().take(taken) {
            let remote = from(if number < 2 { few } else { many });
            connections.established(id(number), *peer, &remote, begun);
        }
        let used = peers[2];
        let may = |peer: PeerId, _| peer != used;
        let admit = |connections: &mut Connections, remote: &Multiaddr, now| {
            connections.admit(&new, Some(remote), now, may)
        };
        // One that has been asked to close is not asked again.
        assert_eq!(admit(&mut connections, &late, begun), Ok(Some(id(3))));
        connections.established(id(20), new, &from("/ip4/198.51.100.3/tcp/4"), begun);
        assert_eq!(admit(&mut connections, &late, begun), Ok(Some(id(4))));
        connections.established(id(21), new, &from("/ip4/198.51.100.3/tcp/4"), begun);
        // The heaviest displaces its own, once they have had their time.
        let heaviest = many.parse().expect("a multiaddr");
        let refused = admit(&mut connections, &heaviest, begun);
        assert_eq!(refused, Err(Denied::Connections));
        let later = begun + PATIENCE;
        assert_eq!(admit(&mut connections, &heaviest, later), Ok(Some(id(5))));
        let ip6: Multiaddr = "/ip6/2001:db8::1/tcp/4".parse().expect("a multiaddr");
        assert_eq!(admit(&mut connections, &ip6, later), Ok(None));
        for number in (0..taken).chain([20, 21]) {
            connections.closed(id(number));
        }
        assert_eq!(connections.displaced, 0);
    }

    #[test]
    fn a_56_has_twice_and_a_48_four_times_the_connections_of_a_source() {
        let mut connections = Connections::new(&Limits {
            connections_per_source: PerSource { ip4: 0, ip6_net: 2 },
            ..Limits::UNLIMITED
        });
        let mut number = 0;
        let mut open = |remote: String| {
            let addr = remote.parse().expect("a multiaddr");
            let admitted = connections.check_source(&addr).is_ok();
            if admitted {
                number += 1;
                let peer = PeerId::random();
                connections.established(id(number), peer, &from(&remote), Instant::now());
            }
            admitted
        };
        let mut of_48 = 0;
        for net56 in 1..=4 {
            let mut of_56 = 0;
            for net64 in 0..8 {
                for host in 1..=4 {
                    let remote = format!("/ip6/2001:db8:0:{net56}0{net64}::{host}/tcp/4");
                    of_56 += usize::from(open(remote));
                }
            }
            assert!(of_56 <= 4, "{of_56}");
            of_48 += of_56;
        }
        assert_eq!(of_48, 8);
        assert!(open("/ip6/2001:db8:1::1/tcp/4".to_owned()));
    }
}
