//! Which remotes are offered TLS alone, without being asked first.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How many failures are remembered; the oldest is forgotten first.
const CAPACITY: usize = 256;

/// How long a failure is remembered. Another program, or a new version, may run at that address since.
const MEMORY: Duration = Duration::from_secs(3600);

/// Every remote is expected to support TLS until a dial that offered TLS alone has failed.
#[derive(Debug, Default)]
pub(crate) struct TlsSupport {
    /// Oldest first.
    failed: VecDeque<(SocketAddr, Instant)>,
}

impl TlsSupport {
    /// Whether to offer TLS alone.
    pub(super) fn is_expected(&self, remote: SocketAddr, now: Instant) -> bool {
        let mut failed = self.failed.iter();
        !failed.any(|(addr, since)| *addr == remote && now.duration_since(*since) < MEMORY)
    }

    /// Remembers that a dial that offered TLS alone has failed, for whatever reason: to ask first always works and is only slower.
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
    fn a_remote_that_failed_is_asked_for_an_hour_and_no_other_is() {
        let (mut support, now) = (TlsSupport::default(), Instant::now());
        assert!(support.is_expected(addr(1), now));
        support.failed(addr(1), now);
        assert!(!support.is_expected(addr(1), now));
        assert!(support.is_expected(addr(2), now));
        assert!(!support.is_expected(addr(1), now + MEMORY - Duration::from_secs(1)));
        assert!(support.is_expected(addr(1), now + MEMORY));
    }

    #[test]
    fn another_failure_restarts_the_hour_and_the_oldest_makes_room() {
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
