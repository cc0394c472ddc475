//! Which path each peer is on, kept only to tell when it changes and how long a peer took to become direct.
//!
//! Pure: the time is an argument.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};

use crate::core::peers::PathKind;

/// The best path of each peer that is connected or is being dialed.
#[derive(Debug, Default)]
pub(crate) struct PathWatch(HashMap<PeerId, Watched>);

/// A change of a peer's best path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// What it was.
    pub(super) from: Option<PathKind>,
    /// What it is.
    pub(super) to: Option<PathKind>,
    /// How long the peer took to become direct, if it is that for the first time since it is connected.
    pub(super) time_to_direct: Option<Duration>,
}

#[derive(Debug)]
struct Watched {
    /// When it was asked for or, without that, connected.
    since: Instant,
    best: Option<(ConnectionId, PathKind)>,
    was_direct: bool,
}

impl Watched {
    const fn since(since: Instant) -> Self {
        Self {
            since,
            best: None,
            was_direct: false,
        }
    }
}

impl PathWatch {
    /// Somebody asks for the peer.
    pub(crate) fn wanted(&mut self, peer: PeerId, now: Instant) {
        self.0.entry(peer).or_insert(Watched::since(now));
    }

    /// Nobody asks for the peer any more.
    pub(crate) fn unwanted(&mut self, peer: &PeerId) {
        if self.0.get(peer).is_some_and(|peer| peer.best.is_none()) {
            self.0.remove(peer);
        }
    }

    /// The best connection of a peer is this one now. `None` if it is the same as before.
    pub(crate) fn best(
        &mut self,
        peer: PeerId,
        best: Option<(ConnectionId, PathKind)>,
        now: Instant,
    ) -> Option<Change> {
        let before = self.0.get(&peer).and_then(|peer| peer.best);
        if before == best {
            return None;
        }
        let (from, to) = (before.map(|(_, kind)| kind), best.map(|(_, kind)| kind));
        if best.is_none() {
            self.0.remove(&peer);
            return Some(Change {
                from,
                to,
                time_to_direct: None,
            });
        }
        let peer = self.0.entry(peer).or_insert(Watched::since(now));
        peer.best = best;
        let is_first = to == Some(PathKind::Direct) && !peer.was_direct;
        peer.was_direct |= is_first;
        Some(Change {
            from,
            to,
            time_to_direct: is_first.then(|| now.saturating_duration_since(peer.since)),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const DIRECT: Option<PathKind> = Some(PathKind::Direct);
    const RELAYED: Option<PathKind> = Some(PathKind::Relayed);

    fn over(id: usize, kind: PathKind) -> Option<(ConnectionId, PathKind)> {
        Some((ConnectionId::new_unchecked(id), kind))
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn the_time_to_direct_counts_from_the_first_connection_and_once() {
        let (mut watch, peer, start) = (PathWatch::default(), PeerId::random(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        let mut best = |best, now| {
            let change = watch.best(peer, best, now).unwrap();
            (change.from, change.to, change.time_to_direct)
        };
        assert_eq!(
            best(over(1, PathKind::Relayed), at(0)),
            (None, RELAYED, None)
        );
        assert_eq!(
            best(over(2, PathKind::Direct), at(3)),
            (RELAYED, DIRECT, seconds(3))
        );
        // Another direct path, and one that is found again after a while on the relay, are not the first.
        assert_eq!(
            best(over(3, PathKind::Direct), at(4)),
            (DIRECT, DIRECT, None)
        );
        assert_eq!(
            best(over(4, PathKind::Relayed), at(5)),
            (DIRECT, RELAYED, None)
        );
        assert_eq!(
            best(over(5, PathKind::Direct), at(9)),
            (RELAYED, DIRECT, None)
        );
        // Who was away begins anew.
        assert_eq!(best(None, at(10)), (DIRECT, None, None));
        assert_eq!(
            best(over(6, PathKind::Direct), at(20)),
            (None, DIRECT, seconds(0))
        );
    }

    #[test]
    fn a_peer_that_was_asked_for_before_counts_from_there() {
        let (mut watch, peer, start) = (PathWatch::default(), PeerId::random(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        watch.wanted(peer, at(0));
        watch.wanted(peer, at(1));
        let change = watch.best(peer, over(1, PathKind::Direct), at(2)).unwrap();
        assert_eq!(change.time_to_direct, seconds(2));
    }

    #[test]
    fn a_peer_that_was_asked_for_in_vain_is_forgotten_and_a_connected_one_is_not() {
        let (mut watch, peer, start) = (PathWatch::default(), PeerId::random(), Instant::now());
        watch.wanted(peer, start);
        watch.unwanted(&peer);
        assert!(watch.0.is_empty());
        watch.best(peer, over(1, PathKind::Relayed), start).unwrap();
        watch.unwanted(&peer);
        let later = start + Duration::from_secs(1);
        let change = watch.best(peer, over(2, PathKind::Direct), later).unwrap();
        assert_eq!(change.time_to_direct, seconds(1));
        watch.best(peer, None, later).unwrap();
        assert!(watch.0.is_empty());
    }

    #[test]
    fn what_stays_the_same_is_no_change() {
        let (mut watch, peer, now) = (PathWatch::default(), PeerId::random(), Instant::now());
        assert_eq!(watch.best(peer, None, now), None);
        watch.best(peer, over(1, PathKind::Direct), now).unwrap();
        assert_eq!(watch.best(peer, over(1, PathKind::Direct), now), None);
    }
}
