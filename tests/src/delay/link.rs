//! What becomes of packets between sites.

use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// What is added to each round trip.
    pub rtt: Duration,
    /// How many packets of a hundred are lost, on each way, independently of each other.
    pub loss_percent: f64,
}

impl Link {
    pub const fn rtt(rtt: Duration) -> Self {
        Self {
            rtt,
            loss_percent: 0.0,
        }
    }

    pub const fn loss(mut self, percent: f64) -> Self {
        self.loss_percent = percent;
        self
    }

    pub(super) fn one_way(self) -> Duration {
        self.rtt / 2
    }
}
