//! Which records are still to be copied to which of the other relays.
//!
//! A record that is new goes to every relay that is connected, but not to the one that it came from. A relay that connects gets
//! all. Copies are made in the order in which records came. So many are under way at a time, which bounds what a relay with many
//! records asks of one that comes back. A copy that did not arrive is made again later: it may have gone over a connection that
//! the other side had already given up.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_daemon::backoff::backoff;

use crate::core::source::decrement;

/// Records under way to one relay at a time.
const AT_ONCE: usize = 32;

/// First wait before copies are made again that did not arrive.
const RETRY_MIN: Duration = Duration::from_millis(500);

/// The longest one.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A copy to make: of the record of a peer, to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) peer: PeerId,
    pub(crate) relay: PeerId,
}

/// What is to be copied.
#[derive(Debug, Default)]
pub(crate) struct Replication {
    due: HashMap<PeerId, Queue>,
    /// Copies under way, by relay.
    under_way: HashMap<PeerId, usize>,
    failed: HashMap<PeerId, Failed>,
}

/// Peers whose records are due, each once and in the order in which they became so.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<PeerId>,
    members: HashSet<PeerId>,
}

impl Queue {
    fn extend(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        let members = &mut self.members;
        let new = peers.into_iter().filter(|peer| members.insert(*peer));
        self.order.extend(new);
    }

    fn pop(&mut self) -> Option<PeerId> {
        let peer = self.order.pop_front()?;
        self.members.remove(&peer);
        Some(peer)
    }
}

/// Copies to a relay that did not arrive.
#[derive(Debug)]
struct Failed {
    peers: BTreeSet<PeerId>,
    /// When they are made again; `None` while they are.
    retry_at: Option<Instant>,
    /// How often in a row that was necessary.
    failures: u32,
}

impl Replication {
    /// The records of `peers` are to be copied to `relay`.
    pub(crate) fn add(&mut self, relay: PeerId, peers: impl IntoIterator<Item = PeerId>) {
        self.due.entry(relay).or_default().extend(peers);
    }

    /// The relay is gone. What is under way to it ends by itself.
    pub(crate) fn forget(&mut self, relay: &PeerId) {
        self.due.remove(relay);
        self.failed.remove(relay);
    }

    /// The next copy to make. It is under way until [`Self::handle_copied`] or [`Self::handle_failed`].
    pub(crate) fn poll_action(&mut self) -> Option<Copy> {
        let under_way = &mut self.under_way;
        let (relay, peers) = self.due.iter_mut().find(|(relay, peers)| {
            let under_way = under_way.get(*relay).copied().unwrap_or_default();
            !peers.order.is_empty() && under_way < AT_ONCE
        })?;
        let (peer, relay) = (peers.pop()?, *relay);
        *under_way.entry(relay).or_default() += 1;
        Some(Copy { peer, relay })
    }

    /// A copy to `relay` has arrived, or there was nothing to copy.
    pub(crate) fn handle_copied(&mut self, relay: PeerId) {
        decrement(&mut self.under_way, relay);
        let over = |failed: &Failed| failed.peers.is_empty();
        if self.failed.get(&relay).is_some_and(over) {
            self.failed.remove(&relay);
        }
    }

    /// A copy has not arrived. `connected` is whether its relay still is.
    pub(crate) fn handle_failed(&mut self, copy: Copy, connected: bool, now: Instant) {
        decrement(&mut self.under_way, copy.relay);
        if !connected {
            return;
        }
        let failed = self.failed.entry(copy.relay).or_insert(Failed {
            peers: BTreeSet::new(),
            retry_at: None,
            failures: 0,
        });
        failed.peers.insert(copy.peer);
        if failed.retry_at.is_none() {
            // Copies to different relays are in nobody's way, so there is nothing to spread.
            failed.retry_at = Some(now + backoff(RETRY_MIN, RETRY_MAX, failed.failures, 0.0));
            failed.failures = failed.failures.saturating_add(1);
        }
    }

    /// Makes copies again whose wait is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for (relay, failed) in &mut self.failed {
            if failed
                .retry_at
                .take_if(|retry_at| *retry_at <= now)
                .is_some()
            {
                let due = self.due.entry(*relay).or_default();
                due.extend(std::mem::take(&mut failed.peers));
            }
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.failed
            .values()
            .filter_map(|failed| failed.retry_at)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_copied_once_and_no_more_than_so_many_are_under_way() {
        let (relay, mut replication) = (PeerId::random(), Replication::default());
        let peers: BTreeSet<PeerId> = (0..100).map(|_| PeerId::random()).collect();
        replication.add(relay, peers.clone());
        replication.add(relay, peers.clone());
        let mut copied = BTreeSet::new();
        while copied.len() < peers.len() {
            let mut begun = 0;
            while let Some(copy) = replication.poll_action() {
                assert_eq!(copy.relay, relay);
                assert!(copied.insert(copy.peer), "copied twice");
                begun += 1;
            }
            assert!((1..=AT_ONCE).contains(&begun));
            for _ in 0..begun {
                replication.handle_copied(relay);
            }
        }
        assert_eq!(replication.poll_action(), None);
        assert!(replication.under_way.is_empty());
    }

    #[test]
    fn one_relay_that_is_slow_or_gone_does_not_keep_another_waiting() {
        let (slow, other) = (PeerId::random(), PeerId::random());
        let mut replication = Replication::default();
        replication.add(slow, (0..AT_ONCE + 1).map(|_| PeerId::random()));
        for _ in 0..AT_ONCE {
            replication.poll_action().expect("a copy");
        }
        assert_eq!(replication.poll_action(), None);
        let peer = PeerId::random();
        replication.add(other, [peer]);
        let copy = Copy { peer, relay: other };
        assert_eq!(replication.poll_action(), Some(copy));
        replication.forget(&slow);
        replication.handle_copied(slow);
        assert_eq!(replication.poll_action(), None);
    }

    #[test]
    fn what_did_not_arrive_is_copied_again_later_and_later_while_its_relay_is_connected() {
        let [peer, relay] = [(); 2].map(|()| PeerId::random());
        let (mut replication, mut now) = (Replication::default(), Instant::now());
        let copy = Copy { peer, relay };
        replication.add(relay, [peer]);
        for wait in [RETRY_MIN, RETRY_MIN * 2, RETRY_MIN * 4] {
            assert_eq!(replication.poll_action(), Some(copy));
            replication.handle_failed(copy, true, now);
            assert_eq!(replication.poll_action(), None);
            let due = replication.poll_timeout().expect("it is made again");
            assert!(due - now <= wait, "{wait:?}");
            now = due;
            replication.handle_timeout(now);
        }
        assert_eq!(replication.poll_action(), Some(copy));
        replication.handle_copied(relay);
        assert!(replication.failed.is_empty() && replication.under_way.is_empty());
        replication.add(relay, [peer]);
        assert_eq!(replication.poll_action(), Some(copy));
        replication.handle_failed(copy, false, now);
        assert_eq!(replication.poll_timeout(), None, "it is gone");
    }
}
