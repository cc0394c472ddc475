//! How often somebody may ask: pure, with the time as an argument.

use std::{collections::HashMap, hash::Hash, time::Instant};

pub use p2pnode_protocol::bucket::Measure;

use p2pnode_protocol::bucket::Bucket;

/// How many buckets are kept. A bucket that is full again is as good as none, so above this number those are dropped first.
const MAX_BUCKETS: usize = 16_384;

/// A [token bucket](https://en.wikipedia.org/wiki/Token_bucket) for each key that asked: a peer, a source, a connection.
///
/// It keeps 16,384 at most. If all of them are in use, a new key is not admitted.
#[derive(Debug)]
pub struct Limiter<K> {
    measure: Measure,
    buckets: HashMap<K, Bucket>,
}

impl<K: Hash + Eq> Limiter<K> {
    /// A limiter that lets each key have that much.
    #[must_use]
    pub fn new(measure: Measure) -> Self {
        Self {
            measure,
            buckets: HashMap::new(),
        }
    }

    /// Whether one more question of `key` is within its measure; then it is counted.
    pub fn admits(&mut self, key: K, now: Instant) -> bool {
        if !self.has_left(&key, now) {
            return false;
        }
        let measure = self.measure;
        let bucket = self.buckets.entry(key);
        bucket
            .or_insert_with(|| Bucket::full(measure, now))
            .admits(measure, now)
    }

    /// Whether [`Self::admits`] would admit one more question of `key` now. What several limiters must admit is counted in none of
    /// them unless all have something left.
    pub fn has_left(&mut self, key: &K, now: Instant) -> bool {
        let measure = self.measure;
        if let Some(bucket) = self.buckets.get_mut(key) {
            return bucket.has_left(measure, now);
        }
        if self.buckets.len() >= MAX_BUCKETS {
            self.buckets
                .retain(|_, bucket| !bucket.is_full(measure, now));
        }
        self.buckets.len() < MAX_BUCKETS
    }

    /// The key asks no more.
    pub fn forget(&mut self, key: &K) {
        self.buckets.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BURST: u32 = 256;
    const PERIOD: Duration = Duration::from_millis(30);

    fn limiter() -> Limiter<u32> {
        Limiter::new(Measure {
            burst: BURST,
            period: PERIOD,
        })
    }

    fn admitted(limiter: &mut Limiter<u32>, key: u32, now: Instant) -> usize {
        (0..2 * BURST).filter(|_| limiter.admits(key, now)).count()
    }

    #[test]
    fn a_burst_is_admitted_and_then_one_question_per_period() {
        let (mut limiter, key, now) = (limiter(), 1, Instant::now());
        assert_eq!(admitted(&mut limiter, key, now), BURST as usize);
        assert_eq!(admitted(&mut limiter, key, now + PERIOD * 3), 3);
        let later = now + PERIOD * 3 + PERIOD / 2;
        assert_eq!(admitted(&mut limiter, key, later), 0);
        assert_eq!(admitted(&mut limiter, key, later + PERIOD / 2), 1);
    }

    #[test]
    fn a_long_silence_fills_no_more_than_a_burst() {
        let (mut limiter, key, now) = (limiter(), 1, Instant::now());
        admitted(&mut limiter, key, now);
        let later = now + Duration::from_secs(1_000_000);
        assert_eq!(admitted(&mut limiter, key, later), BURST as usize);
    }

    #[test]
    fn one_key_does_not_use_up_the_measure_of_another() {
        let (mut limiter, now) = (limiter(), Instant::now());
        let (greedy, modest) = (1, 2);
        admitted(&mut limiter, greedy, now);
        assert!(limiter.admits(modest, now));
        limiter.forget(&greedy);
        assert_eq!(limiter.buckets.len(), 1);
    }

    #[test]
    fn above_a_bound_only_keys_that_asked_lately_are_kept_and_new_ones_wait() {
        let (mut limiter, now) = (limiter(), Instant::now());
        let keys = u32::try_from(MAX_BUCKETS).expect("a small number");
        for key in 0..keys {
            assert!(limiter.admits(key, now));
        }
        assert!(!limiter.admits(keys, now));
        assert!(limiter.admits(0, now));
        assert!(limiter.admits(keys, now + PERIOD));
        assert_eq!(limiter.buckets.len(), 2, "the others are full again");
    }
}
