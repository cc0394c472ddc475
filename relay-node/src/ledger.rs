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
    source: ConnectionId,
    since: Instant,
}

impl Ledger {
    /// Reservations held, counted by connection as libp2p counts them against its limit.
    pub(crate) fn reservations(&self) -> usize {
        self.reservations.values().map(HashSet::len).sum()
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

    /// A circuit from `source` to `destination` was opened over the source's `connection`.
    pub(crate) fn opened(
        &mut self,
        source: PeerId,
        destination: PeerId,
        connection: ConnectionId,
        now: Instant,
    ) {
        self.circuits
            .entry((source, destination))
            .or_default()
            .push_back(Circuit {
                source: connection,
                since: now,
            });
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
        // A report of the destination's connection does not say which of several circuits it was: the oldest.
        let index = open
            .iter()
            .position(|circuit| circuit.source == connection)
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
        ledger.opened(source, destination, connection(1), now);
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
        ledger.opened(source, destination, connection(1), now);
        ledger.opened(
            source,
            destination,
            connection(2),
            now + Duration::from_secs(2),
        );
        let later = now + Duration::from_secs(3);
        assert_eq!(
            ledger.closed(source, destination, connection(2), later),
            Some(Duration::from_secs(1))
        );
        assert_eq!(ledger.circuits(), 1);
    }
}
