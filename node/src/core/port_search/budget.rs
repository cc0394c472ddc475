//! How many packets a search may send.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Packets leave in bursts: so many, and the next ones after this. That is 500 a second.
pub(super) const BURST: u32 = 25;
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// For as long a router keeps an entry for a packet that nobody answers
/// ([nf_conntrack_udp_timeout](https://www.kernel.org/doc/html/latest/networking/nf_conntrack-sysctl.html)).
pub(super) const OUTSTANDING: Duration = Duration::from_secs(30);

/// Sends no more than so many packets in all, and in [`OUTSTANDING`].
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    most_outstanding: u32,
    bursts: VecDeque<(Instant, u32)>,
}

impl Budget {
    pub(super) const fn new(in_all: u32, most_outstanding: u32) -> Self {
        Self {
            left: in_all,
            most_outstanding,
            bursts: VecDeque::new(),
        }
    }

    /// How many packets may leave now.
    pub(super) fn now(&mut self, now: Instant) -> u32 {
        while self
            .bursts
            .front()
            .is_some_and(|(at, _)| *at + OUTSTANDING <= now)
        {
            self.bursts.pop_front();
        }
        if self.bursts.back().is_some_and(|(at, _)| *at + PAUSE > now) {
            return 0;
        }
        let outstanding: u32 = self.bursts.iter().map(|(_, sent)| sent).sum();
        let rest = self.most_outstanding.saturating_sub(outstanding);
        self.left.min(rest).min(BURST)
    }

    /// So many leave.
    pub(super) fn spend(&mut self, sent: u32, now: Instant) {
        if sent > 0 {
            self.left = self.left.saturating_sub(sent);
            self.bursts.push_back((now, sent));
        }
    }

    /// When packets that are due may leave; `None` if they never may.
    pub(super) fn after(&self, due: Instant) -> Option<Instant> {
        if self.left == 0 {
            return None;
        }
        let outstanding: u32 = self.bursts.iter().map(|(_, sent)| sent).sum();
        let (Some((first, _)), Some((last, _))) = (self.bursts.front(), self.bursts.back()) else {
            return Some(due);
        };
        Some(due.max(match outstanding >= self.most_outstanding {
            true => *first + OUTSTANDING,
            false => *last + PAUSE,
        }))
    }
}
