//! Which relays are being asked to admit this node, and what waits for their answers.
//!
//! Pure.

use std::collections::BTreeSet;

use libp2p::{PeerId, swarm::ConnectionId};

/// The requests that are under way. `W` is what is known of a circuit that a relay has refused.
#[derive(Debug)]
pub(crate) struct Joins<W> {
    open: BTreeSet<(PeerId, ConnectionId)>,
    /// Circuits that a relay has refused before it has answered whether it admits this node. A missing admission may be the
    /// reason.
    withheld: Vec<(PeerId, W)>,
}

impl<W> Default for Joins<W> {
    fn default() -> Self {
        Self {
            open: BTreeSet::new(),
            withheld: Vec::new(),
        }
    }
}

impl<W> Joins<W> {
    /// A relay is being asked on this connection.
    pub(crate) fn handle_asked(&mut self, relay: PeerId, connection: ConnectionId) {
        self.open.insert((relay, connection));
    }

    /// A relay has refused a circuit. Returns the circuit unless its refusal is withheld until the relay has answered.
    pub(crate) fn handle_circuit_refused(&mut self, relay: PeerId, circuit: W) -> Option<W> {
        if !self.open.iter().any(|(of, _)| *of == relay) {
            return Some(circuit);
        }
        self.withheld.push((relay, circuit));
        None
    }

    /// A relay has answered on this connection, or will not.
    pub(crate) fn handle_reply(&mut self, relay: PeerId, connection: ConnectionId) {
        self.open.remove(&(relay, connection));
    }

    /// Releases the circuits over this relay whose refusal was withheld. The answer on another connection may still be awaited,
    /// but it is the same.
    pub(crate) fn take_withheld(&mut self, relay: PeerId) -> Vec<W> {
        let of_relay = self.withheld.extract_if(.., |(of, _)| *of == relay);
        of_relay.map(|(_, circuit)| circuit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_a_circuit_is_withheld_while_its_relay_is_asked_to_admit_this_node() {
        let (relay, other) = (PeerId::random(), PeerId::random());
        let connection = ConnectionId::new_unchecked(1);
        let mut joins = Joins::default();
        assert_eq!(joins.handle_circuit_refused(relay, 1), Some(1));
        joins.handle_asked(relay, connection);
        assert_eq!(joins.handle_circuit_refused(relay, 2), None);
        assert_eq!(joins.handle_circuit_refused(other, 3), Some(3));
        joins.handle_reply(relay, connection);
        assert_eq!(joins.take_withheld(other), [0; 0]);
        assert_eq!(joins.take_withheld(relay), [2]);
        assert_eq!(joins.take_withheld(relay), [0; 0]);
        assert_eq!(joins.handle_circuit_refused(relay, 4), Some(4));
    }
}
