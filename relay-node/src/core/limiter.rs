//! How often a peer may ask: pure, with the time as an argument.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// How often is not too often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    /// What a peer may ask at once.
    pub(crate) burst: u32,
    /// One question more in this time, which is not zero.
    pub(crate) period: Duration,
}

/// A [token bucket](https://en.wikipedia.org/wiki/Token_bucket) for each peer that asked and is still connected.
#[derive(Debug)]
pub(crate) struct Limiter {
    measure: Measure,
    buckets: HashMap<PeerId, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// Up to when tokens were added.
    filled: Instant,
}

impl Limiter {
    /// A limiter that lets each peer have that much.
    pub(crate) fn new(measure: Measure) -> Self {
        Self {
            measure,
            buckets: HashMap::new(),
        }
    }

    /// Whether one more question of `peer` is within its measure.
    pub(crate) fn admits(&mut self, peer: PeerId, now: Instant) -> bool {
        let Measure { burst, period } = self.measure;
        let bucket = self.buckets.entry(peer).or_insert(Bucket {
            tokens: burst,
            filled: now,
        });
        let periods = now.saturating_duration_since(bucket.filled).as_nanos() / period.as_nanos();
        match u32::try_from(periods)
            .ok()
            .filter(|periods| *periods < burst)
        {
            Some(periods) => {
                bucket.tokens = bucket.tokens.saturating_add(periods).min(burst);
                bucket.filled += period * periods;
            }
            None => {
                bucket.tokens = burst;
                bucket.filled = now;
            }
        }
        let admitted = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        admitted
    }

    /// The peer is no longer connected.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.buckets.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 256;
    const PERIOD: Duration = Duration::from_millis(30);

    fn limiter() -> Limiter {
        Limiter::new(Measure {
            burst: BURST,
            period: PERIOD,
        })
    }

    fn admitted(limiter: &mut Limiter, peer: PeerId, now: Instant) -> usize {
        (0..2 * BURST).filter(|_| limiter.admits(peer, now)).count()
    }

    #[test]
    fn a_burst_is_admitted_and_then_one_question_per_period() {
        let (mut limiter, peer, now) = (limiter(), PeerId::random(), Instant::now());
        assert_eq!(admitted(&mut limiter, peer, now), BURST as usize);
        assert_eq!(admitted(&mut limiter, peer, now + PERIOD * 3), 3);
        let later = now + PERIOD * 3 + PERIOD / 2;
        assert_eq!(admitted(&mut limiter, peer, later), 0);
        assert_eq!(admitted(&mut limiter, peer, later + PERIOD / 2), 1);
    }

    #[test]
    fn a_long_silence_fills_no_more_than_a_burst() {
        let (mut limiter, peer, now) = (limiter(), PeerId::random(), Instant::now());
        admitted(&mut limiter, peer, now);
        let later = now + Duration::from_secs(1_000_000);
        assert_eq!(admitted(&mut limiter, peer, later), BURST as usize);
    }

    #[test]
    fn one_peer_does_not_use_up_the_measure_of_another() {
        let (mut limiter, now) = (limiter(), Instant::now());
        let (greedy, modest) = (PeerId::random(), PeerId::random());
        admitted(&mut limiter, greedy, now);
        assert!(limiter.admits(modest, now));
        limiter.forget(&greedy);
        assert_eq!(limiter.buckets.len(), 1);
    }
}
