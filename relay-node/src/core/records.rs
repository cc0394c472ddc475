//! The records of the directory that the relay keeps.
//!
//! Relays vouch for a record: those of the mesh that the record names, and this one if it took the record from its peer. A relay
//! vouches while the peer holds a reservation there, and for [`LINGER`] after the last one. Then it takes the record back, and a
//! record for which no relay vouches ends.
//!
//! If there is no room, records of peers without a reservation here give way to records of peers with one. This relay and each of
//! the others may have an equal share. Within its own share this relay gives each source as much as any other.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_protocol::{
    Network, Source,
    directory::{Offer, TAKEN_BACK},
};

use crate::{
    config::PerSource,
    core::{
        source::{decrement, decrement_networks, increment_networks, networks_admit},
        verdict::{Record, Verdict, judge},
    },
};

/// How long a relay vouches for a record after the last reservation of its peer has ended: a peer that reconnects is found meanwhile.
pub(crate) const LINGER: Duration = Duration::from_secs(120);

/// How long a record that was taken back is kept for relays that are to drop it: they hear of it at once, so many at a time.
const TAKEN_BACK_FOR: Duration = Duration::from_secs(60);

/// A copy is made of what lasts longer than this: the protocol carries whole seconds, and none means for ever.
const COPIED_ABOVE: Duration = Duration::from_secs(2);

/// Records that a source may have, however few reservations.
const PER_SOURCE: usize = 64;

/// What has become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is kept.
    New,
    /// The last relay that vouched for it takes it back: what is kept of it ends within [`TAKEN_BACK`].
    TakenBack,
}

/// Why a record is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// A newer one is kept, or the same.
    Old,
    /// There is no room, in all or for its source.
    Full,
}

/// Where the peer of a record that is offered stands.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// Whether the peer holds a reservation here.
    pub(crate) holds: bool,
    /// From where it holds it.
    pub(crate) source: Option<Source>,
    /// The relays that vouch for the record, of those that are known.
    pub(crate) vouchers: Vec<PeerId>,
}

/// Who takes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    /// A source from which peers register here: for IPv6 the largest network that it is part of.
    Own(Option<Network>),
    /// Another relay.
    Relay(PeerId),
}

#[derive(Debug)]
struct Entry {
    record: Record,
    owner: Owner,
    source: Option<Source>,
    vouchers: Vec<PeerId>,
    /// Whether the peer holds a reservation here.
    held: bool,
    /// When this relay no longer vouches for it.
    lingers: Option<Instant>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Records {
    local: PeerId,
    limit: usize,
    /// What this relay and each of the others may have when there is no room.
    share: usize,
    per_source: PerSource,
    kept: HashMap<PeerId, Entry>,
    of_owner: HashMap<Owner, usize>,
    of_network: HashMap<Network, usize>,
    lingering: BTreeSet<(Instant, PeerId)>,
    /// Those that this relay has taken back, for other relays to know, and since when.
    taken_back: HashMap<PeerId, (Record, Instant)>,
}

impl Records {
    /// Without records; keeps at most `limit`, of `others` and of this relay, whose sources may have so many reservations.
    pub(crate) fn new(local: PeerId, limit: usize, others: usize, reservations: PerSource) -> Self {
        let least = |limit| if limit == 0 { 0 } else { PER_SOURCE.max(limit) };
        Self {
            local,
            limit,
            share: limit / (others + 1),
            per_source: PerSource {
                ip4: least(reservations.ip4),
                ip6_net: least(reservations.ip6_net),
            },
            kept: HashMap::new(),
            of_owner: HashMap::new(),
            of_network: HashMap::new(),
            lingering: BTreeSet::new(),
            taken_back: HashMap::new(),
        }
    }

    /// How many there are, with those that have expired since the last [`Self::expire`].
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is no room for a record of `peer`, unless another one gives way.
    pub(crate) fn is_full_for(&self, peer: &PeerId) -> bool {
        self.kept.len() >= self.limit && !self.kept.contains_key(peer)
    }

    /// The peers whose records are kept.
    pub(crate) fn peers(&self) -> BTreeSet<PeerId> {
        self.kept.keys().copied().collect()
    }

    /// The record of a peer, if one is kept that has not expired.
    pub(crate) fn of(&self, peer: &PeerId, now: Instant) -> Option<&Record> {
        let entry = self.kept.get(peer)?;
        Some(&entry.record).filter(|record| now < record.expires)
    }

