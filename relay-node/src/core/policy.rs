//! Who gets a reservation, and who a circuit over which connection: the one place where that is decided. Pure, with the time
//! as an argument.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::{Family, Network, Source};

use crate::{
    config::Limits,
    core::{
        admission::Refused,
        circuits::{CircuitId, Circuits, End, Ended, OtherLeg, Traffic},
        denial::DenialReason,
        limits::{self, count},
        reservations::Reservations,
        source,
        twins::Ends,
    },
};

/// The least limit of circuits that is shared out between sources.
const SHARED: usize = 16;

/// Why a reservation or a circuit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The access rules reject the peer.
    NotAdmitted(Refused),
    /// The peer, or all of its source, asks too often.
    TooOften,
    /// The same, and the peer is disconnected.
    Flood,
    /// The relay drains.
    Draining,
    /// Too many reservations, in all or of the peer.
    Reservations,
    /// Too many reservations from one source.
    SourceReservations,
    /// Too many circuits, in all or of one of the two peers.
    Circuits,
    /// The destination of a circuit holds no reservation.
    NoReservation,
    /// The connection on which the peer asked is gone. Nobody waits for the answer.
    Gone,
}

impl Refusal {
    /// How the relay counts it, if it does.
    #[must_use]
    pub fn reason(self) -> Option<DenialReason> {
        Some(match self {
            Self::NotAdmitted(refused) => refused.reason(),
            Self::TooOften => DenialReason::RequestRate,
            Self::Flood => DenialReason::Flood,
            Self::Draining => DenialReason::Draining,
            Self::Reservations => DenialReason::ReservationLimit,
            Self::SourceReservations => DenialReason::SourceReservationLimit,
            Self::Circuits => DenialReason::CircuitLimit,
            Self::NoReservation => DenialReason::NoReservation,
            Self::Gone => return None,
        })
    }
}

/// A reservation that is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Whether the connection held it before.
    pub(crate) renewed: bool,
    /// For how long.
    pub(crate) lasts: Duration,
}

/// A circuit that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The circuit.
    pub id: CircuitId,
    /// On which connection the destination is asked.
    pub to: ConnectionId,
}

/// Bytes that circuits have carried for a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// From it.
    pub sent: u64,
    /// To it.
    pub received: u64,
}

impl std::ops::AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
    }
}

/// What went with a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// The open circuits that go over it, which end once they are aborted.
    pub(crate) circuits: Vec<CircuitId>,
    /// Whether it held a reservation.
    pub(crate) held: bool,
    /// If it was the last of its peer, what circuits have carried for that since it came.
    pub(crate) carried: Option<Volume>,
}

/// What the relay has granted, and by which rules it grants more.
#[derive(Debug)]
pub(crate) struct RelayPolicy {
    limits: Limits,
    draining: bool,
    connections: HashMap<ConnectionId, Place>,
    peers: HashMap<PeerId, Connected>,
    reservations: Reservations,
    circuits: Circuits,
}

/// A peer that is connected.
#[derive(Debug, Default)]
struct Connected {
    connections: usize,
    /// What its circuits have carried that have ended.
    carried: Volume,
}

/// Where a connection comes from.
#[derive(Debug)]
struct Place {
    peer: PeerId,
    /// The IP family of its packets.
    family: Option<Family>,
    /// `None` if the address of the peer is no IP address.
    source: Option<Source>,
    ends: Option<Ends>,
}

