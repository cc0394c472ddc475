//! How often something may happen: a [token bucket](https://en.wikipedia.org/wiki/Token_bucket). Pure, with the time as an argument.

use std::time::{Duration, Instant};

/// How often is not too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// What may be asked at once.
    pub burst: u32,
    /// One question more in this time, which is not zero.
    pub period: Duration,
}

/// What is left of a [`Measure`]. The same measure goes with each call.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: u32,
    /// Up to when tokens were added.
    filled: Instant,
}

impl Bucket {
    /// One from which nothing was taken.
    #[must_use]
    pub fn full(measure: Measure, now: Instant) -> Self {
        Self {
            tokens: measure.burst,
            filled: now,
        }
    }

    /// Whether one more question is within the measure; then it is counted.
    pub fn admits(&mut self, measure: Measure, now: Instant) -> bool {
        let admitted = self.has_left(measure, now);
        self.tokens = self.tokens.saturating_sub(1);
        admitted
    }

    /// Whether [`Self::admits`] would admit one more question now.
    pub fn has_left(&mut self, measure: Measure, now: Instant) -> bool {
        self.fill(measure, now);
        self.tokens > 0
    }

    /// Whether the bucket is as good as a new one.
    pub fn is_full(&mut self, measure: Measure, now: Instant) -> bool {
        self.fill(measure, now);
        self.tokens >= measure.burst
    }

    /// When the next question is admitted, at `now` or later.
    pub fn ready_at(&mut self, measure: Measure, now: Instant) -> Instant {
        self.fill(measure, now);
        if self.tokens > 0 {
            now
        } else {
            self.filled + measure.period
        }
    }

    fn fill(&mut self, Measure { burst, period }: Measure, now: Instant) {
        let periods = now.saturating_duration_since(self.filled).as_nanos() / period.as_nanos();
        match u32::try_from(periods)
            .ok()
            .filter(|periods| *periods < burst)
        {
            Some(periods) => {
                self.tokens = self.tokens.saturating_add(periods).min(burst);
                self.filled += period * periods;
            }
            None => {
                self.tokens = burst;
                self.filled = now;
            }
        }
    }
}