    /// Keeps a record until it expires or a newer one comes. Whether it is a peer's to offer is for the caller to judge. Returns the
    /// peer whose record gave way, if one did.
    pub(crate) fn keep(
        &mut self,
        offer: Offer,
        standing: Standing,
        now: Instant,
    ) -> Result<(Kept, Option<PeerId>), NotKept> {
        let (peer, source) = (offer.registration.peer, offer.source);
        let taken_back = self.taken_back.get(&peer).map(|(record, _)| record);
        match judge(&offer, self.of(&peer, now), taken_back, now) {
            Verdict::Old => return Err(NotKept::Old),
            Verdict::TakesBack => return self.doubted(&peer, &source, offer.expires),
            Verdict::Keep => {}
        }
        let (owner, from) = match source == peer || standing.holds {
            true => {
                let network = standing.source.and_then(|source| source.networks().last());
                (Owner::Own(network), standing.source)
            }
            false => (Owner::Relay(source), None),
        };
        let gives_way = self.make_room(&peer, owner, from, standing.holds)?;
        self.taken_back.remove(&peer);
        self.remove(&peer);
        let mut vouchers = standing.vouchers;
        if standing.holds && !vouchers.contains(&self.local) {
            vouchers.push(self.local);
        }
        if vouchers.is_empty() {
            vouchers.push(if source == peer { self.local } else { source });
        }
        *self.of_owner.entry(owner).or_default() += 1;
        increment_networks(&mut self.of_network, from);
        self.kept.insert(
            peer,
            Entry {
                record: offer.into(),
                owner,
                source: from,
                vouchers,
                held: standing.holds,
                lingers: None,
            },
        );
        if !standing.holds {
            self.linger(&peer, now);
        }
        Ok((Kept::New, gives_way))
    }

    /// A relay vouches for the record of `peer` no longer.
    fn doubted(
        &mut self,
        peer: &PeerId,
        relay: &PeerId,
        expires: Instant,
    ) -> Result<(Kept, Option<PeerId>), NotKept> {
        let entry = self.kept.get_mut(peer).ok_or(NotKept::Old)?;
        let before = entry.vouchers.len();
        entry.vouchers.retain(|voucher| voucher != relay);
        if entry.vouchers.len() == before || !entry.vouchers.is_empty() {
            return Err(NotKept::Old);
        }
        entry.record.expires = expires;
        Ok((Kept::TakenBack, None))
    }

    /// Finds room for a record of `peer`: none is needed, or another one gives way.
    fn make_room(
        &mut self,
        peer: &PeerId,
        owner: Owner,
        from: Option<Source>,
        holds: bool,
    ) -> Result<Option<PeerId>, NotKept> {
        let replaced = self.kept.get(peer);
        if replaced.is_some_and(|entry| entry.owner == owner && entry.source == from) {
            return Ok(None);
        }
        if from.is_some_and(|source| !networks_admit(self.per_source, source, &self.of_network)) {
            return Err(NotKept::Full);
        }
        if !self.is_full_for(peer) {
            return Ok(None);
        }
        let gives_way = self.gives_way(owner, holds).ok_or(NotKept::Full)?;
        self.remove(&gives_way);
        Ok(Some(gives_way))
    }

    /// Whose record gives way to one of `owner`, whose peer `holds` a reservation here or does not.
    fn gives_way(&self, owner: Owner, holds: bool) -> Option<PeerId> {
        let is_own = matches!(owner, Owner::Own(_));
        if is_own && holds {
            // The one that has lingered longest.
            let mut lingering = self.lingering.iter().map(|(_, peer)| *peer);
            let left = lingering.find(|peer| matches!(self.kept[peer].owner, Owner::Own(_)));
            if left.is_some() {
                return left;
            }
        }
        let relays = |(other, held): (&Owner, &usize)| match other {
            Owner::Own(_) => None,
            Owner::Relay(_) => Some((*held, *other)),
        };
        let of_relays: usize = self
            .of_owner
            .iter()
            .filter_map(relays)
            .map(|(held, _)| held)
            .sum();
        let own = self.kept.len() - of_relays;
        let group = if is_own { own } else { self.held(&owner) };
        let most = if group >= self.share {
            let source = self.most_of_own().filter(|_| is_own);
            source.filter(|(held, _)| *held > self.held(&owner) + 1)
        } else if own > self.share {
            self.most_of_own()
        } else {
            let most = self
                .of_owner
                .iter()
                .filter_map(relays)
                .max_by_key(|(held, _)| *held);
            most.filter(|(held, _)| *held > self.share)
        };
        let (_, most) = most?;
        let of_most = || self.kept.iter().filter(|(_, entry)| entry.owner == most);
        let unheld = of_most().find(|(_, entry)| !entry.held);
        let any = || of_most().next().filter(|_| holds || !is_own);
        unheld.or_else(any).map(|(peer, _)| *peer)
    }

