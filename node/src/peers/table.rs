//! The connections that are open, by peer.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_transports::{FamilyPolicy, Kind, Sockets, to_socket_addr};

use super::{Hop, How, Path, PathKind, Score};

/// One open connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The peer at its far end.
    pub peer: PeerId,
    /// Its path. For a relayed one the near hop is a copy of the relay leg at the time of asking.
    pub path: Path,
    /// When it was established.
    pub since: Instant,
    /// The last round trip time that ping measured from end to end.
    pub rtt: Option<Duration>,
    /// The connection to the relay that carries it, if it is relayed and that connection is known.
    pub via: Option<ConnectionId>,
}

/// All open connections, and the best path of each peer.
#[derive(Debug)]
pub struct PeerTable {
    policy: FamilyPolicy,
    connections: HashMap<ConnectionId, Connection>,
    /// Open connections by peer, in the order in which they were established.
    by_peer: HashMap<PeerId, Vec<ConnectionId>>,
}

impl PeerTable {
    /// An empty table that ranks families by `policy`.
    pub fn new(policy: FamilyPolicy) -> Self {
        Self {
            policy,
            connections: HashMap::new(),
            by_peer: HashMap::new(),
        }
    }

    /// A connection was established. `sockets` are its true sockets, where this node knows them.
    pub fn established(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        endpoint: &ConnectedPoint,
        sockets: Option<Sockets>,
        now: Instant,
    ) -> &Connection {
        let how = if endpoint.is_dialer() {
            How::Dialed
        } else {
            How::Accepted
        };
        // An address that names no transport is never called direct.
        let (path, via) =
            if endpoint.is_relayed() || Kind::of(endpoint.get_remote_address()).is_none() {
                self.relayed(endpoint, how)
            } else {
                let hop = sockets
                    .map_or_else(|| hop_of_address(endpoint.get_remote_address()), Hop::seen);
                // Both sides of a punch dial, and over QUIC both may succeed: the second comes through the hole of the first.
                let how = if self.is_punched(&peer, &hop) {
                    How::Punched
                } else {
                    how
                };
                (
                    Path {
                        kind: PathKind::Direct,
                        relay: None,
                        how,
                        hops: vec![hop],
                    },
                    None,
                )
            };
        self.by_peer.entry(peer).or_default().push(id);
        self.connections
            .entry(id)
            .insert_entry(Connection {
                peer,
                path,
                since: now,
                rtt: None,
                via,
            })
            .into_mut()
    }

