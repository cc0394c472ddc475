//! What the relay has granted: pure bookkeeping, with the time as an argument.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};

/// Reservations by connection and circuits by their two ends.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    reservations: HashMap<PeerId, HashSet<ConnectionId>>,
    circuits: HashMap<(PeerId, PeerId), VecDeque<Circuit>>,
}

#[derive(Debug)]
struct Circuit {
    /// The connection of the peer that dialed it.
    source: ConnectionId,
    /// The connection of the peer that was dialed, if it is known.
    destination: Option<ConnectionId>,
    since: Instant,
}

/// Which connection is the other leg of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherLeg {
    /// There is no such circuit.
    None,
    /// There is one, or there are several, and which connection it is cannot be told.
    Unknown,
    /// This one.
    Is(ConnectionId),
}

impl Ledger {
    /// Reservations held, counted by connection as libp2p counts them against its limit.
    pub(crate) fn reservations(&self) -> usize {
        self.reservations.values().map(HashSet::len).sum()
    }

    /// Whether a peer holds a reservation.
    pub(crate) fn holds(&self, peer: &PeerId) -> bool {
        self.reservations.contains_key(peer)
    }

    /// The newest connection on which a peer holds a reservation.
    pub(crate) fn newest_place(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.reservations.get(peer)?.iter().max().copied()
    }

    /// Circuits open.
    pub(crate) fn circuits(&self) -> usize {
        self.circuits.values().map(VecDeque::len).sum()
    }

    /// A reservation was granted or renewed. True if it is the peer's first.
    pub(crate) fn reserved(&mut self, peer: PeerId, connection: ConnectionId) -> bool {
        let held = self.reservations.entry(peer).or_default();
        held.insert(connection) && held.len() == 1
    }

    /// A reservation ended, or a connection that may have held one. True if it was the peer's last reservation.
    pub(crate) fn released(&mut self, peer: PeerId, connection: ConnectionId) -> bool {
        let Some(held) = self.reservations.get_mut(&peer) else {
            return false;
        };
        let last = held.remove(&connection) && held.is_empty();
        if last {
            self.reservations.remove(&peer);
        }
        last
    }

    /// A circuit from `source` to `destination` was opened over the source's `connection`, and over the destination's
    /// connection `onward`, if that is known.
    pub(crate) fn opened(
        &mut self,
        source: PeerId,
        destination: PeerId,
        connection: ConnectionId,
        onward: Option<ConnectionId>,
        now: Instant,
    ) {
        self.circuits
            .entry((source, destination))
            .or_default()
            .push_back(Circuit {
                source: connection,
                destination: onward,
                since: now,
            });
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
        let pair = if dialed {
            (asker, other)
        } else {
            (other, asker)
        };
        let Some(open) = self.circuits.get(&pair) else {
            return OtherLeg::None;
        };
        let legs = open.iter().map(|circuit| {
            let (source, destination) = (Some(circuit.source), circuit.destination);
            if dialed {
                (source, destination)
            } else {
                (destination, source)
            }
        });
        let here = legs.clone().filter(|(near, _)| *near == Some(asks_on));
        let far: HashSet<_> = here.map(|(_, far)| far).collect();
        let far = if far.is_empty() {
            legs.map(|(_, far)| far).collect()
        } else {
            far
        };
        let mut far = far.into_iter();
        match (far.next(), far.next()) {
            (Some(Some(connection)), None) => OtherLeg::Is(connection),
            _ => OtherLeg::Unknown,
        }
    }

