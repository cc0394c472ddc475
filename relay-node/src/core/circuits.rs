//! The circuits that are open, and those that are being made: pure, with the time as an argument.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::{Network, Source};

use crate::core::source::decrement;

/// A circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CircuitId(u64);

/// How many bytes a circuit has carried. The task that carries them adds to it, without a call for each.
#[derive(Debug, Default)]
pub struct Traffic {
    to_destination: AtomicU64,
    to_source: AtomicU64,
}

impl Traffic {
    /// Counts bytes of either direction.
    pub fn add(&self, to_destination: u64, to_source: u64) {
        let add = |to: &AtomicU64, bytes| {
            if bytes > 0 {
                to.fetch_add(bytes, Ordering::Relaxed);
            }
        };
        add(&self.to_destination, to_destination);
        add(&self.to_source, to_source);
    }

    /// Bytes from the peer that dialed the circuit to the other.
    pub fn to_destination(&self) -> u64 {
        self.to_destination.load(Ordering::Relaxed)
    }

    /// Bytes to the peer that dialed the circuit.
    pub fn to_source(&self) -> u64 {
        self.to_source.load(Ordering::Relaxed)
    }
}

/// Why a circuit was cut.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// It has carried what it may.
    #[error("it has carried as many bytes as limits.circuit_bytes says")]
    Bytes,
    /// It was open for as long as it may.
    #[error("it was open for as long as limits.circuit_duration says")]
    Duration,
    /// One of its peers does not take what the other sent.
    #[error("a peer has taken no byte of what waits for it for {} s", .0.as_secs())]
    Stalled(Duration),
    /// One of its streams is gone.
    #[error(transparent)]
    Stream(#[from] io::Error),
}

/// A peer of a circuit, and the connection over which it runs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The peer.
    pub peer: PeerId,
    /// Its connection.
    pub connection: ConnectionId,
}

/// Which connection is the other leg of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherLeg {
    /// There is no such circuit.
    None,
    /// There are several, and which of them is meant is unknown.
    Unknown,
    /// This one.
    Is(ConnectionId),
}

/// A circuit that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The peer that dialed it.
    pub(crate) source: End,
    /// The peer that was dialed.
    pub(crate) destination: End,
    /// How long it was open; `None` if it never was.
    pub(crate) open: Option<Duration>,
    /// What it has carried.
    pub(crate) traffic: Arc<Traffic>,
}

#[derive(Debug)]
struct Circuit {
    source: End,
    destination: End,
    /// From where it was asked for.
    place: Option<Source>,
    /// Since when it is open.
    since: Option<Instant>,
    traffic: Arc<Traffic>,
}

/// All circuits.
#[derive(Debug, Default)]
pub(crate) struct Circuits {
    next: u64,
    all: HashMap<CircuitId, Circuit>,
    of_peer: HashMap<PeerId, HashSet<CircuitId>>,
    /// Those that were asked for from each network: in all, and to each destination.
    of_network: HashMap<Network, usize>,
    to_destination: HashMap<(PeerId, Network), usize>,
    open: usize,
}

impl Circuits {
    /// Those that are open and those that are being made: what limits count.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Those that are open.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Those of a peer, open or being made.
    pub(crate) fn of_peer(&self, peer: &PeerId) -> usize {
        self.of_peer.get(peer).map_or(0, HashSet::len)
    }

    /// Whether one of a peer is open.
    pub(crate) fn carries(&self, peer: &PeerId) -> bool {
        let ids = self.of_peer.get(peer).into_iter().flatten();
        let mut circuits = ids.filter_map(|id| self.all.get(id));
        circuits.any(|circuit| circuit.since.is_some())
    }

    /// Those that were asked for from a network.
    pub(crate) fn of_network(&self, network: Network) -> usize {
        self.of_network.get(&network).copied().unwrap_or_default()
    }

    /// Those of them to one peer.
    pub(crate) fn of_network_to(&self, network: Network, destination: PeerId) -> usize {
        let held = self.to_destination.get(&(destination, network));
        held.copied().unwrap_or_default()
    }

    /// A circuit is being made, which was asked for from `place`.
    pub(crate) fn begin(
        &mut self,
        source: End,
        destination: End,
        place: Option<Source>,
    ) -> CircuitId {
        let id = CircuitId(self.next);
        self.next += 1;
        for end in [source, destination] {
            self.of_peer.entry(end.peer).or_default().insert(id);
        }
        let circuit = Circuit {
            source,
            destination,
            place,
            since: None,
            traffic: Arc::default(),
        };
        for network in place.into_iter().flat_map(Source::networks) {
            *self.of_network.entry(network).or_default() += 1;
            let key = (destination.peer, network);
            *self.to_destination.entry(key).or_default() += 1;
        }
        self.all.insert(id, circuit);
        id
    }

