//! A path that has missed a ping: a circuit is asked for alongside, and the path goes on if an answer comes before.

use super::{Dialer, circuit::Circuit};

impl Dialer {
    /// The best path has missed a ping: it is cut, or slower than before.
    pub(crate) fn handle_doubt(&mut self) {
        if self.path.is_none() || self.finished || self.is_doubtful {
            return;
        }
        self.is_doubtful = true;
        for relay in &mut self.relays {
            if matches!(relay.state, Circuit::Made | Circuit::Failed) {
                relay.state = Circuit::Waiting;
            }
        }
    }

    /// The path has answered after all.
    pub(crate) const fn handle_trust(&mut self) {
        self.is_doubtful = false;
    }

    /// Whether a circuit to the peer is worth asking for.
    pub(super) fn needs_circuit(&self) -> bool {
        self.seeks() || self.is_doubtful
    }
}
