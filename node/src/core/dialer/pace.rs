//! How often this node asks for the same circuit, for dials and for the search for lost peers, whatever the answers are.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_protocol::bucket::{Bucket, Measure};

/// Circuits to a peer over one relay: eight at once and then twelve a minute. A relay that restarts takes fewer of them, and a
/// dial of a peer that restarts never waits longer than a period.
const CIRCUITS: Measure = Measure {
    burst: 8,
    period: Duration::from_secs(5),
};

/// The most circuits that are remembered. Above it, those that were not asked for lately are dropped.
const MAX_CIRCUITS: usize = 4096;

/// What is left of each circuit's measure.
#[derive(Debug, Default)]
pub(crate) struct Pace(BTreeMap<(PeerId, PeerId), Bucket>);

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
        if self.0.len() >= MAX_CIRCUITS && !self.0.contains_key(&(peer, relay)) {
            self.0.retain(|_, bucket| !bucket.is_full(CIRCUITS, now));
            if self.0.len() >= MAX_CIRCUITS {
                return Err(now + CIRCUITS.period);
            }
        }
        let bucket = self.0.entry((peer, relay));
        let bucket = bucket.or_insert_with(|| Bucket::full(CIRCUITS, now));
        match bucket.admits(CIRCUITS, now) {
            true => Ok(()),
            false => Err(bucket.ready_at(CIRCUITS, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_is_asked_for_twelve_times_a_minute_and_others_do_not_wait_for_it() {
        let (peer, relay, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut pace = Pace::default();
        for _ in 0..CIRCUITS.burst {
            assert_eq!(pace.begin(peer, relay, now), Ok(()));
        }
        let next = now + CIRCUITS.period;
        assert_eq!(pace.begin(peer, relay, now), Err(next));
        assert_eq!(pace.begin(peer, PeerId::random(), now), Ok(()));
        assert_eq!(pace.begin(PeerId::random(), relay, now), Ok(()));
        let minute = (0..60_000).step_by(100).map(Duration::from_millis);
        let begun = minute.filter(|at| pace.begin(peer, relay, next + *at).is_ok());
        assert_eq!(begun.count(), 12);
    }

    #[test]
    fn what_was_not_asked_for_lately_is_forgotten() {
        let (relay, now) = (PeerId::random(), Instant::now());
        let mut pace = Pace::default();
        for _ in 0..MAX_CIRCUITS {
            assert_eq!(pace.begin(PeerId::random(), relay, now), Ok(()));
        }
        let later = now + CIRCUITS.period;
        assert_eq!(pace.begin(PeerId::random(), relay, now), Err(later));
        assert_eq!(pace.begin(PeerId::random(), relay, later), Ok(()));
        assert_eq!(pace.0.len(), 1);
    }
}
