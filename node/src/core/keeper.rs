//! Peers to which a path is kept because services ask for one.
//!
//! Pure: the time and a jitter are arguments. A dial looks for the peer everywhere. After a dial without a path the next one is due
//! later and later, or as soon as a client waits. A lost peer is dialed by [`crate::core::reconnect`] first, which knows the relays
//! that led to it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_daemon::backoff::backoff;

/// The first wait after a dial without a path, and what a client waits at most after a dial has ended.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long a lost peer is left to those who know the way that led to it.
const LOST: Duration = Duration::from_secs(3);

/// The peers.
#[derive(Debug, Default)]
pub(crate) struct Keeper(BTreeMap<PeerId, Kept>);

#[derive(Debug)]
struct Kept {
    addrs: Vec<Multiaddr>,
    /// When it is dialed, if it has no path then.
    at: Option<Instant>,
    /// When the last dial without a path has ended.
    ended: Option<Instant>,
    failures: u32,
}

impl Keeper {
    /// A path to the peer is wanted; `now_please`: a client waits for one.
    pub(crate) fn handle_wanted(
        &mut self,
        peer: PeerId,
        addrs: Vec<Multiaddr>,
        now_please: bool,
        now: Instant,
    ) {
        let is_new = !self.0.contains_key(&peer);
        let kept = self.0.entry(peer).or_insert(Kept {
            addrs: Vec::new(),
            at: None,
            ended: None,
            failures: 0,
        });
        kept.addrs = addrs;
        if is_new || now_please {
            let soonest = kept.ended.map_or(now, |ended| now.max(ended + BACKOFF_MIN));
            kept.at = Some(kept.at.map_or(soonest, |at| at.min(soonest)));
        }
    }

    /// Nobody asks for the peer any longer.
    pub(crate) fn handle_unwanted(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// Whether somebody does.
    pub(crate) fn keeps(&self, peer: &PeerId) -> bool {
        self.0.contains_key(peer)
    }

    /// There is a path.
    pub(crate) fn handle_connected(&mut self, peer: &PeerId) {
        if let Some(kept) = self.0.get_mut(peer) {
            (kept.at, kept.ended, kept.failures) = (None, None, 0);
        }
    }

    /// The last path is gone.
    pub(crate) fn handle_lost(&mut self, peer: &PeerId, now: Instant) {
        if let Some(kept) = self.0.get_mut(peer) {
            kept.at = Some(now + LOST);
        }
    }

    /// A dial has ended without a path.
    pub(crate) fn handle_failed(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        if let Some(kept) = self.0.get_mut(peer) {
            kept.failures += 1;
            kept.ended = Some(now);
            kept.at = Some(now + backoff(BACKOFF_MIN, BACKOFF_MAX, kept.failures, jitter));
        }
    }

    /// The peers that are to be dialed now, unless they have a path or a dial.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        for (peer, kept) in &mut self.0 {
            if kept.at.is_some_and(|at| at <= now) {
                kept.at = None;
                due.push((*peer, kept.addrs.clone()));
            }
        }
        due
    }

    /// When some are.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.0.values().filter_map(|kept| kept.at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wanted_peer_is_dialed_at_once_and_after_failures_ever_less_often_unless_a_client_waits() {
        let (mut keeper, peer, start) = (Keeper::default(), PeerId::random(), Instant::now());
        keeper.handle_wanted(peer, Vec::new(), false, start);
        assert_eq!(keeper.due(start), [(peer, Vec::new())]);
        assert_eq!(keeper.poll_timeout(), None, "the dial is under way");
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..4 {
            keeper.handle_failed(&peer, now, 0.0);
            let at = keeper.poll_timeout().expect("it is dialed again");
            waits.push((at - now).as_secs_f64());
            now = at;
            assert_eq!(keeper.due(now).len(), 1);
        }
        assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
        keeper.handle_failed(&peer, now, 0.0);
        keeper.handle_wanted(peer, Vec::new(), true, now);
        assert_eq!(keeper.poll_timeout(), Some(now + BACKOFF_MIN));
    }

    #[test]
    fn a_lost_peer_is_dialed_a_little_later_and_one_that_nobody_wants_never() {
        let (mut keeper, peer, now) = (Keeper::default(), PeerId::random(), Instant::now());
        keeper.handle_wanted(peer, Vec::new(), true, now);
        keeper.handle_connected(&peer);
        assert!(keeper.due(now).is_empty());
        keeper.handle_lost(&peer, now);
        assert_eq!(keeper.poll_timeout(), Some(now + LOST));
        keeper.handle_unwanted(&peer);
        assert_eq!(keeper.poll_timeout(), None);
        keeper.handle_lost(&peer, now);
        assert!(keeper.due(now + LOST).is_empty());
    }
}
