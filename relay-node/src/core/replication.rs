//! Which records are still to be copied to which of the other relays.
//!
//! Pure. A record that is new goes to every relay that is connected, but not to the one that it came from; a relay that connects
//! gets all. So many are under way at a time, which bounds what a relay with many records asks of one that comes back.

use std::collections::{BTreeSet, HashMap};

use libp2p::PeerId;

/// Records under way to one relay at a time.
const AT_ONCE: usize = 32;

/// What is to be copied. `Q` names a copy that is under way.
#[derive(Debug)]
pub(crate) struct Copies<Q> {
    due: HashMap<PeerId, BTreeSet<PeerId>>,
    under_way: HashMap<Q, PeerId>,
}

impl<Q> Default for Copies<Q> {
    fn default() -> Self {
        Self {
            due: HashMap::new(),
            under_way: HashMap::new(),
        }
    }
}

impl<Q: Eq + std::hash::Hash> Copies<Q> {
    /// The records of `peers` are to be copied to `relay`.
    pub(crate) fn add(&mut self, relay: PeerId, peers: impl IntoIterator<Item = PeerId>) {
        self.due.entry(relay).or_default().extend(peers);
    }

    /// The relay is gone.
    pub(crate) fn forget(&mut self, relay: &PeerId) {
        self.due.remove(relay);
    }

    /// The next copy to make: of the record of that peer, to that relay. What becomes of it is told with
    /// [`Copies::under_way`], if anything.
    pub(crate) fn poll(&mut self) -> Option<(PeerId, PeerId)> {
        let under_way = &self.under_way;
        let count = |relay| under_way.values().filter(|to| **to == relay).count();
        let (relay, peers) = self
            .due
            .iter_mut()
            .find(|(relay, peers)| !peers.is_empty() && count(**relay) < AT_ONCE)?;
        Some((peers.pop_first()?, *relay))
    }

    /// A copy to `relay` is under way.
    pub(crate) fn under_way(&mut self, copy: Q, relay: PeerId) {
        self.under_way.insert(copy, relay);
    }

    /// It is over.
    pub(crate) fn over(&mut self, copy: &Q) -> Option<PeerId> {
        self.under_way.remove(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_copied_once_and_no_more_than_so_many_are_under_way() {
        let (relay, mut copies) = (PeerId::random(), Copies::default());
        let peers: BTreeSet<PeerId> = (0..100).map(|_| PeerId::random()).collect();
        copies.add(relay, peers.clone());
        copies.add(relay, peers.clone());
        let mut copied = BTreeSet::new();
        let mut number = 0;
        while copied.len() < peers.len() {
            let mut begun = Vec::new();
            while let Some((peer, to)) = copies.poll() {
                assert_eq!(to, relay);
                assert!(copied.insert(peer), "copied twice");
                copies.under_way(number, relay);
                begun.push(number);
                number += 1;
            }
            assert!(begun.len() <= AT_ONCE && !begun.is_empty());
            for copy in begun {
                assert_eq!(copies.over(&copy), Some(relay));
            }
        }
        assert_eq!(copies.poll(), None);
    }

    #[test]
    fn one_relay_that_is_slow_or_gone_does_not_keep_another_waiting() {
        let (slow, other) = (PeerId::random(), PeerId::random());
        let mut copies = Copies::default();
        copies.add(slow, (0..AT_ONCE + 1).map(|_| PeerId::random()));
        for number in 0..AT_ONCE {
            copies.poll().expect("a copy");
            copies.under_way(number, slow);
        }
        assert_eq!(copies.poll(), None);
        let peer = PeerId::random();
        copies.add(other, [peer]);
        assert_eq!(copies.poll(), Some((peer, other)));
        copies.forget(&slow);
        assert_eq!(copies.over(&0), Some(slow));
        assert_eq!(copies.poll(), None);
    }
}
