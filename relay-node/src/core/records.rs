//! The records of the directory that the relay keeps.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_protocol::directory::{Offer, TAKEN_BACK};

use crate::core::verdict::{Record, Verdict, judge};

/// How long a record that was taken back is kept for relays that are to drop it: they hear of it at once, so many at a time.
const TAKEN_BACK_FOR: Duration = Duration::from_secs(60);

/// A copy is made of what lasts longer than this: the protocol carries whole seconds, and none means for ever.
const COPIED_ABOVE: Duration = Duration::from_secs(2);

/// What has become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is kept.
    New,
    /// The relay through which alone it leads takes it back: what is kept of it ends within [`TAKEN_BACK`].
    TakenBack,
}

/// Why a record is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// A newer one is kept, or the same.
    Old,
    /// There is no room.
    Full,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Records {
    limit: usize,
    kept: HashMap<PeerId, Record>,
    /// Those that were taken back here, for other relays to drop them, and since when.
    taken_back: HashMap<PeerId, (Record, Instant)>,
}

impl Records {
    /// Without records; keeps at most `limit`.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: HashMap::new(),
            taken_back: HashMap::new(),
        }
    }

    /// How many there are, with those that have expired since the last [`Self::expire`].
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is no room for a record of `peer`.
    pub(crate) fn is_full_for(&self, peer: &PeerId) -> bool {
        self.kept.len() >= self.limit && !self.kept.contains_key(peer)
    }

    /// The peers whose records are kept.
    pub(crate) fn peers(&self) -> BTreeSet<PeerId> {
        self.kept.keys().copied().collect()
    }

    /// The record of a peer, if one is kept that has not expired.
    pub(crate) fn of(&self, peer: &PeerId, now: Instant) -> Option<&Record> {
        self.kept.get(peer).filter(|record| now < record.expires)
    }

    /// Keeps a record until it expires or a newer one comes. Whether it is a peer's to offer is for the caller to judge.
    pub(crate) fn keep(&mut self, offer: Offer, now: Instant) -> Result<Kept, NotKept> {
        let peer = offer.registration.peer;
        let taken_back = self.taken_back.get(&peer).map(|(record, _)| record);
        let kept = match judge(&offer, self.of(&peer, now), taken_back, now) {
            Verdict::Old => return Err(NotKept::Old),
            Verdict::Shorten => Kept::TakenBack,
            Verdict::Keep => Kept::New,
        };
        if self.is_full_for(&peer) {
            return Err(NotKept::Full);
        }
        self.taken_back.remove(&peer);
        self.kept.insert(peer, offer.into());
        Ok(kept)
    }

    /// Drops the record of a peer that may not be called here any more. Whether one was kept; then [`Self::copy`] takes it back
    /// from another relay.
    pub(crate) fn take_back(&mut self, peer: &PeerId, now: Instant) -> bool {
        let record = self.kept.remove(peer);
        let Some(record) = record.filter(|record| now < record.expires) else {
            return false;
        };
        self.taken_back.insert(*peer, (record, now));
        true
    }

    /// Drops what has expired: the peers of it.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<PeerId> {
        self.taken_back
            .retain(|_, (record, since)| now < record.expires && now < *since + TAKEN_BACK_FOR);
        let expired = self.kept.extract_if(|_, record| record.expires <= now);
        expired.map(|(peer, _)| peer).collect()
    }

    /// What another relay gets of the record of `peer`; with little time left if it was taken back here.
    pub(crate) fn copy(&self, peer: &PeerId, now: Instant) -> Option<Record> {
        let record = match (self.of(peer, now), self.taken_back.get(peer)) {
            (Some(record), _) => record.clone(),
            (None, Some((record, _))) => Record {
                expires: record.expires.min(now + TAKEN_BACK),
                ..record.clone()
            },
            (None, None) => return None,
        };
        (now + COPIED_ABOVE < record.expires).then_some(record)
    }
}
