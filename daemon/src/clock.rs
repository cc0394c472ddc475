//! Whether this host's clock can be right.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When certificates of libp2p begin to be valid: 1 January 1975.
const BEGIN: Duration = Duration::from_secs(157_766_400);

/// Logs that the clock of this host shows a time at which no peer has a valid certificate, if it does. A host without a battery
/// for its clock begins in 1970.
pub fn warn_if_unset() {
    if is_unset(SystemTime::now()) {
        tracing::warn!(
            "clock: this host's clock shows a time before 1975, at which no peer has a valid certificate: nobody can connect; set it: timedatectl set-ntp true"
        );
    }
}

fn is_unset(now: SystemTime) -> bool {
    now < UNIX_EPOCH + BEGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_begins_in_1970_is_unset_and_one_that_was_set_is_not() {
        for after in [60, 1] {
            assert!(is_unset(UNIX_EPOCH + Duration::from_secs(after)));
            assert!(is_unset(UNIX_EPOCH - Duration::from_secs(after)));
        }
        assert!(!is_unset(UNIX_EPOCH + BEGIN));
        assert!(!is_unset(SystemTime::now()));
    }
}