    /// A circuit is open: its two ends and where its bytes are counted. `None` if it has ended before.
    pub(crate) fn opened(
        &mut self,
        id: CircuitId,
        now: Instant,
    ) -> Option<(End, End, Arc<Traffic>)> {
        let circuit = self.all.get_mut(&id)?;
        if circuit.since.replace(now).is_none() {
            self.open += 1;
        }
        let (source, destination) = (circuit.source, circuit.destination);
        Some((source, destination, circuit.traffic.clone()))
    }

    /// A circuit has ended, or was not made.
    pub(crate) fn ended(&mut self, id: CircuitId, now: Instant) -> Option<Ended> {
        let circuit = self.all.remove(&id)?;
        let (source, destination) = (circuit.source, circuit.destination);
        for network in circuit.place.into_iter().flat_map(Source::networks) {
            decrement(&mut self.of_network, network);
            decrement(&mut self.to_destination, (destination.peer, network));
        }
        for end in [source, destination] {
            if let Entry::Occupied(mut of_peer) = self.of_peer.entry(end.peer) {
                of_peer.get_mut().remove(&id);
                if of_peer.get().is_empty() {
                    of_peer.remove();
                }
            }
        }
        self.open -= usize::from(circuit.since.is_some());
        Some(Ended {
            source,
            destination,
            open: circuit
                .since
                .map(|since| now.saturating_duration_since(since)),
            traffic: circuit.traffic,
        })
    }

    /// A connection of `peer` is gone, and with it the circuits that were being made for it. Returns the open circuits over it, which
    /// end once they are aborted. A circuit that was being made to `peer` ends when its source learns of the loss.
    pub(crate) fn disconnected(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        now: Instant,
    ) -> Vec<CircuitId> {
        let over = self.with(peer).filter(|(_, circuit)| {
            let from = circuit.source.connection == connection;
            let to = circuit.destination.connection == connection;
            from || to && circuit.since.is_some()
        });
        let over: Vec<_> = over
            .map(|(id, circuit)| (id, circuit.since.is_some()))
            .collect();
        let (open, making): (Vec<_>, Vec<_>) = over.into_iter().partition(|(_, open)| *open);
        for (id, _) in making {
            let _never_open = self.ended(id, now);
        }
        open.into_iter().map(|(id, _)| id).collect()
    }

    /// The other leg of the circuit between `asker` and `other` that `asker` has dialed, or else accepted. Of several
    /// those count that run over the connection on which it asks; without one there, all.
    pub(crate) fn other_leg(
        &self,
        asker: PeerId,
        asks_on: ConnectionId,
        other: PeerId,
        dialed: bool,
    ) -> OtherLeg {
        let open = self
            .with(&asker)
            .filter(|(_, circuit)| circuit.since.is_some());
        let legs = open.filter_map(|(_, circuit)| {
            let (near, far) = if dialed {
                (circuit.source, circuit.destination)
            } else {
                (circuit.destination, circuit.source)
            };
            (near.peer == asker && far.peer == other).then_some((near.connection, far.connection))
        });
        let legs: Vec<_> = legs.collect();
        let here = legs.iter().filter(|(near, _)| *near == asks_on);
        let mut far: HashSet<_> = here.map(|(_, far)| *far).collect();
        if far.is_empty() {
            far = legs.iter().map(|(_, far)| *far).collect();
        }
        let mut far = far.into_iter();
        match (far.next(), far.next()) {
            (None, _) => OtherLeg::None,
            (Some(connection), None) => OtherLeg::Is(connection),
            (Some(_), Some(_)) => OtherLeg::Unknown,
        }
    }

    /// The ends of those of a peer, and what they have carried.
    pub(crate) fn of(&self, peer: &PeerId) -> impl Iterator<Item = (End, End, &Traffic)> {
        self.with(peer).map(|(_, circuit)| {
            let (source, destination) = (circuit.source, circuit.destination);
            (source, destination, &*circuit.traffic)
        })
    }

