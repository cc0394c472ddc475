//! The connections that are open, by peer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_transports::{Family, FamilyPolicy, Sockets, Transport, to_socket_addr};

use super::{DecidedBy, Hop, How, Path, PathKind, Score};
use crate::{
    core::relays::Up,
    punch::{Reason, SIBLINGS},
};

/// One open connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
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
    /// Its last ping was not answered.
    distressed: bool,
    /// Another one has taken its place, before the mapping of this one dies of age.
    is_left: bool,
    /// Whether the peer lists the protocol of hole punching on it; `None` before it has identified itself.
    lists_punching: Option<bool>,
}

/// All open connections, and the best path of each peer.
#[derive(Debug)]
pub(crate) struct PeerTable {
    policy: FamilyPolicy,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Open connections by peer, in the order in which they were established.
    by_peer: BTreeMap<PeerId, Vec<ConnectionId>>,
    /// How many circuits go over each relay.
    circuits: BTreeMap<PeerId, usize>,
    /// The connection that is used to each peer.
    chosen: BTreeMap<PeerId, ConnectionId>,
}

impl PeerTable {
    /// An empty table that ranks families by `policy`.
    pub(crate) fn new(policy: FamilyPolicy) -> Self {
        Self {
            policy,
            connections: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            circuits: BTreeMap::new(),
            chosen: BTreeMap::new(),
        }
    }

    /// How families are ranked.
    pub(crate) const fn policy(&self) -> FamilyPolicy {
        self.policy
    }

    /// Whether a path is of another family than the preferred one.
    pub(crate) fn is_second_choice(&self, path: &Path) -> bool {
        let family = path.hops.first().and_then(|hop| hop.family);
        family.is_some_and(|family| self.policy.rank(family) > 0)
    }

