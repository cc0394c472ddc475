//! Which records are still to be copied to which of the other relays.
//!
//! A record that is new goes to every relay that is connected, but not to the one that it came from; a relay that connects
//! gets all. So many are under way at a time, which bounds what a relay with many records asks of one that comes back.

use std::collections::{BTreeSet, HashMap};

use libp2p::PeerId;

use crate::core::source::decrement;

/// Records under way to one relay at a time.
const AT_ONCE: usize = 32;

/// A copy to make: of the record of a peer, to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) peer: PeerId,
    pub(crate) relay: PeerId,
}

/// What is to be copied.
#[derive(Debug, Default)]
pub(crate) struct Replication {
    due: HashMap<PeerId, BTreeSet<PeerId>>,
    /// Copies under way, by relay.
    under_way: HashMap<PeerId, usize>,
}

impl Replication {
    /// The records of `peers` are to be copied to `relay`.
    pub(crate) fn add(&mut self, relay: PeerId, peers: impl IntoIterator<Item = PeerId>) {
        self.due.entry(relay).or_default().extend(peers);
    }

    /// The relay is gone. What is under way to it ends by itself.
    pub(crate) fn forget(&mut self, relay: &PeerId) {
        self.due.remove(relay);
    }

    /// The next copy to make. It is under way until [`Self::handle_copied`] says otherwise.
    pub(crate) fn poll_action(&mut self) -> Option<Copy> {
        let under_way = &mut self.under_way;
        let (relay, peers) = self.due.iter_mut().find(|(relay, peers)| {
            let under_way = under_way.get(*relay).copied().unwrap_or_default();
            !peers.is_empty() && under_way < AT_ONCE
        })?;
        let (peer, relay) = (peers.pop_first()?, *relay);
        *under_way.entry(relay).or_default() += 1;
        Some(Copy { peer, relay })
    }

    /// A copy to `relay` is over, one way or the other.
    pub(crate) fn handle_copied(&mut self, relay: PeerId) {
        decrement(&mut self.under_way, relay);
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
}
