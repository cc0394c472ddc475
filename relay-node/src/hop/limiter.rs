//! How often a peer may ask: pure, with the time as an argument.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// What a peer may ask at once: a node over whose relay many circuits open together asks once for each of them.
const BURST: u32 = 256;

/// One question more in this time. A node asks every 30 s for each circuit, so this serves a thousand circuits of one peer.
const PERIOD: Duration = Duration::from_millis(30);

/// A [token bucket](https://en.wikipedia.org/wiki/Token_bucket) for each peer that asked and is still connected.
#[derive(Debug, Default)]
pub(super) struct Limiter(HashMap<PeerId, Bucket>);

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// Up to when tokens were added.
    filled: Instant,
}

impl Limiter {
    /// Whether one more question of `peer` is within its measure.
    pub(super) fn admits(&mut self, peer: PeerId, now: Instant) -> bool {
        let bucket = self.0.entry(peer).or_insert(Bucket {
            tokens: BURST,
            filled: now,
        });
        let periods = now.saturating_duration_since(bucket.filled).as_nanos() / PERIOD.as_nanos();
        match u32::try_from(periods)
            .ok()
            .filter(|periods| *periods < BURST)
        {
            Some(periods) => {
                bucket.tokens = bucket.tokens.saturating_add(periods).min(BURST);
                bucket.filled += PERIOD * periods;
            }
            None => {
                bucket.tokens = BURST;
                bucket.filled = now;
            }
        }
        let admitted = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        admitted
    }

    /// The peer is no longer connected.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(limiter: &mut Limiter, peer: PeerId, now: Instant) -> usize {
        (0..2 * BURST).filter(|_| limiter.admits(peer, now)).count()
    }

    #[test]
    fn a_burst_is_admitted_and_then_one_question_per_period() {
        let (mut limiter, peer, now) = (Limiter::default(), PeerId::random(), Instant::now());
        assert_eq!(admitted(&mut limiter, peer, now), BURST as usize);
        assert_eq!(admitted(&mut limiter, peer, now + PERIOD * 3), 3);
        let later = now + PERIOD * 3 + PERIOD / 2;
        assert_eq!(admitted(&mut limiter, peer, later), 0);
        assert_eq!(admitted(&mut limiter, peer, later + PERIOD / 2), 1);
    }

    #[test]
    fn a_long_silence_fills_no_more_than_a_burst() {
        let (mut limiter, peer, now) = (Limiter::default(), PeerId::random(), Instant::now());
        admitted(&mut limiter, peer, now);
        let later = now + Duration::from_secs(1_000_000);
        assert_eq!(admitted(&mut limiter, peer, later), BURST as usize);
    }

    #[test]
    fn one_peer_does_not_use_up_the_measure_of_another() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        let (greedy, modest) = (PeerId::random(), PeerId::random());
        admitted(&mut limiter, greedy, now);
        assert!(limiter.admits(modest, now));
        limiter.forget(&greedy);
        assert_eq!(limiter.0.len(), 1);
    }
}
