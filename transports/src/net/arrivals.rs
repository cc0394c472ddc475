//! TCP connections that were accepted and wait for the swarm, one source after the other. Pure.
//!
//! The queue of the kernel is first come, first served. The swarm takes one connection after each look at everything else, so a
//! source that connects without end would have all others wait for it. Here each source has its turn. Only the kernel accepts
//! before, which is cheap.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::Multiaddr;
use p2pnode_protocol::{Network, Source};
use rustix::process::{Resource, getrlimit};

/// Accepted in a row before something else is done.
pub(crate) const BATCH: usize = 32;

/// The most that wait, each with an open file: as many as the queue of the kernel holds.
const MOST: usize = 1024;

const LEAST: usize = 16;

/// Their part of the open files.
const OF_FILES: usize = 16;

/// How often it is reported that some were dropped.
const REPORT: Duration = Duration::from_secs(1);

/// What waits.
#[derive(Debug)]
pub(crate) struct Arrivals<T> {
    most: usize,
    len: usize,
    /// The sources of which something waits; whose turn is next comes first.
    turns: VecDeque<Option<Network>>,
    waiting: HashMap<Option<Network>, VecDeque<T>>,
    dropped: u64,
    reported: Option<Instant>,
}

impl<T> Arrivals<T> {
    /// Nothing yet, and at most as much as the open files allow.
    pub(crate) fn within_files() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        Self::new((files / OF_FILES).clamp(LEAST, MOST))
    }

    fn new(most: usize) -> Self {
        Self {
            most,
            len: 0,
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            dropped: 0,
            reported: None,
        }
    }

    /// `arrival` came from `remote`. If too many wait, the newest of the source of which the most wait is dropped.
    pub(crate) fn push(&mut self, remote: &Multiaddr, arrival: T) {
        // Of IPv6 the /48, which one owner has.
        let source = Source::of(remote).and_then(|source| source.networks().last());
        let queue = self.waiting.entry(source).or_default();
        if queue.is_empty() {
            self.turns.push_back(source);
        }
        queue.push_back(arrival);
        self.len += 1;
        if self.len > self.most {
            let heaviest = self.waiting.iter().max_by_key(|(_, queue)| queue.len());
            if let Some(source) = heaviest.map(|(source, _)| *source) {
                self.take(source, VecDeque::pop_back);
                self.dropped += 1;
            }
        }
    }

    /// The one whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let source = self.turns.pop_front()?;
        self.turns.push_back(source);
        self.take(source, VecDeque::pop_front)
    }

    /// How many were dropped, if that is to be reported.
    pub(crate) fn dropped(&mut self, now: Instant) -> Option<u64> {
        let is_soon = |at| now.saturating_duration_since(at) < REPORT;
        if self.dropped == 0 || self.reported.is_some_and(is_soon) {
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.dropped))
    }

    fn take(
        &mut self,
        source: Option<Network>,
        end: impl Fn(&mut VecDeque<T>) -> Option<T>,
    ) -> Option<T> {
        let queue = self.waiting.get_mut(&source)?;
        let taken = end(queue)?;
        self.len -= 1;
        if queue.is_empty() {
            self.waiting.remove(&source);
            self.turns.retain(|turn| *turn != source);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_newcomer_of_another_source_waits_for_one_of_each_however_many_came_before() {
        let mut arrivals = Arrivals::new(1000);
        for n in 0..900 {
            arrivals.push(&remote("/ip6/2001:db8:7::1/tcp/4"), n);
        }
        arrivals.push(&remote("/ip4/198.51.100.1/tcp/4"), 1000);
        arrivals.push(&remote("/ip6/2001:db8:7:8::1/tcp/4"), 900);
        arrivals.push(&remote("/ip4/198.51.100.1/tcp/5"), 1001);
        let first: Vec<_> = std::iter::from_fn(|| arrivals.pop()).take(5).collect();
        assert_eq!(first, [0, 1000, 1, 1001, 2]);
        let rest: Vec<_> = std::iter::from_fn(|| arrivals.pop()).collect();
        assert_eq!(rest, (3..=900).collect::<Vec<_>>());
        assert!(arrivals.turns.is_empty() && arrivals.waiting.is_empty());
        assert_eq!(arrivals.len, 0);
    }

    #[test]
    fn of_too_many_the_newest_of_the_heaviest_source_is_dropped_and_that_is_reported_once_a_second()
    {
        let (mut arrivals, now) = (Arrivals::new(4), Instant::now());
        let heavy = remote("/ip4/198.51.100.1/tcp/4");
        for n in 0..6 {
            arrivals.push(&heavy, n);
        }
        arrivals.push(&remote("/ip4/198.51.100.2/tcp/4"), 10);
        assert_eq!(arrivals.dropped(now), Some(3));
        arrivals.push(&heavy, 7);
        assert_eq!(arrivals.dropped(now), None);
        assert_eq!(arrivals.dropped(now + REPORT), Some(1));
        assert_eq!(arrivals.dropped(now + 2 * REPORT), None);
        let all: Vec<_> = std::iter::from_fn(|| arrivals.pop()).collect();
        assert_eq!(all, [0, 10, 1, 2]);
    }
}