    /// A connection was established. `sockets` are its true sockets, where this node knows them.
    pub(crate) fn handle_established(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        endpoint: &ConnectedPoint,
        sockets: Option<Sockets>,
        now: Instant,
    ) {
        let how = if endpoint.is_dialer() {
            How::Dialed
        } else {
            How::Accepted
        };
        // An address that names no transport is never called direct.
        let (path, via) =
            if endpoint.is_relayed() || Transport::of(endpoint.get_remote_address()).is_none() {
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
        if let Some(relay) = path.relay {
            *self.circuits.entry(relay).or_default() += 1;
        }
        let connection = Connection {
            peer,
            path,
            since: now,
            rtt: None,
            via,
            distressed: false,
            is_left: false,
            lists_punching: None,
        };
        self.connections.insert(id, connection);
        self.choose(&peer);
    }

    /// A connection was closed. Returns what it was.
    pub(crate) fn handle_closed(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        if let Some(ids) = self.by_peer.get_mut(&connection.peer) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_peer.remove(&connection.peer);
            }
        }
        if let Some(relay) = connection.path.relay
            && let Some(circuits) = self.circuits.get_mut(&relay)
        {
            *circuits -= 1;
            if *circuits == 0 {
                self.circuits.remove(&relay);
            }
        }
        self.choose(&connection.peer);
        Some(connection)
    }

    /// Ping measured a round trip.
    pub(crate) fn handle_rtt(&mut self, id: ConnectionId, rtt: Duration) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.rtt = Some(rtt);
            connection.distressed = false;
            if connection.path.kind == PathKind::Direct
                && let Some(hop) = connection.path.hops.first_mut()
            {
                hop.rtt = Some(rtt);
            }
            let peer = connection.peer;
            self.choose(&peer);
        }
    }

    /// The peer has identified itself on this connection.
    pub(crate) fn handle_identified(&mut self, id: ConnectionId, lists_punching: bool) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.lists_punching = Some(lists_punching);
        }
    }

    /// What it means if a relayed peer begins no handshake, if that is known. A peer of another make may take no handshake from the
    /// dialer of a circuit, and then does not list the protocol; but then it begins one.
    pub(crate) fn silence_means(&self, peer: &PeerId) -> Option<Reason> {
        let ids = self.connections_of(peer).iter();
        let lists = ids.filter_map(|id| self.connections.get(id));
        let lists = lists.filter(|connection| connection.path.kind == PathKind::Relayed);
        let mut lists = lists.filter_map(|connection| connection.lists_punching);
        let first = lists.next()?;
        Some(match first || lists.any(|lists| lists) {
            true => Reason::RemoteSilent,
            false => Reason::RemoteUnsupported,
        })
    }

    /// A ping was not answered.
    pub(crate) fn handle_missed(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.distressed = true;
            let peer = connection.peer;
            self.choose(&peer);
        }
    }

    /// The relay has reported the far hop of a relayed connection.
    pub(crate) fn handle_far_hop(&mut self, id: ConnectionId, reported: Hop) {
        if let Some(connection) = self.connections.get_mut(&id)
            && let [_, far] = &mut connection.path.hops[..]
        {
            *far = reported;
            let peer = connection.peer;
            self.choose(&peer);
        }
    }

    /// This connection has been made to take the place of the peer's older direct ones. Returns whether there are any.
    pub(crate) fn handle_moved(&mut self, id: ConnectionId, now: Instant) -> bool {
        let Some(peer) = self.connections.get(&id).map(|connection| connection.peer) else {
            return false;
        };
        let mut are_left = false;
        for other in self.by_peer.get(&peer).into_iter().flatten() {
            if let Some(connection) = self.connections.get_mut(other)
                && connection.path.kind == PathKind::Direct
                && connection.since + SIBLINGS < now
            {
                connection.is_left = true;
                are_left = true;
            }
        }
        self.choose(&peer);
        are_left
    }

    /// A connection came out of a hole punch.
    pub(crate) fn handle_punched(&mut self, id: ConnectionId) {
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
    pub(crate) fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// The path of a connection as it is now: the near hop of a relayed one carries the relay leg's last round trip time.
    pub(crate) fn path(&self, id: ConnectionId) -> Option<Path> {
        let connection = self.connections.get(&id)?;
        let mut path = connection.path.clone();
        if let Some(relay_leg) = connection.via.and_then(|via| self.connections.get(&via))
            && let (Some(hop), Some(leg)) = (path.hops.first_mut(), relay_leg.path.hops.first())
        {
            *hop = leg.clone();
        }
        Some(path)
    }

    /// Whether circuits go over this relay.
    pub(crate) fn is_circuit_relay(&self, relay: &PeerId) -> bool {
        self.circuits.contains_key(relay)
    }

    /// Ids of the open connections of a peer, oldest first.
    pub(crate) fn connections_of(&self, peer: &PeerId) -> &[ConnectionId] {
        self.by_peer.get(peer).map_or(&[], Vec::as_slice)
    }

    /// The connection that is used to a peer.
    pub(crate) fn best(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.chosen.get(peer).copied()
    }

    /// The open connections of a peer with their scores: the one that is used, then the others, best first.
    pub(crate) fn ranked(&self, peer: &PeerId) -> Vec<(Score, ConnectionId)> {
        let mut ranked: Vec<_> = self.scored(peer).collect();
        let chosen = self.best(peer);
        ranked.sort_by_key(|(score, id)| (Some(*id) != chosen, *score));
        ranked
    }

    /// What puts the connection in use before the next one of a peer; `None` if there is no other, or nothing does.
    pub(crate) fn decided_by(&self, peer: &PeerId) -> Option<DecidedBy> {
        let ranked = self.ranked(peer);
        let [(used, _), (next, _), ..] = ranked[..] else {
            return None;
        };
        match used > next {
            true => Some(DecidedBy::Kept),
            false => used.decided_by(&next).map(DecidedBy::Axis),
        }
    }

    /// The leg over which to ask a relay for a circuit. The preferred family comes first, then a leg on which the relay has
    /// identified itself, then the shorter round trip.
    pub(crate) fn best_leg<'a>(&self, legs: impl Iterator<Item = Up<'a>>) -> Option<Up<'a>> {
        legs.min_by_key(|leg| {
            let rtt = self.connections.get(&leg.connection).and_then(|c| c.rtt);
            (
                self.policy.rank(leg.family),
                !leg.is_ready,
                Score::rtt_steps(rtt),
            )
        })
    }

    /// The relay and the far family of the path in use, if the path bridges two families. The path has to be a circuit that this
    /// node has dialed, and the policy has to allow the far family.
    pub(crate) fn bridged(&self, peer: &PeerId) -> Option<(PeerId, Family)> {
        let path = self.path(self.best(peer)?)?;
        let far = path.hops.get(1)?.family?;
        let is_ours = path.kind == PathKind::Relayed && path.how == How::Dialed;
        (is_ours && path.bridges_families() && self.policy.allows(far))
            .then_some((path.relay?, far))
    }

    /// Chooses the connection to use. The connection in use stays until it closes, misses a ping, or another is better by more
    /// than jitter. So a path does not move to and fro.
    fn choose(&mut self, peer: &PeerId) {
        let is_distressed = |id: &ConnectionId| {
            let connection = self.connections.get(id);
            connection.is_some_and(|connection| connection.distressed || connection.is_left)
        };
        let mut ranked: Vec<_> = self.scored(peer).collect();
        ranked.sort_by_key(|(score, id)| (is_distressed(id), *score));
        let Some((best, id)) = ranked.first().copied() else {
            self.chosen.remove(peer);
            return;
        };
        let used = self.best(peer).filter(|used| !is_distressed(used));
        let used = used.and_then(|used| ranked.iter().find(|(_, id)| *id == used));
        if used.is_none_or(|(used, _)| best.promotes_over(used)) {
            self.chosen.insert(*peer, id);
        }
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

    /// How many direct connections a peer has.
    pub(crate) fn directs(&self, peer: &PeerId) -> usize {
        let ids = self.connections_of(peer).iter();
        ids.filter(|id| self.kind(**id) == Some(PathKind::Direct))
            .count()
    }

    /// The kind of a connection's path.
    pub(crate) fn kind(&self, id: ConnectionId) -> Option<PathKind> {
        self.connections
            .get(&id)
            .map(|connection| connection.path.kind)
    }

    /// The connected peers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.by_peer.keys()
    }

    /// The relayed path that `endpoint` describes, and the relay connection beneath it.
    ///
    /// Only the relay knows the far hop; until it reports the hop, it is unknown.
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
            // The relay client of a family sends circuits over the first connection of that family that it has to the relay.
            ConnectedPoint::Dialer { .. } => relay.and_then(|relay| {
                let family = Family::of(circuit);
                let of_family = |id: &ConnectionId| {
                    let leg = leg_of(id).and_then(|leg| leg.family);
                    family.is_none() || leg.is_none() || leg == family
                };
                self.connections_of(&relay)
                    .iter()
                    .find(|id| self.kind(**id) == Some(PathKind::Direct) && of_family(id))
                    .copied()
            }),
            // A listener sees the relay's address on the connection that the circuit came over, and maybe its id.
            ConnectedPoint::Listener { .. } => {
                let (address, transport) = (to_socket_addr(circuit), Transport::of(circuit));
                self.by_peer
                    .iter()
                    .filter(|(peer, _)| relay.is_none_or(|relay| relay == **peer))
                    .flat_map(|(_, ids)| ids)
                    .find(|id| {
                        leg_of(id).is_some_and(|leg| {
                            leg.transport == transport
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

/// What an address alone reveals about a hop.
fn hop_of_address(address: &Multiaddr) -> Hop {
    Hop {
        transport: Transport::of(address),
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
mod tests;