    /// A connection was closed. Returns what it was.
    pub fn closed(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        if let Some(ids) = self.by_peer.get_mut(&connection.peer) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_peer.remove(&connection.peer);
            }
        }
        Some(connection)
    }

    /// Ping measured a round trip.
    pub fn measured(&mut self, id: ConnectionId, rtt: Duration) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.rtt = Some(rtt);
            if connection.path.kind == PathKind::Direct
                && let Some(hop) = connection.path.hops.first_mut()
            {
                hop.rtt = Some(rtt);
            }
        }
    }

    /// The relay has told the far hop of a relayed connection.
    pub fn far_hop(&mut self, id: ConnectionId, told: Hop) {
        if let Some(connection) = self.connections.get_mut(&id)
            && let [_, far] = &mut connection.path.hops[..]
        {
            *far = told;
        }
    }

    /// A connection came out of a hole punch.
    pub fn punched(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.path.how = How::Punched;
        }
    }

    /// Whether a punch has opened a connection to `peer` between the sockets of `hop`.
    fn is_punched(&self, peer: &PeerId, hop: &Hop) -> bool {
        let known = self
            .connections_of(peer)
            .iter()
            .filter_map(|id| self.connections.get(id));
        known
            .filter(|connection| connection.path.how == How::Punched)
            .filter_map(|connection| connection.path.hops.first())
            .any(|other| {
                other.local.is_some()
                    && (other.transport, other.local, other.remote)
                        == (hop.transport, hop.local, hop.remote)
            })
    }

    /// An open connection.
    pub fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// The path of a connection as it is now: the near hop of a relayed one carries the relay leg's last round trip time.
    pub fn path(&self, id: ConnectionId) -> Option<Path> {
        let connection = self.connections.get(&id)?;
        let mut path = connection.path.clone();
        if let Some(relay_leg) = connection.via.and_then(|via| self.connections.get(&via))
            && let (Some(hop), Some(leg)) = (path.hops.first_mut(), relay_leg.path.hops.first())
        {
            *hop = leg.clone();
        }
        Some(path)
    }

    /// Ids of the open connections of a peer, oldest first.
    pub fn connections_of(&self, peer: &PeerId) -> &[ConnectionId] {
        self.by_peer.get(peer).map_or(&[], Vec::as_slice)
    }

    /// The best open connection of a peer.
    pub fn best(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.scored(peer)
            .min_by_key(|(score, _)| *score)
            .map(|(_, id)| id)
    }

    /// The open connections of a peer with their scores, best first.
    pub fn ranked(&self, peer: &PeerId) -> Vec<(Score, ConnectionId)> {
        let mut ranked: Vec<_> = self.scored(peer).collect();
        ranked.sort_by_key(|(score, _)| *score);
        ranked
    }

    fn scored(&self, peer: &PeerId) -> impl Iterator<Item = (Score, ConnectionId)> {
        self.connections_of(peer).iter().filter_map(|id| {
            let connection = self.connections.get(id)?;
            Some((
                Score::new(
                    &connection.path,
                    connection.rtt,
                    connection.since,
                    self.policy,
                ),
                *id,
            ))
        })
    }

    /// Whether a peer has a direct connection.
    pub fn is_direct(&self, peer: &PeerId) -> bool {
        self.connections_of(peer)
            .iter()
            .any(|id| self.kind(*id) == Some(PathKind::Direct))
    }

    /// The kind of a connection's path.
    pub fn kind(&self, id: ConnectionId) -> Option<PathKind> {
        self.connections
            .get(&id)
            .map(|connection| connection.path.kind)
    }

    /// The connected peers.
    pub fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.by_peer.keys()
    }

    /// The relayed path that `endpoint` speaks of, and the relay connection it runs over.
    ///
    /// The far hop is the relay's to tell; until it does, it is unknown.
    fn relayed(&self, endpoint: &ConnectedPoint, how: How) -> (Path, Option<ConnectionId>) {
        // The dialer's address holds the relay as does the listener's local one; what a listener calls the sender's
        // address is `/p2p/<peer>` alone.
        let circuit = match endpoint {
            ConnectedPoint::Dialer { address, .. } => address,
            ConnectedPoint::Listener { local_addr, .. } => local_addr,
        };
        let relay = relay_of(circuit);
        let leg_of = |id: &ConnectionId| self.connections.get(id).and_then(|c| c.path.hops.first());
        let via = match endpoint {
            // The relay client sends circuits over the first connection it has to the relay.
            ConnectedPoint::Dialer { .. } => relay.and_then(|relay| {
                self.connections_of(&relay)
                    .iter()
                    .find(|id| self.kind(**id) == Some(PathKind::Direct))
                    .copied()
            }),
            // A listener is told the relay's address on the connection that the circuit came over, and maybe its id.
            ConnectedPoint::Listener { .. } => {
                let (address, kind) = (to_socket_addr(circuit), Kind::of(circuit));
                self.by_peer
                    .iter()
                    .filter(|(peer, _)| relay.is_none_or(|relay| relay == **peer))
                    .flat_map(|(_, ids)| ids)
                    .find(|id| {
                        leg_of(id).is_some_and(|leg| {
                            leg.transport == kind
                                && leg.remote.is_some_and(|remote| {
                                    address.is_none_or(|address| address == remote)
                                })
                        })
                    })
                    .copied()
            }
        };
        let relay = relay.or_else(|| {
            via.and_then(|via| self.connections.get(&via))
                .map(|leg| leg.peer)
        });
        let near = via
            .as_ref()
            .and_then(leg_of)
            .cloned()
            .unwrap_or_else(|| hop_of_address(circuit));
        (
            Path {
                kind: PathKind::Relayed,
                relay,
                how,
                hops: vec![near, Hop::default()],
            },
            via,
        )
    }
}

/// What an address alone tells of a hop.
fn hop_of_address(address: &Multiaddr) -> Hop {
    Hop {
        transport: Kind::of(address),
        family: p2pnode_transports::Family::of(address),
        ..Hop::default()
    }
}

