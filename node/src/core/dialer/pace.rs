//! How often this node asks for the same circuit, whatever the answers are and whoever wants it: dials, and the search for lost
//! peers.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// The most circuits to a peer over one relay in [`WINDOW`]. A relay that restarts takes fewer of them.
const CIRCUITS: usize = 12;
const WINDOW: Duration = Duration::from_secs(60);

/// The most circuits that are remembered. Above it, those that were not asked for lately are dropped.
const MAX_CIRCUITS: usize = 4096;

/// When each circuit was asked for, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Pace(BTreeMap<(PeerId, PeerId), VecDeque<Instant>>);

impl Pace {
    /// A circuit to `peer` over `relay` is to be asked for.
    ///
    /// # Errors
    /// If that is too often, when it is not.
    pub(crate) fn begin(
        &mut self,
        peer: PeerId,
        relay: PeerId,
        now: Instant,
    ) -> Result<(), Instant> {
        let is_over = |at: &Instant| *at + WINDOW <= now;
        if self.0.len() >= MAX_CIRCUITS && !self.0.contains_key(&(peer, relay)) {
            self.0.retain(|_, begun| !begun.back().is_none_or(is_over));
            if self.0.len() >= MAX_CIRCUITS {
                return Err(now + WINDOW);
            }
        }
        let begun = self.0.entry((peer, relay)).or_default();
        while begun.front().is_some_and(is_over) {
            begun.pop_front();
        }
        match begun.front() {
            Some(first) if begun.len() >= CIRCUITS => Err(*first + WINDOW),
            Some(_) | None => {
                begun.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_is_asked_for_twelve_times_a_minute_and_others_do_not_wait_for_it() {
        let (peer, relay, start) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut pace = Pace::default();
        for n in 0..12 {
            assert_eq!(
                pace.begin(peer, relay, start + Duration::from_secs(n)),
                Ok(())
            );
        }
        let now = start + Duration::from_secs(12);
        assert_eq!(pace.begin(peer, relay, now), Err(start + WINDOW));
        assert_eq!(pace.begin(peer, PeerId::random(), now), Ok(()));
        assert_eq!(pace.begin(PeerId::random(), relay, now), Ok(()));
        assert_eq!(pace.begin(peer, relay, start + WINDOW), Ok(()));
        assert!(pace.begin(peer, relay, start + WINDOW).is_err());
    }

    #[test]
    fn what_was_not_asked_for_lately_is_forgotten() {
        let (relay, now) = (PeerId::random(), Instant::now());
        let mut pace = Pace::default();
        for _ in 0..MAX_CIRCUITS {
            assert_eq!(pace.begin(PeerId::random(), relay, now), Ok(()));
        }
        assert_eq!(pace.begin(PeerId::random(), relay, now), Err(now + WINDOW));
        assert_eq!(pace.begin(PeerId::random(), relay, now + WINDOW), Ok(()));
        assert_eq!(pace.0.len(), 1);
    }
}
