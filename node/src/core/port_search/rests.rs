//! How long a peer rests after a search.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::core::search_report::{NoSearch, SearchOutcome};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);

/// After the first search without a pair, the second, and each that follows.
pub(super) const RESTS: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(600), HOUR];

#[derive(Debug, Clone, Copy)]
pub(super) struct Rest {
    pub(super) until: Instant,
    pub(super) rung: usize,
    /// The relay to ask when the rest is over, if this node wants the peer.
    pub(super) relay: Option<PeerId>,
}

impl Rest {
    /// How long the peer rests after this end of a search, and how many searches in a row have then failed.
    pub(super) fn after(
        outcome: SearchOutcome,
        reason: Option<NoSearch>,
        rung: usize,
    ) -> (Duration, usize) {
        match outcome {
            // A peer that restarts needs the next one at once. The budgets bound what that costs.
            SearchOutcome::Found | SearchOutcome::Needless => (Duration::ZERO, 0),
            // There may be fresh ports later.
            SearchOutcome::NotTried if reason == Some(NoSearch::NotSymmetric) => (RESTS[1], 0),
            SearchOutcome::NotTried => (HOUR, 0),
            SearchOutcome::NotFound | SearchOutcome::Unanswered | SearchOutcome::NoSample => {
                (RESTS[rung.min(2)], rung + 1)
            }
        }
    }
}
