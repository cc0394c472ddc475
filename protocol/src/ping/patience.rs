//! How long an answer may take on a connection: pure.
//!
//! As TCP's retransmission timeout ([RFC 6298](https://www.rfc-editor.org/rfc/rfc6298)), with two differences. A [`Pace`] gives
//! the least, which is the usual one. And the longest of the last round trips counts four times. A queue that fills while one
//! ping is under way makes the next ping take several times as long. The variance of round trips shows that too late.

use std::time::Duration;

use super::Pace;

/// The longest time, and that of the first ping, whose round trip nothing foretells: longer than queues of consumer routers.
const LONGEST: Duration = Duration::from_secs(15);

/// The time for the first ping.
const FIRST: Duration = Duration::from_secs(10);

/// How often the longest of the last round trips fits into the time.
const PEAKS: u32 = 4;

/// What is known of a connection's round trips.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience(Option<Measured>);

#[derive(Debug, Clone, Copy)]
struct Measured {
    smoothed: Duration,
    variation: Duration,
    /// The longest of the last ones: it loses an eighth with each.
    peak: Duration,
}

impl Patience {
    /// A ping was answered.
    pub fn handle_round_trip(&mut self, rtt: Duration) {
        let rtt = rtt.min(LONGEST);
        self.0 = Some(match self.0 {
            None => Measured {
                smoothed: rtt,
                variation: rtt / 2,
                peak: rtt,
            },
            Some(known) => Measured {
                smoothed: known.smoothed * 7 / 8 + rtt / 8,
                variation: known.variation * 3 / 4 + known.smoothed.abs_diff(rtt) / 4,
                peak: rtt.max(known.peak * 7 / 8),
            },
        });
    }

    /// How long the next answer may take.
    #[must_use]
    pub fn timeout(&self, pace: Pace) -> Duration {
        let time = match self.0 {
            None => FIRST,
            Some(known) => (known.smoothed + known.variation * 4).max(known.peak * PEAKS),
        };
        time.min(LONGEST).max(pace.timeout)
    }

    /// How long a ping may take in all if there are other signs of life meanwhile.
    #[must_use]
    pub fn longest(&self, pace: Pace) -> Duration {
        LONGEST.max(pace.timeout)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace {
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(2500),
    };

    fn after(millis: impl IntoIterator<Item = u64>) -> Duration {
        let mut patience = Patience::default();
        for rtt in millis {
            patience.handle_round_trip(Duration::from_millis(rtt));
        }
        patience.timeout(PACE)
    }

    #[test]
    fn usual_round_trips_leave_the_least_time_and_long_ones_get_more() {
        for rtt in [1, 20, 100, 300, 600] {
            assert_eq!(after([rtt; 10]), PACE.timeout, "{rtt} ms");
        }
        assert!(after([3000]) > Duration::from_secs(6));
        assert!(after([3000; 50]) >= Duration::from_secs(12));
        assert_eq!(after([]), FIRST);
    }

    #[test]
    fn a_queue_that_grows_is_followed_and_forgotten_when_it_is_gone() {
        let mut patience = Patience::default();
        patience.handle_round_trip(Duration::from_millis(50));
        // Each second of sending adds one second, up to six.
        let mut queue = Duration::from_secs(1);
        for _ in 0..8 {
            assert!(queue < patience.timeout(PACE), "{queue:?}");
            patience.handle_round_trip(queue);
            queue = (queue * 2 + PACE.interval).min(Duration::from_secs(6));
        }
        for _ in 0..30 {
            patience.handle_round_trip(Duration::from_millis(50));
        }
        assert_eq!(patience.timeout(PACE), PACE.timeout);
    }

    proptest! {
        #[test]
        fn the_time_is_within_its_bounds(rtts in prop::collection::vec(any::<u64>(), 0..50)) {
            let time = after(rtts);
            prop_assert!(time >= PACE.timeout && time <= LONGEST);
        }
    }
}
