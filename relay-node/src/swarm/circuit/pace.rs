//! How fast the circuits of a peer may go, all of them and both directions together.
//!
//! A [token bucket](https://en.wikipedia.org/wiki/Token_bucket) that holds one second. What is asked for is always granted, at a
//! time that may lie ahead, and each answer moves the time of the next. So circuits take turns, none starves, nothing is cut.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// What a bucket that was not used holds.
const BURST: Duration = Duration::from_secs(1);

/// The measure of one peer.
#[derive(Debug)]
struct Bucket {
    /// Bytes in a second.
    rate: u64,
    /// When all that was granted would have gone through at `rate`.
    through: Instant,
}

impl Bucket {
    fn new(rate: u64, now: Instant) -> Self {
        Self { rate, through: now }
    }

    /// When `bytes` may go.
    fn reserve(&mut self, bytes: usize, now: Instant) -> Instant {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.rate.max(1));
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.through = self.through.max(now) + takes;
        // It never lies before now by more than what the bucket holds.
        self.through.checked_sub(BURST).unwrap_or(now).max(now)
    }

    /// Whether it is as if it had never been used.
    fn is_full(&self, now: Instant) -> bool {
        self.through <= now
    }
}

/// A bucket that all circuits of a peer use.
type Shared = Arc<Mutex<Bucket>>;

/// The measure of one circuit: that of both of its peers. Empty without a limit.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(Vec<Shared>);

impl Pace {
    /// When `bytes` may go; `None`: at once.
    pub(super) fn reserve(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let times = self.0.iter().map(|bucket| {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.reserve(bytes, now)
        });
        times.max().filter(|time| *time > now)
    }

    /// The most bytes that should go in one piece, of `most`: the circuits of a peer take turns by pieces.
    pub(super) fn piece(&self, most: usize) -> usize {
        /// So many pieces in a second at least.
        const PIECES: u64 = 16;
        const LEAST: usize = 1024;
        let rates = self.0.iter().map(|bucket| {
            let bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            usize::try_from(bucket.rate / PIECES).unwrap_or(usize::MAX)
        });
        rates.fold(most, usize::min).max(LEAST).min(most)
    }
}

/// The measures of all peers.
#[derive(Debug)]
pub(super) struct Paces {
    /// Bytes in a second of one peer; 0 is no limit.
    rate: u64,
    buckets: HashMap<PeerId, Shared>,
    /// At this many the map is looked through for those that nobody needs.
    sweep_at: usize,
}

/// The map is not looked through while it is small.
const SWEEP_AT_LEAST: usize = 64;

impl Paces {
    /// Each peer may have this many bytes in a second; 0 is no limit.
    pub(super) fn new(rate: u64) -> Self {
        Self {
            rate,
            buckets: HashMap::new(),
            sweep_at: SWEEP_AT_LEAST,
        }
    }

    /// The measure of a circuit between two peers. A peer that comes back finds its bucket as it has left it.
    pub(super) fn between(&mut self, source: PeerId, destination: PeerId, now: Instant) -> Pace {
        if self.rate == 0 {
            return Pace::default();
        }
        if self.buckets.len() >= self.sweep_at {
            self.buckets.retain(|_, bucket| {
                let used = Arc::strong_count(bucket) > 1;
                used || !bucket
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .is_full(now)
            });
            self.sweep_at = (self.buckets.len() * 2).max(SWEEP_AT_LEAST);
        }
        let rate = self.rate;
        let mut of = |peer| {
            let bucket = self.buckets.entry(peer);
            bucket
                .or_insert_with(|| Arc::new(Mutex::new(Bucket::new(rate, now))))
                .clone()
        };
        Pace(vec![of(source), of(destination)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u64 = 1000;

    #[test]
    fn a_second_goes_at_once_and_then_everything_at_its_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(RATE, now);
        assert_eq!(bucket.reserve(1000, now), now);
        assert_eq!(bucket.reserve(500, now), now + Duration::from_millis(500));
        assert_eq!(bucket.reserve(500, now), now + Duration::from_secs(1));
        let later = now + Duration::from_secs(100);
        assert!(bucket.is_full(later));
        assert_eq!(bucket.reserve(1000, later), later);
        assert_eq!(bucket.reserve(1, later), later + Duration::from_millis(1));
    }

    #[test]
    fn the_slower_of_two_peers_sets_the_pace() {
        let now = Instant::now();
        let mut paces = Paces::new(RATE);
        let [busy, other, third] = [(); 3].map(|()| PeerId::random());
        let first = paces.between(busy, other, now);
        let second = paces.between(third, busy, now);
        assert_eq!(first.reserve(1000, now), None);
        let wait = Some(now + Duration::from_secs(1));
        assert_eq!(second.reserve(1000, now), wait, "one bucket for both");
        let apart = paces.between(PeerId::random(), PeerId::random(), now);
        assert_eq!(apart.reserve(1000, now), None);
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let mut paces = Paces::new(0);
        let pace = paces.between(PeerId::random(), PeerId::random(), Instant::now());
        assert_eq!(pace.reserve(usize::MAX, Instant::now()), None);
        assert_eq!(pace.piece(65536), 65536);
        assert!(paces.buckets.is_empty());
    }

    #[test]
    fn buckets_that_nobody_needs_are_forgotten_and_those_in_debt_are_not() {
        let now = Instant::now();
        let mut paces = Paces::new(RATE);
        let debtor = PeerId::random();
        let _wait = paces
            .between(debtor, PeerId::random(), now)
            .reserve(1_000_000, now);
        for _ in 0..10 * SWEEP_AT_LEAST {
            let _unused = paces.between(PeerId::random(), PeerId::random(), now);
        }
        assert!(paces.buckets.len() <= SWEEP_AT_LEAST + 2);
        let again = paces.between(debtor, PeerId::random(), now);
        assert!(again.reserve(1, now).is_some());
    }

    #[test]
    fn slow_peers_move_in_small_pieces() {
        let mut paces = Paces::new(160_000);
        let pace = paces.between(PeerId::random(), PeerId::random(), Instant::now());
        assert_eq!(pace.piece(65536), 10_000);
        let mut paces = Paces::new(1);
        let pace = paces.between(PeerId::random(), PeerId::random(), Instant::now());
        assert_eq!(pace.piece(65536), 1024);
        assert_eq!(pace.piece(1), 1);
    }

    proptest! {
        /// For any sequence of requests, the bytes sent until a time never exceed the burst plus the rate times that time.
        #[test]
        fn no_more_goes_than_the_rate_and_one_burst(
            asks in proptest::collection::vec((0..5000_usize, 0..3000_u64), 1..100),
        ) {
            let start = Instant::now();
            let (mut bucket, mut now, mut went) = (Bucket::new(RATE, start), start, Vec::new());
            for (bytes, pause) in asks {
                now += Duration::from_millis(pause);
                went.push((bucket.reserve(bytes, now), bytes));
            }
            for (time, _) in &went {
                let bytes: usize = went.iter().filter(|(at, _)| at <= time).map(|(_, bytes)| bytes).sum();
                // In milliseconds a rate of 1000 is one byte each.
                let allowed = (*time - start).as_millis() + BURST.as_millis() + went.len() as u128;
                prop_assert!(bytes as u128 <= allowed, "{bytes} of {allowed}");
            }
        }
    }
}
