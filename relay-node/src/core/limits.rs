//! The configured limits as the machines use them. 0 is unlimited in the configuration, everywhere.

use std::time::Duration;

/// The longest that a reservation or a circuit lasts, 136 years: the protocol carries seconds in 32 bits.
pub(crate) const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// The most of something.
pub(crate) fn count(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

/// The same of a limit of 32 bits.
pub(crate) fn count32(limit: u32) -> usize {
    count(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// How long something lasts.
pub(crate) fn duration(limit: Duration) -> Duration {
    if limit.is_zero() {
        LONGEST
    } else {
        limit.min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_unlimited_everywhere() {
        assert_eq!(duration(Duration::ZERO), LONGEST);
        assert_eq!((count(0), count(7)), (usize::MAX, 7));
        assert_eq!((count32(0), count32(7)), (usize::MAX, 7));
    }

    #[test]
    fn durations_beyond_what_the_protocol_carries_are_cut() {
        assert_eq!(duration(Duration::MAX), LONGEST);
    }
}
