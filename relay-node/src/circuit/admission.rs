//! Who may use the relay.

use std::collections::HashSet;

use libp2p::PeerId;

/// The peers that may take reservations and ask for circuits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admission {
    /// These, or any if empty.
    allow: HashSet<PeerId>,
}

impl Admission {
    /// These peers, or any if there are none.
    pub(crate) fn new(allow: impl IntoIterator<Item = PeerId>) -> Self {
        Self {
            allow: allow.into_iter().collect(),
        }
    }

    /// Whether `peer` is admitted. Asked at each reservation, renewal and circuit.
    pub(crate) fn admits(&self, peer: &PeerId) -> bool {
        self.allow.is_empty() || self.allow.contains(peer)
    }
}
