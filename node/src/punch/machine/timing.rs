//! How long things take.

use std::time::Duration;

/// How long things take. The defaults suit the internet; tests make them theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timing {
    /// How long a first candidate is waited for before its lack is reported, and a CONNECT is held back for one.
    pub first_candidate: Duration,
    /// From opening the stream to SYNC.
    pub handshake: Duration,
    /// What an attempt gets after its dial, at the least, if the dial itself does not fail before.
    pub attempt: Duration,
    /// How long a dial without an outcome may take. More than any transport takes.
    pub dial: Duration,
    /// How long after its start a dial that failed at once still hopes for the peer's.
    pub linger: Duration,
    /// Before a handshake that failed is tried again.
    pub handshake_retry: Duration,
    /// Before a series that a new candidate brings, counted from the last attempt.
    pub new_candidate: Duration,
    /// How long the responder waits for the initiator's next attempt.
    pub silence: Duration,
    /// How long the punch of an introduction holds back the handshake over a circuit, or four round trips of the circuit if these
    /// are longer. A connection takes one round trip of the direct path over QUIC and three over TCP.
    pub introduction: Duration,
    /// Pauses between series; the last one repeats.
    pub ladder: Vec<Duration>,
    /// The longest of these pauses right after a direct connection was lost.
    pub heals: Duration,
    /// After the last new direct connection, before a surplus is closed.
    pub surplus_quiet: Duration,
    /// The longest that a surplus lives, however often new ones come.
    pub surplus_limit: Duration,
    /// After which the side with the larger peer id closes it: later than a QUIC connection whose end got lost dies.
    pub surplus_fallback: Duration,
    /// How long the relayed connections outlive the first direct one.
    pub grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_candidate: Duration::from_secs(3),
            handshake: Duration::from_secs(10),
            attempt: Duration::from_secs(5),
            dial: Duration::from_secs(12),
            linger: Duration::from_secs(1),
            handshake_retry: Duration::from_secs(2),
            new_candidate: Duration::from_secs(1),
            silence: Duration::from_secs(12),
            introduction: Duration::from_millis(500),
            ladder: [30, 120, 600].map(Duration::from_secs).to_vec(),
            heals: Duration::from_secs(10),
            surplus_quiet: Duration::from_secs(1),
            surplus_limit: Duration::from_secs(3),
            surplus_fallback: Duration::from_secs(15),
            grace: Duration::from_secs(5),
        }
    }
}

/// Deterministic jitter ([SplitMix64](https://prng.di.unimi.it/splitmix64.c)): good enough to spread retries.
#[derive(Debug)]
pub(super) struct Jitter(pub(super) u64);

impl Jitter {
    /// `pause`, give or take a fifth.
    pub(super) fn spread(&mut self, pause: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        pause.mul_f64(0.8 + 0.4 * unit)
    }
}
