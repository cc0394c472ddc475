//! Which remotes are hoped to take TLS without being asked.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How many disappointments are remembered: the oldest is forgotten first.
const CAPACITY: usize = 256;

/// How long one is remembered. Another program may have come to that address, or a new version of it.
const MEMORY: Duration = Duration::from_secs(3600);

/// Every remote is hoped to take TLS, until that has failed once.
#[derive(Debug, Default)]
pub(crate) struct TlsSupport {
    /// In the order of time.
    failed: VecDeque<(SocketAddr, Instant)>,
}

impl TlsSupport {
    /// Whether to offer TLS alone.
    pub(super) fn is_expected(&self, remote: SocketAddr, now: Instant) -> bool {
        let mut failed = self.failed.iter();
        !failed.any(|(addr, since)| *addr == remote && now.duration_since(*since) < MEMORY)
    }

    /// Remembers that it has come to nothing, whatever for: to ask first is right in any case, only slower.
    pub(super) fn failed(&mut self, remote: SocketAddr, now: Instant) {
        self.failed.retain(|(addr, _)| *addr != remote);
        if self.failed.len() == CAPACITY {
            self.failed.pop_front();
        }
        self.failed.push_back((remote, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_hope_that_failed_is_given_up_for_an_hour_and_for_that_remote_alone() {
        let (mut support, now) = (TlsSupport::default(), Instant::now());
        assert!(support.is_expected(addr(1), now));
        support.failed(addr(1), now);
        assert!(!support.is_expected(addr(1), now));
        assert!(support.is_expected(addr(2), now));
        assert!(!support.is_expected(addr(1), now + MEMORY - Duration::from_secs(1)));
        assert!(support.is_expected(addr(1), now + MEMORY));
    }

    #[test]
    fn what_fails_again_is_remembered_anew_and_the_oldest_makes_room() {
        let (mut support, now) = (TlsSupport::default(), Instant::now());
        for port in 1..=256 {
            support.failed(addr(port), now);
        }
        support.failed(addr(1), now);
        support.failed(addr(257), now);
        assert!(!support.is_expected(addr(1), now));
        assert!(support.is_expected(addr(2), now));
        assert!(!support.is_expected(addr(257), now));
        assert_eq!(support.failed.len(), CAPACITY);
    }
}