    /// A circuit from `source` to `destination` closed, as `connection` reported. Tells how long it lived.
    ///
    /// libp2p reports a circuit whose destination was lost twice: once for the destination's connection, once when the
    /// source's end notices. The second report finds nothing and is `None`.
    pub(crate) fn closed(
        &mut self,
        source: PeerId,
        destination: PeerId,
        connection: ConnectionId,
        now: Instant,
    ) -> Option<Duration> {
        let open = self.circuits.get_mut(&(source, destination))?;
        // Of several over one connection it is the oldest, and so it is where the connection is not known.
        let index = open
            .iter()
            .position(|circuit| {
                circuit.source == connection || circuit.destination == Some(connection)
            })
            .unwrap_or(0);
        let circuit = open.remove(index)?;
        if open.is_empty() {
            self.circuits.remove(&(source, destination));
        }
        Some(now.saturating_duration_since(circuit.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(id: usize) -> ConnectionId {
        ConnectionId::new_unchecked(id)
    }

    #[test]
    fn a_renewal_is_no_second_reservation() {
        let (mut ledger, peer) = (Ledger::default(), PeerId::random());
        assert!(ledger.reserved(peer, connection(1)));
        assert!(!ledger.reserved(peer, connection(1)));
        assert_eq!(ledger.reservations(), 1);
    }

    #[test]
    fn a_connection_that_held_nothing_releases_nothing() {
        let (mut ledger, peer) = (Ledger::default(), PeerId::random());
        assert!(!ledger.released(peer, connection(2)));
        ledger.reserved(peer, connection(1));
        assert!(!ledger.released(peer, connection(2)));
        assert_eq!(ledger.reservations(), 1);
    }

    #[test]
    fn only_the_last_of_two_reservations_is_the_last() {
        let (mut ledger, peer) = (Ledger::default(), PeerId::random());
        assert!(ledger.reserved(peer, connection(1)));
        assert!(!ledger.reserved(peer, connection(2)));
        assert!(!ledger.released(peer, connection(1)));
        assert!(ledger.released(peer, connection(2)));
        assert_eq!(ledger.reservations(), 0);
        assert!(ledger.reserved(peer, connection(3)));
    }

    #[test]
    fn a_circuit_reported_closed_twice_counts_once() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let (source, destination) = (PeerId::random(), PeerId::random());
        ledger.opened(source, destination, connection(1), None, now);
        let later = now + Duration::from_secs(3);
        assert_eq!(
            ledger.closed(source, destination, connection(9), later),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            ledger.closed(source, destination, connection(1), later),
            None
        );
        assert_eq!(ledger.circuits(), 0);
    }

    #[test]
    fn of_two_circuits_of_a_pair_the_one_that_was_named_closes() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let (source, destination) = (PeerId::random(), PeerId::random());
        ledger.opened(source, destination, connection(1), None, now);
        ledger.opened(
            source,
            destination,
            connection(2),
            None,
            now + Duration::from_secs(2),
        );
        let later = now + Duration::from_secs(3);
        assert_eq!(
            ledger.closed(source, destination, connection(2), later),
            Some(Duration::from_secs(1))
        );
        assert_eq!(ledger.circuits(), 1);
    }

    #[test]
    fn each_party_of_a_circuit_learns_the_connection_of_the_other_and_nobody_else_does() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let [source, destination, stranger] = [(); 3].map(|()| PeerId::random());
        ledger.opened(source, destination, connection(1), Some(connection(2)), now);
        let ask = |asker, on, other, dialed| ledger.other_leg(asker, connection(on), other, dialed);
        assert_eq!(
            ask(source, 1, destination, true),
            OtherLeg::Is(connection(2))
        );
        assert_eq!(
            ask(destination, 2, source, false),
            OtherLeg::Is(connection(1))
        );
        // On another connection of a party, as when it does not know which one carries the circuit.
        assert_eq!(
            ask(source, 7, destination, true),
            OtherLeg::Is(connection(2))
        );
        // The wrong way round, a stranger, and a peer that is not there.
        assert_eq!(ask(source, 1, destination, false), OtherLeg::None);
        assert_eq!(ask(stranger, 3, destination, true), OtherLeg::None);
        assert_eq!(ask(stranger, 3, source, false), OtherLeg::None);
        assert_eq!(ask(source, 1, stranger, true), OtherLeg::None);
        ledger.closed(source, destination, connection(1), now);
        assert_eq!(
            ledger.other_leg(source, connection(1), destination, true),
            OtherLeg::None
        );
    }

    #[test]
    fn of_two_circuits_of_a_pair_the_one_over_the_asking_connection_is_meant() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let (source, destination) = (PeerId::random(), PeerId::random());
        ledger.opened(source, destination, connection(1), Some(connection(2)), now);
        ledger.opened(source, destination, connection(3), Some(connection(4)), now);
        let ask = |on| ledger.other_leg(source, connection(on), destination, true);
        assert_eq!(ask(1), OtherLeg::Is(connection(2)));
        assert_eq!(ask(3), OtherLeg::Is(connection(4)));
        assert_eq!(ask(5), OtherLeg::Unknown);
    }

    #[test]
    fn a_circuit_whose_onward_connection_is_not_known_is_told_as_such() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let (source, destination) = (PeerId::random(), PeerId::random());
        ledger.opened(source, destination, connection(1), None, now);
        assert_eq!(
            ledger.other_leg(source, connection(1), destination, true),
            OtherLeg::Unknown
        );
        // The source is known all the same.
        assert_eq!(
            ledger.other_leg(destination, connection(2), source, false),
            OtherLeg::Is(connection(1))
        );
    }

    #[test]
    fn of_two_circuits_the_one_whose_destination_was_lost_closes() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let (source, destination) = (PeerId::random(), PeerId::random());
        ledger.opened(source, destination, connection(1), Some(connection(2)), now);
        ledger.opened(source, destination, connection(3), Some(connection(4)), now);
        ledger.closed(source, destination, connection(4), now);
        assert_eq!(
            ledger.other_leg(source, connection(9), destination, true),
            OtherLeg::Is(connection(2))
        );
    }
}
