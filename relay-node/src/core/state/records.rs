//! The directory: which records the relay keeps, and which it copies to other relays.

use std::time::Duration;

use libp2p::PeerId;
use p2pnode_protocol::directory::Offer;

use super::{Action, Delivery, Event, RecordOutcome, RelayState, Stored};
use crate::core::{
    clock::Now,
    records::{Kept, NotKept, Standing},
    replication::Copy,
    verdict::Record,
};

/// How often expired records are dropped. They are given to nobody meanwhile.
const SWEEP: Duration = Duration::from_secs(60);

/// How many records may wait for the reservation of their peer. It is known within moments, or never: the one that has waited longest
/// gives way.
const AWAITING: usize = 1024;

impl RelayState {
    /// Judges a record whose signature is valid.
    ///
    /// A peer may register only itself, and only while it has a reservation. So its own records never outnumber the reservations. The
    /// relay that sent a copy has judged the record already.
    pub fn handle_record(&mut self, offer: Offer, now: Now) {
        let (source, peer) = (offer.source, offer.registration.peer);
        let outcome = self.judge_record(offer, now);
        self.events.push_back(Event::Record {
            source,
            peer,
            outcome,
        });
        self.settle_replication(now);
    }

    fn judge_record(&mut self, offer: Offer, now: Now) -> RecordOutcome {
        let (source, peer) = (offer.source, offer.registration.peer);
        let withdraws = offer.registration.is_withdrawal();
        // The stream over which it came may be older than the end of the peer's admission.
        if self.admission.admitted(&source, now.wall).is_err() {
            return RecordOutcome::NotAdmitted;
        }
        let is_its_own = source == peer;
        if is_its_own && !self.policy.holds(&peer) && self.records.of(&peer, now.instant).is_none()
        {
            self.await_reservation(peer, offer, now);
            return RecordOutcome::Waiting;
        } else if !is_its_own && !self.peer_relays.contains(&source) {
            return RecordOutcome::NoReservation;
        }
        if self.records.is_full_for(&peer) {
            self.drop_expired_records(now);
        }
        let standing = self.standing(&offer);
        let stored = Stored {
            peer,
            value: offer.value.clone(),
            expires: offer.expires,
        };
        match self.records.keep(offer, standing, now.instant) {
            Err(NotKept::Old) => RecordOutcome::Old,
            Err(NotKept::Full) => RecordOutcome::Full,
            Ok((kept, gave_way)) => {
                let gave_way = gave_way.map(Action::RemoveRecord);
                self.actions.extend(gave_way);
                self.actions.push_back(Action::StoreRecord(stored));
                self.replicate(peer, Some(source));
                match kept {
                    Kept::TakenBack => RecordOutcome::TakenBack,
                    Kept::New => RecordOutcome::Kept { withdraws },
                }
            }
        }
    }

    fn standing(&self, offer: &Offer) -> Standing {
        let place = self.policy.newest_place(&offer.registration.peer);
        let source = place.and_then(|place| self.policy.source_of(place));
        let is_known = |relay: &PeerId| *relay == self.local || self.peer_relays.contains(relay);
        Standing {
            holds: place.is_some(),
            source,
            vouchers: offer.registration.relays().filter(is_known).collect(),
        }
    }

    fn await_reservation(&mut self, peer: PeerId, offer: Offer, now: Now) {
        let awaiting = &mut self.records_awaiting_reservation;
        if awaiting.len() >= AWAITING && !awaiting.contains_key(&peer) {
            let longest = awaiting.iter().min_by_key(|(_, (since, _))| *since);
            if let Some(longest) = longest.map(|(peer, _)| *peer) {
                awaiting.remove(&longest);
            }
        }
        awaiting.insert(peer, (now.instant, offer));
    }

    /// Has the record of `peer` copied to every relay that is connected, but not to the one that it came from.
    fn replicate(&mut self, peer: PeerId, source: Option<PeerId>) {
        let relays = self.peer_relays.connected();
        for relay in relays.filter(|relay| Some(*relay) != source) {
            self.replication.add(relay, [peer]);
        }
    }

    /// Takes back the records of peers that hold no reservation here any more.
    pub(super) fn take_back_left(&mut self, now: Now) {
        while let Some((peer, ends)) = self.records.poll_left(now.instant) {
            if ends {
                self.actions.push_back(Action::RemoveRecord(peer));
            }
            self.replicate(peer, None);
            self.events.push_back(Event::RecordTakenBack(peer));
        }
    }

    /// A copy of a record was sent to another relay, and did or did not arrive.
    /// One that did not arrive is sent again later.
    pub fn handle_record_copied(
        &mut self,
        relay: PeerId,
        peer: PeerId,
        delivery: Delivery,
        now: Now,
    ) {
        match delivery {
            Delivery::Delivered => self.replication.handle_copied(relay),
            Delivery::Failed => {
                let connected = self.peer_relays.connected().any(|open| open == relay);
                let copy = Copy { peer, relay };
                self.replication.handle_failed(copy, connected, now.instant);
            }
        }
        self.events
            .push_back(Event::RecordCopied { relay, delivery });
        self.settle_replication(now);
    }

    /// The peer is not admitted any more, and still holds what it was granted. Nobody can call it here from now on, so nobody is to
    /// find it by what it has registered here; the other relays keep what leads elsewhere as well, which is theirs to judge.
    pub(super) fn take_back_record(&mut self, peer: PeerId, now: Now) {
        self.records_awaiting_reservation.remove(&peer);
        if !self.policy.holds(&peer) || !self.records.take_back(&peer, now.instant) {
            return;
        }
        self.actions.push_back(Action::RemoveRecord(peer));
        self.replicate(peer, None);
        self.events.push_back(Event::RecordTakenBack(peer));
        self.settle_replication(now);
    }

    pub(super) fn sweep_records(&mut self, now: Now) {
        if self.next_sweep <= now.instant {
            self.next_sweep = now.instant + SWEEP;
            self.drop_expired_records(now);
        }
    }

    fn drop_expired_records(&mut self, now: Now) {
        let expired = self.records.expire(now.instant);
        self.actions
            .extend(expired.into_iter().map(Action::RemoveRecord));
    }

    /// Copies what is to be copied, as far as there is room on the way.
    pub(super) fn settle_replication(&mut self, now: Now) {
        while let Some(copy) = self.replication.poll_action() {
            let Some(record) = self.records.copy(&copy.peer, now.instant) else {
                self.replication.handle_copied(copy.relay);
                continue;
            };
            let Record { value, expires, .. } = record;
            self.actions.push_back(Action::CopyRecord {
                relay: copy.relay,
                record: Stored {
                    peer: copy.peer,
                    value,
                    expires,
                },
            });
        }
    }
}
