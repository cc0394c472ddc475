//! What dials have learned about remotes.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How many remotes are remembered for each finding; the oldest is forgotten first.
const CAPACITY: usize = 256;

/// How long a finding is remembered. Another program, another version or another path may be there since.
const LIFETIME: Duration = Duration::from_secs(3600);

/// What dials have learned.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    without_tls: Mutex<Remotes>,
    narrow: Mutex<Remotes>,
}

impl Memory {
    /// Remotes at which a dial that offered TLS alone has failed, for whatever reason: to ask first always works and is only slower.
    pub(super) fn without_tls(&self) -> MutexGuard<'_, Remotes> {
        lock(&self.without_tls)
    }

    /// Remotes to which only small segments get through.
    pub(super) fn narrow(&self) -> MutexGuard<'_, Remotes> {
        lock(&self.narrow)
    }
}

fn lock(remotes: &Mutex<Remotes>) -> MutexGuard<'_, Remotes> {
    // Nothing panics while it holds the lock, and no state is half written if it did.
    remotes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remotes of which something was found.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    /// Oldest first.
    found: VecDeque<(SocketAddr, Instant)>,
}

impl Remotes {
    pub(super) fn contains(&self, remote: SocketAddr, now: Instant) -> bool {
        let mut found = self.found.iter();
        found.any(|(addr, since)| *addr == remote && now.duration_since(*since) < LIFETIME)
    }

    /// Whether there is any.
    pub(super) fn are_some(&self, now: Instant) -> bool {
        let mut found = self.found.iter();
        found.any(|(_, since)| now.duration_since(*since) < LIFETIME)
    }

    pub(super) fn add(&mut self, remote: SocketAddr, now: Instant) {
        self.found.retain(|(addr, _)| *addr != remote);
        if self.found.len() == CAPACITY {
            self.found.pop_front();
        }
        self.found.push_back((remote, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_remote_is_remembered_for_an_hour_and_no_other_is() {
        let (mut remotes, now) = (Remotes::default(), Instant::now());
        assert!(!remotes.contains(addr(1), now) && !remotes.are_some(now));
        remotes.add(addr(1), now);
        assert!(remotes.contains(addr(1), now) && remotes.are_some(now));
        assert!(!remotes.contains(addr(2), now));
        assert!(remotes.contains(addr(1), now + LIFETIME - Duration::from_secs(1)));
        assert!(!remotes.contains(addr(1), now + LIFETIME) && !remotes.are_some(now + LIFETIME));
    }

    #[test]
    fn another_finding_restarts_the_hour_and_the_oldest_makes_room() {
        let (mut remotes, now) = (Remotes::default(), Instant::now());
        for port in 1..=256 {
            remotes.add(addr(port), now);
        }
        remotes.add(addr(1), now);
        remotes.add(addr(257), now);
        assert!(remotes.contains(addr(1), now));
        assert!(!remotes.contains(addr(2), now));
        assert!(remotes.contains(addr(257), now));
        assert_eq!(remotes.found.len(), CAPACITY);
    }
}