impl RelayPolicy {
    /// Grants within `limits`.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            draining: false,
            connections: HashMap::new(),
            peers: HashMap::new(),
            reservations: Reservations::default(),
            circuits: Circuits::default(),
        }
    }

    /// Reservations that are held, by connection.
    pub(crate) fn reservations(&self) -> usize {
        self.reservations.len()
    }

    /// The connections on which they are held.
    pub(crate) fn held(&self) -> impl Iterator<Item = ConnectionId> {
        self.reservations.connections()
    }

    /// Whether a peer holds a reservation.
    pub(crate) fn holds(&self, peer: &PeerId) -> bool {
        self.reservations.of_peer(peer).len() > 0
    }

    /// The newest connection on which a peer holds a reservation.
    pub(crate) fn newest_place(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.reservations.of_peer(peer).max()
    }

    /// Whether a circuit of a peer is open or being made.
    pub(crate) fn asks(&self, peer: &PeerId) -> bool {
        self.circuits.of_peer(peer) > 0
    }

    /// Whether a circuit of a peer is open.
    pub(crate) fn carries(&self, peer: &PeerId) -> bool {
        self.circuits.carries(peer)
    }

    /// Whether a connection of `peer` holds a reservation, or carries a circuit or is to carry one.
    pub(crate) fn uses(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        let mut ends =
            (self.circuits.of(peer)).flat_map(|(source, destination, _)| [source, destination]);
        self.reservations.contains(connection) || ends.any(|end| end.connection == connection)
    }

    /// Where a connection comes from, if it is open and that is an IP address.
    pub(crate) fn source_of(&self, connection: ConnectionId) -> Option<Source> {
        self.connections.get(&connection)?.source
    }

    /// The two ends of a connection.
    pub(crate) fn ends_of(&self, connection: ConnectionId) -> Option<Ends> {
        self.connections.get(&connection)?.ends
    }

    /// The connections on which a peer holds a reservation.
    pub(crate) fn places(&self, peer: &PeerId) -> impl Iterator<Item = ConnectionId> + Clone {
        self.reservations.of_peer(peer)
    }

    /// Circuits that are open.
    pub(crate) fn circuits(&self) -> usize {
        self.circuits.open()
    }

    /// The other leg of a circuit: see [`Circuits::other_leg`].
    pub(crate) fn other_leg(
        &self,
        asker: PeerId,
        asks_on: ConnectionId,
        other: PeerId,
        dialed: bool,
    ) -> OtherLeg {
        self.circuits.other_leg(asker, asks_on, other, dialed)
    }

    /// From now on nothing is granted, and nothing renewed.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// A connection of `peer` at our address `local` and its address `remote`.
    pub(crate) fn connected(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) {
        let place = Place {
            peer,
            family: Family::of(local),
            source: Source::of(remote),
            ends: Ends::of(local, remote),
        };
        if self.connections.insert(connection, place).is_none() {
            self.peers.entry(peer).or_default().connections += 1;
        }
    }

    /// A connection is gone, and what went with it. `None` if it was not known.
    pub(crate) fn disconnected(&mut self, connection: ConnectionId, now: Instant) -> Option<Gone> {
        let Place { peer, .. } = self.connections.remove(&connection)?;
        let mut carried = None;
        if let Some(connected) = self.peers.get_mut(&peer) {
            connected.connections -= 1;
            if connected.connections == 0 {
                carried = Some(self.carried(&peer));
                self.peers.remove(&peer);
            }
        }
        Some(Gone {
            circuits: self.circuits.disconnected(&peer, connection, now),
            held: self.release(connection).is_some(),
            carried,
        })
    }

    /// What circuits have carried for a peer since it is connected, those that are open and those that have ended.
    pub(crate) fn carried(&self, peer: &PeerId) -> Volume {
        let mut carried = self.peers.get(peer).map(|peer| peer.carried);
        let carried = carried.get_or_insert_default();
        for (source, destination, traffic) in self.circuits.of(peer) {
            for (end, volume) in volumes(source, destination, traffic) {
                if end.peer == *peer {
                    *carried += volume;
                }
            }
        }
        *carried
    }

    /// Whether a reservation is granted on `connection`, or renewed, to a peer that is `admitted` or not. What a connection
    /// holds is renewed however full the relay is.
    pub(crate) fn reserve(
        &mut self,
        admitted: Result<(), Refused>,
        connection: ConnectionId,
        peer: PeerId,
        now: Instant,
    ) -> Result<Granted, Refusal> {
        let place = self.connections.get(&connection).ok_or(Refusal::Gone)?;
        let source = place.source;
        admitted.map_err(Refusal::NotAdmitted)?;
        if self.draining {
            return Err(Refusal::Draining);
        }
        let renewed = self.reservations.contains(connection);
        if !renewed {
            if self.reservations.len() >= count(self.limits.reservations)
                || self.reservations.of_peer(&peer).len()
                    >= count(self.limits.reservations_per_peer)
            {
                return Err(Refusal::Reservations);
            }
            if let Some(source) = source
                && !source::networks_admit(
                    self.limits.reservations_per_source,
                    source,
                    self.reservations.of_networks(),
                )
            {
                return Err(Refusal::SourceReservations);
            }
        }
        let lasts = limits::duration(self.limits.reservation_duration);
        self.reservations
            .hold(connection, peer, source, now + lasts);
        Ok(Granted { renewed, lasts })
    }

    /// The reservation on this connection has ended: whose it was.
    pub(crate) fn release(&mut self, connection: ConnectionId) -> Option<PeerId> {
        self.reservations.release(connection)
    }

    /// When the next reservation ends.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.reservations.next_end()
    }

    /// Ends a reservation whose time is up at `now`, if there is one.
    pub(crate) fn poll_expired(&mut self, now: Instant) -> Option<(PeerId, ConnectionId)> {
        let connection = self.reservations.ended(now)?;
        Some((self.release(connection)?, connection))
    }

    /// Whether `source`, who asks on `connection` and is `admitted` or not, gets a circuit to `destination`.
    pub(crate) fn connect(
        &mut self,
        admitted: Result<(), Refused>,
        connection: ConnectionId,
        source: PeerId,
        destination: PeerId,
    ) -> Result<Route, Refusal> {
        if !self.connections.contains_key(&connection) {
            return Err(Refusal::Gone);
        }
        admitted.map_err(Refusal::NotAdmitted)?;
        if self.draining {
            return Err(Refusal::Draining);
        }
        let to = self
            .place_of(&destination, connection)
            .ok_or(Refusal::NoReservation)?;
        let of_peer = [source, destination].map(|peer| self.circuits.of_peer(&peer));
        if self.circuits.len() >= count(self.limits.circuits)
            || of_peer
                .iter()
                .any(|circuits| *circuits >= count(self.limits.circuits_per_peer))
        {
            return Err(Refusal::Circuits);
        }
        let place = self.source_of(connection);
        if place.is_some_and(|place| self.takes_too_many(place, destination)) {
            return Err(Refusal::Circuits);
        }
        let [source, destination] = [(source, connection), (destination, to)]
            .map(|(peer, connection)| End { peer, connection });
        let id = self.circuits.begin(source, destination, place);
        Ok(Route { id, to })
    }

    /// Whether a place has its share of circuits while others need room: a quarter of all once half of them are taken, and a quarter
    /// of a destination's once it has half of what a peer may have. Peer ids are free, so a share of each id would not do.
    fn takes_too_many(&self, place: Source, destination: PeerId) -> bool {
        let all = count(self.limits.circuits);
        let of_peer = count(self.limits.circuits_per_peer);
        // A few circuits cannot be shared out.
        let is_full = |held: usize, limit: usize| limit >= SHARED && held >= limit / 2;
        let has_share = |held: usize, network: Network, limit: usize| {
            held >= (limit / 4).saturating_mul(network.weight() as usize)
        };
        place.networks().any(|network| {
            let held = self.circuits.of_network(network);
            let held_to = self.circuits.of_network_to(network, destination);
            is_full(self.circuits.len(), all) && has_share(held, network, all)
                || is_full(self.circuits.of_peer(&destination), of_peer)
                    && has_share(held_to, network, of_peer)
        })
    }

    /// Where to ask `destination` for a circuit that comes over `source`: on a connection of the same family, if it holds a
    /// reservation on one, since a circuit that changes families has the slower of the two on one side at least; and on the newest
    /// of these. A peer that was killed and started again has an older one, too, until that is missed.
    fn place_of(&self, destination: &PeerId, source: ConnectionId) -> Option<ConnectionId> {
        let family = |connection| self.connections.get(&connection)?.family;
        let wanted = family(source);
        self.reservations
            .of_peer(destination)
            .max_by_key(|connection| (family(*connection) == wanted, *connection))
    }

    /// A circuit is open: its ends, and where its bytes are counted. `None` if a connection is gone meanwhile.
    pub(crate) fn opened(
        &mut self,
        id: CircuitId,
        now: Instant,
    ) -> Option<(End, End, Arc<Traffic>)> {
        let (source, destination, traffic) = self.circuits.opened(id, now)?;
        let there = |end: End| self.connections.contains_key(&end.connection);
        if there(source) && there(destination) {
            return Some((source, destination, traffic));
        }
        let _not_open = self.circuits.ended(id, now);
        None
    }

    /// A circuit has ended, or was not made.
    pub(crate) fn closed(&mut self, id: CircuitId, now: Instant) -> Option<Ended> {
        let ended = self.circuits.ended(id, now)?;
        for (end, volume) in volumes(ended.source, ended.destination, &ended.traffic) {
            if let Some(peer) = self.peers.get_mut(&end.peer) {
                peer.carried += volume;
            }
        }
        Some(ended)
    }
}

/// What a circuit has carried, as each of its ends sees it.
fn volumes(source: End, destination: End, traffic: &Traffic) -> [(End, Volume); 2] {
    let (there, back) = (traffic.to_destination(), traffic.to_source());
    let volume = |sent, received| Volume { sent, received };
    [
        (source, volume(there, back)),
        (destination, volume(back, there)),
    ]
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