    fn with(&self, peer: &PeerId) -> impl Iterator<Item = (CircuitId, &Circuit)> {
        let ids = self.of_peer.get(peer).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.all.get(id)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(peer: PeerId, number: usize) -> End {
        let connection = ConnectionId::new_unchecked(number);
        End { peer, connection }
    }

    fn open(circuits: &mut Circuits, source: End, destination: End) -> CircuitId {
        let id = circuits.begin(source, destination, None);
        assert!(circuits.opened(id, Instant::now()).is_some());
        id
    }

    #[test]
    fn a_circuit_counts_for_both_peers_from_when_it_is_begun_and_is_open_later() {
        let (mut circuits, now) = (Circuits::default(), Instant::now());
        let [source, destination] = [(); 2].map(|()| PeerId::random());
        let id = circuits.begin(end(source, 1), end(destination, 2), None);
        assert_eq!((circuits.len(), circuits.open()), (1, 0));
        assert_eq!(circuits.of_peer(&source), 1);
        assert_eq!(circuits.of_peer(&destination), 1);
        assert!(circuits.opened(id, now).is_some());
        assert_eq!(circuits.open(), 1);
        let later = now + Duration::from_secs(3);
        let ended = circuits.ended(id, later).expect("there is one");
        assert_eq!(ended.open, Some(Duration::from_secs(3)));
        assert_eq!(circuits.open(), 0);
        assert!(circuits.ended(id, later).is_none(), "and it ends once");
        assert!(circuits.opened(id, later).is_none());
        assert!(circuits.all.is_empty() && circuits.of_peer.is_empty());
    }

    #[test]
    fn what_was_never_open_has_no_time() {
        let (mut circuits, now) = (Circuits::default(), Instant::now());
        let id = circuits.begin(end(PeerId::random(), 1), end(PeerId::random(), 2), None);
        let ended = circuits.ended(id, now).expect("there is one");
        assert_eq!(ended.open, None);
        assert_eq!(circuits.open(), 0);
    }

    #[test]
    fn a_connection_takes_its_circuits_with_it_and_no_others() {
        let (mut circuits, now) = (Circuits::default(), Instant::now());
        let [source, destination] = [(); 2].map(|()| PeerId::random());
        let one = open(&mut circuits, end(source, 1), end(destination, 2));
        let two = open(&mut circuits, end(source, 3), end(destination, 2));
        let _making = circuits.begin(end(source, 1), end(destination, 2), None);
        let mut gone = |peer, connection| {
            let connection = ConnectionId::new_unchecked(connection);
            let open = circuits.disconnected(&peer, connection, now);
            (open.into_iter().collect::<HashSet<_>>(), circuits.len())
        };
        assert_eq!(gone(destination, 4), (HashSet::new(), 3));
        assert_eq!(gone(destination, 2), (HashSet::from([one, two]), 3));
        let made = (HashSet::from([one]), 2);
        assert_eq!(gone(source, 1), made, "what was being made has ended");
    }

    #[test]
    fn each_party_of_a_circuit_learns_the_connection_of_the_other_and_nobody_else_does() {
        let mut circuits = Circuits::default();
        let [source, destination, stranger] = [(); 3].map(|()| PeerId::random());
        let making = circuits.begin(end(source, 1), end(destination, 2), None);
        let ask = |circuits: &Circuits, asker, on, other, dialed| {
            circuits.other_leg(asker, ConnectionId::new_unchecked(on), other, dialed)
        };
        let is = |number| OtherLeg::Is(ConnectionId::new_unchecked(number));
        let none = OtherLeg::None;
        assert_eq!(ask(&circuits, source, 1, destination, true), none);
        assert!(circuits.opened(making, Instant::now()).is_some());
        assert_eq!(ask(&circuits, source, 1, destination, true), is(2));
        assert_eq!(ask(&circuits, destination, 2, source, false), is(1));
        // On another connection of a party, as when it does not know which one carries the circuit.
        assert_eq!(ask(&circuits, source, 7, destination, true), is(2));
        // The wrong way round, a stranger, and a peer that is not there.
        assert_eq!(ask(&circuits, source, 1, destination, false), none);
        assert_eq!(ask(&circuits, stranger, 3, destination, true), none);
        assert_eq!(ask(&circuits, stranger, 3, source, false), none);
        assert_eq!(ask(&circuits, source, 1, stranger, true), none);
        assert!(circuits.ended(making, Instant::now()).is_some());
        assert_eq!(ask(&circuits, source, 1, destination, true), none);
    }

    #[test]
    fn of_two_circuits_of_a_pair_the_one_over_the_asking_connection_is_meant() {
        let mut circuits = Circuits::default();
        let [source, destination] = [(); 2].map(|()| PeerId::random());
        open(&mut circuits, end(source, 1), end(destination, 2));
        open(&mut circuits, end(source, 3), end(destination, 4));
        let ask = |on| {
            let on = ConnectionId::new_unchecked(on);
            circuits.other_leg(source, on, destination, true)
        };
        assert_eq!(ask(1), OtherLeg::Is(ConnectionId::new_unchecked(2)));
        assert_eq!(ask(3), OtherLeg::Is(ConnectionId::new_unchecked(4)));
        assert_eq!(ask(5), OtherLeg::Unknown);
    }
}
