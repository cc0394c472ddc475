//! What shows that the remote of a connection hears this side, or has much to say.
//!
//! A path that is cut in one direction goes on to deliver the other side's pings, and what it sends again. So arrival alone is no
//! sign. An acknowledgement is: something of this side has arrived there. So is a flow of data, whose sender gets
//! acknowledgements. Where a queue of seconds grows on this side's uplink, the acknowledgements wait for it, and the data do not.

use std::time::{Duration, Instant};

/// So many bytes within [`SOON`] are a flow. Pings and their repetitions are far below, a link of 64 kbit/s that is full is above.
const FLOW: u64 = 4 << 10;
const SOON: Duration = Duration::from_secs(1);

/// What has arrived in datagrams, as far as it is a flow.
#[derive(Debug)]
pub(super) struct Flow {
    /// How many times [`FLOW`].
    times: u64,
    /// What had arrived, and when that was.
    base: (u64, Instant),
}

impl Flow {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            times: 0,
            base: (0, now),
        }
    }

    /// So many bytes have arrived until now. Returns a number that grows with a flow.
    pub(super) fn handle_arrived(&mut self, bytes: u64, now: Instant) -> u64 {
        let (base, since) = self.base;
        let is_flow = bytes - base >= FLOW;
        self.times += u64::from(is_flow);
        if is_flow || now.saturating_duration_since(since) >= SOON {
            self.base = (bytes, now);
        }
        self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a second of arrivals at this rate is a sign of life, looked at four times a second for a minute.
    fn signs(bytes_per_second: u64) -> u64 {
        let begin = Instant::now();
        let mut flow = Flow::new(begin);
        let looks = (1..=240_u64).map(|look| {
            let now = begin + Duration::from_millis(250 * look);
            flow.handle_arrived(bytes_per_second * look / 4, now)
        });
        looks.last().unwrap_or_default()
    }

    #[test]
    fn pings_and_their_repetitions_are_no_flow_and_a_slow_link_that_is_full_is_one() {
        assert_eq!(signs(600), 0, "pings");
        assert_eq!(
            signs(3_000),
            0,
            "what is sent again of a window of ten packets"
        );
        assert!(signs(8_000) >= 60, "64 kbit/s");
        assert!(signs(125_000) >= 200, "1 Mbit/s");
    }
}