/// The relay that a circuit address names.
fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    address
        .iter()
        .take_while(|p| *p != Protocol::P2pCircuit)
        .find_map(|p| {
            if let Protocol::P2p(peer) = p {
                Some(peer)
            } else {
                None
            }
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use libp2p::core::{Endpoint, transport::PortUse};

    use super::*;

    const RELAY_ADDR: &str = "/ip4/203.0.113.10/udp/443/quic-v1";

    fn dialer(address: &str) -> ConnectedPoint {
        ConnectedPoint::Dialer {
            address: address.parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        }
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    fn relay_sockets() -> Sockets {
        Sockets {
            kind: Kind::Quic,
            local: "10.0.1.2:40017".parse().unwrap(),
            remote: "203.0.113.10:443".parse().unwrap(),
        }
    }

    /// A table with a relay connection as id 1.
    fn with_relay(relay: PeerId) -> (PeerTable, Instant) {
        let now = Instant::now();
        let mut table = PeerTable::new(FamilyPolicy::Auto);
        table.established(
            id(1),
            relay,
            &dialer(RELAY_ADDR),
            Some(relay_sockets()),
            now,
        );
        (table, now)
    }

    #[test]
    fn an_accepted_circuit_is_relayed_though_its_sender_address_names_no_relay() {
        let (relay, peer) = (PeerId::random(), PeerId::random());
        let (mut table, now) = with_relay(relay);
        let endpoint = ConnectedPoint::Listener {
            local_addr: format!("{RELAY_ADDR}/p2p/{relay}/p2p-circuit")
                .parse()
                .unwrap(),
            send_back_addr: format!("/p2p/{peer}").parse().unwrap(),
        };
        table.established(id(2), peer, &endpoint, None, now);
        table.measured(id(1), Duration::from_millis(20));
        let path = table.path(id(2)).unwrap();
        assert_eq!(path.kind, PathKind::Relayed);
        assert_eq!(path.relay, Some(relay));
        assert_eq!(path.hops[0].local, Some(relay_sockets().local));
        assert_eq!(path.hops[0].rtt, Some(Duration::from_millis(20)));
        assert_eq!(path.hops[1], Hop::default());
        assert!(!table.is_direct(&peer));
    }

    #[test]
    fn the_far_hop_is_what_the_relay_tells_and_the_near_one_stays_what_is_seen() {
        let (relay, peer) = (PeerId::random(), PeerId::random());
        let (mut table, now) = with_relay(relay);
        let circuit = dialer(&format!("{RELAY_ADDR}/p2p/{relay}/p2p-circuit/p2p/{peer}"));
        table.established(id(2), peer, &circuit, None, now);
        let told = Hop {
            transport: Some(Kind::Tcp),
            family: Some(p2pnode_transports::Family::Ip6),
            reported_by: Some(crate::peers::ReportedBy::Relay),
            ..Hop::default()
        };
        table.far_hop(id(2), told.clone());
        table.measured(id(1), Duration::from_millis(20));
        let path = table.path(id(2)).unwrap();
        assert_eq!(path.hops[0].local, Some(relay_sockets().local));
        assert_eq!(path.hops[1], told);
        assert_eq!(
            serde_json::to_string(&path.hops[1]).unwrap(),
            r#"{"transport":"tcp","family":"ip6","reported_by":"relay"}"#
        );
        table.far_hop(id(1), told);
        assert_eq!(
            table.path(id(1)).unwrap().hops.len(),
            1,
            "a direct path has no far hop"
        );
    }

    #[test]
    fn a_dialed_circuit_runs_over_the_oldest_connection_to_its_relay() {
        let (relay, peer) = (PeerId::random(), PeerId::random());
        let (mut table, now) = with_relay(relay);
        let tcp = Sockets {
            kind: Kind::Tcp,
            ..relay_sockets()
        };
        table.established(
            id(3),
            relay,
            &dialer("/ip4/203.0.113.10/tcp/443"),
            Some(tcp),
            now,
        );
        table.established(
            id(2),
            peer,
            &dialer(&format!(
                "/ip4/203.0.113.10/tcp/443/p2p/{relay}/p2p-circuit/p2p/{peer}"
            )),
            None,
            now,
        );
        assert_eq!(
            table.path(id(2)).unwrap().hops[0].transport,
            Some(Kind::Quic)
        );
        assert_eq!(table.connection(id(2)).unwrap().via, Some(id(1)));
    }

    #[test]
    fn the_best_path_is_the_direct_one_until_it_closes() {
        let (relay, peer) = (PeerId::random(), PeerId::random());
        let (mut table, now) = with_relay(relay);
        let circuit = dialer(&format!("{RELAY_ADDR}/p2p/{relay}/p2p-circuit/p2p/{peer}"));
        table.established(id(2), peer, &circuit, None, now);
        table.established(
            id(3),
            peer,
            &dialer("/ip4/198.51.100.7/udp/51234/quic-v1"),
            None,
            now + Duration::from_secs(1),
        );
        assert_eq!(table.best(&peer), Some(id(3)));
        assert_eq!(table.closed(id(3)).unwrap().peer, peer);
        assert_eq!(table.best(&peer), Some(id(2)));
        table.closed(id(2));
        assert_eq!(table.best(&peer), None);
        assert!(table.connections_of(&peer).is_empty());
    }
}