    /// The source that has the most records, and how many.
    fn most_of_own(&self) -> Option<(usize, Owner)> {
        let own = self
            .of_owner
            .iter()
            .filter(|(owner, _)| matches!(owner, Owner::Own(_)));
        own.map(|(owner, held)| (*held, *owner))
            .max_by_key(|(held, _)| *held)
    }

    fn held(&self, owner: &Owner) -> usize {
        self.of_owner.get(owner).copied().unwrap_or_default()
    }

    fn remove(&mut self, peer: &PeerId) -> Option<Record> {
        let entry = self.kept.remove(peer)?;
        decrement(&mut self.of_owner, entry.owner);
        decrement_networks(&mut self.of_network, entry.source);
        if let Some(lingers) = entry.lingers {
            self.lingering.remove(&(lingers, *peer));
        }
        Some(entry.record)
    }

    /// The peer holds a reservation here: this relay vouches for its record.
    pub(crate) fn reserved(&mut self, peer: &PeerId) {
        let Some(entry) = self.kept.get_mut(peer) else {
            return;
        };
        entry.held = true;
        if let Some(lingers) = entry.lingers.take() {
            self.lingering.remove(&(lingers, *peer));
        }
        if !entry.vouchers.contains(&self.local) {
            entry.vouchers.push(self.local);
            self.taken_back.remove(peer);
        }
    }

    /// The last reservation of the peer here has ended.
    pub(crate) fn released(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.kept.get_mut(peer) {
            entry.held = false;
        }
        self.linger(peer, now);
    }

    fn linger(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.kept.get_mut(peer)
            && entry.vouchers.contains(&self.local)
            && entry.lingers.is_none()
        {
            entry.lingers = Some(now + LINGER);
            self.lingering.insert((now + LINGER, *peer));
        }
    }

    /// When this relay next takes back a record whose peer has left.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.lingering.first().map(|(lingers, _)| *lingers)
    }

    /// Takes back a record whose peer has left, if one is due: its peer, and whether nothing of it is kept.
    pub(crate) fn poll_left(&mut self, now: Instant) -> Option<(PeerId, bool)> {
        let (_, peer) = *self
            .lingering
            .first()
            .filter(|(lingers, _)| *lingers <= now)?;
        self.lingering.pop_first();
        let entry = self.kept.get_mut(&peer)?;
        entry.lingers = None;
        entry.vouchers.retain(|voucher| *voucher != self.local);
        let (record, ends) = (entry.record.clone(), entry.vouchers.is_empty());
        if ends {
            self.remove(&peer);
        }
        self.taken_back.insert(peer, (record, now));
        Some((peer, ends))
    }

    /// Drops the record of a peer that may not be called here any more. Whether one was kept; then [`Self::copy`] takes it back
    /// from another relay.
    pub(crate) fn take_back(&mut self, peer: &PeerId, now: Instant) -> bool {
        let Some(record) = self.remove(peer).filter(|record| now < record.expires) else {
            return false;
        };
        self.taken_back.insert(*peer, (record, now));
        true
    }

    /// Drops what has expired: the peers of it.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<PeerId> {
        self.taken_back
            .retain(|_, (record, since)| now < record.expires && now < *since + TAKEN_BACK_FOR);
        let expired = self
            .kept
            .iter()
            .filter(|(_, entry)| entry.record.expires <= now);
        let expired: Vec<PeerId> = expired.map(|(peer, _)| *peer).collect();
        for peer in &expired {
            self.remove(peer);
        }
        expired
    }

    /// What another relay gets of the record of `peer`; with little time left if this relay has taken it back.
    pub(crate) fn copy(&self, peer: &PeerId, now: Instant) -> Option<Record> {
        let record = match (self.taken_back.get(peer), self.of(peer, now)) {
            (Some((record, _)), _) => Record {
                expires: record.expires.min(now + TAKEN_BACK),
                ..record.clone()
            },
            (None, Some(record)) => record.clone(),
            (None, None) => return None,
        };
        (now + COPIED_ABOVE < record.expires).then_some(record)
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
