//! How long to wait before the next attempt.

use std::time::Duration;

/// The wait after `failures` failures in a row. It doubles from `min` up to `max`; a `jitter` between 0 and 1 shortens it by up
/// to one half.
#[must_use]
pub fn backoff(min: Duration, max: Duration, failures: u32, jitter: f64) -> Duration {
    let doubled = 1_u32
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    min.saturating_mul(doubled)
        .min(max)
        .mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

/// As [`backoff`], with [full jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): a `jitter` of 1
/// leaves nothing of the wait. So many that wait for the same thing do not return at once.
#[must_use]
pub fn full_jitter(min: Duration, max: Duration, failures: u32, jitter: f64) -> Duration {
    backoff(min, max, failures, 0.0).mul_f64(1.0 - jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_up_to_its_maximum_and_the_jitter_takes_half_of_it_at_most() {
        let (min, max) = (Duration::from_millis(250), Duration::from_secs(2));
        let waits = [0, 1, 2, 3, 4, 5, 40, u32::MAX].map(|n| backoff(min, max, n, 0.0));
        assert_eq!(
            waits.map(|wait| wait.as_millis()),
            [250, 250, 500, 1000, 2000, 2000, 2000, 2000]
        );
        assert_eq!(backoff(min, max, 1, 1.0), min / 2);
        assert_eq!(backoff(min, max, 1, 7.0), min / 2);
        assert_eq!(backoff(min, max, 1, -1.0), min);
        let of = |jitter| full_jitter(min, max, 40, jitter);
        assert_eq!(
            [of(-1.0), of(0.25), of(7.0)],
            [max, max * 3 / 4, Duration::ZERO]
        );
    }
}
