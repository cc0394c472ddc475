//! The reservations: on which relays one is wanted, asked for, held.

use std::time::{Duration, Instant};

use libp2p::{PeerId, core::transport::ListenerId, swarm::ConnectionId};
use p2pnode_daemon::backoff::full_jitter;
use p2pnode_transports::Family;

use super::{
    RelayKeeper,
    leg::{Leg, RETRY_MAX},
    slot::{Reservation, Slot},
};
use crate::config::RelayAddr;

/// First wait after a relay refused a reservation.
pub(super) const RESERVE_BACKOFF_MIN: Duration = Duration::from_millis(500);

/// Longest wait between two requests for a reservation: a relay that refuses is not asked often.
pub(super) const RESERVE_BACKOFF_MAX: Duration = RETRY_MAX;

/// A reservation that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The relay that it was on or was asked of.
    pub relay: PeerId,
    /// The leg that carried it, if one did.
    pub leg: Option<ConnectionId>,
    /// Whether it was held; else the request for it failed.
    pub was_held: bool,
    /// Whether the relay holds one still, in the other family.
    pub is_held: bool,
    /// Requests in a row that failed.
    pub failures: u32,
}

/// What a reservation that a relay accepted is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// The first that the relay holds.
    First,
    /// One in another family, or a renewal.
    Further,
    /// On no relay of ours.
    NotOurs,
}

/// What is new in the shutdown notice of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// It is a relay of ours.
    Begun,
    /// It is a relay that has sent the notice before.
    Known,
    /// It is no relay of ours.
    NotOurs,
}

impl RelayKeeper {
    /// The leg over which this slot's reservation can be asked for, if that is wanted.
    pub(super) fn leg_for(&self, slot: &Slot) -> Option<&Leg> {
        let lasts = |relay: &&PeerId| {
            self.is_taken(relay) && !self.draining.contains(*relay) && !self.is_silent(relay)
        };
        let is_wanted = !self.draining.contains(&slot.peer)
            && (self.is_taken(&slot.peer)
                || self.relays.iter().filter(lasts).count() < self.wanted);
        let mut legs = self.legs.iter().filter(|_| is_wanted);
        legs.find(|leg| (leg.relay.peer, leg.family) == (slot.peer, slot.family) && leg.is_ready())
    }

    /// Whether each leg to this relay that is up has missed a ping.
    fn is_silent(&self, relay: &PeerId) -> bool {
        let legs = self.legs.iter().filter(|leg| leg.relay.peer == *relay);
        let mut up = legs.filter(|leg| leg.connection().is_some()).peekable();
        up.peek().is_some() && up.all(Leg::is_doubtful)
    }

    /// Whether a reservation is held on this relay or asked of it.
    pub(super) fn is_taken(&self, relay: &PeerId) -> bool {
        self.slots_of(relay)
            .any(|slot| !matches!(slot.reservation, Reservation::None { .. }))
    }

    pub(super) fn slots_of<'a>(&'a self, relay: &'a PeerId) -> impl Iterator<Item = &'a Slot> {
        self.slots.iter().filter(move |slot| slot.peer == *relay)
    }

    /// The request for a reservation runs under this listener id.
    pub(crate) fn handle_reserving(&mut self, relay: &RelayAddr, listener: ListenerId) {
        let family = self.legs.iter().find(|leg| leg.relay == *relay);
        let Some(family) = family.map(|leg| leg.family) else {
            return;
        };
        // libp2p's client takes the first connection of the family.
        let legs = self.legs.iter();
        let legs = legs.filter(|leg| (leg.relay.peer, leg.family) == (relay.peer, family));
        let first = legs
            .filter_map(Leg::up_since)
            .min_by_key(|(_, since)| *since);
        if let Some(slot) = self.slot(&relay.peer, family) {
            slot.reservation = Reservation::Requested(Some(listener));
            slot.leg = first.map(|(connection, _)| connection);
        }
    }

    pub(super) fn slot(&mut self, relay: &PeerId, family: Family) -> Option<&mut Slot> {
        let mut slots = self.slots.iter_mut();
        slots.find(|slot| (slot.peer, slot.family) == (*relay, family))
    }

    /// The peer of this connection announces its shutdown. It grants nothing from now on. Once its connections have ended, it is
    /// not dialed before `retry_after`.
    pub(crate) fn handle_draining(
        &mut self,
        connection: ConnectionId,
        retry_after: Option<Duration>,
    ) -> Drain {
        let mut legs = self.legs.iter();
        let Some(leg) = legs.find(|leg| leg.connection() == Some(connection)) else {
            return Drain::NotOurs;
        };
        let peer = leg.relay.peer;
        for leg in self.legs.iter_mut().filter(|leg| leg.relay.peer == peer) {
            leg.hold = retry_after;
        }
        match self.draining.insert(peer) {
            true => Drain::Begun,
            false => Drain::Known,
        }
    }

    /// Whether this relay has announced its shutdown.
    pub(crate) fn is_draining(&self, relay: &PeerId) -> bool {
        self.draining.contains(relay)
    }

    /// The relay accepted our reservation in this family, or renewed it.
    pub(crate) fn handle_reserved(&mut self, relay: &PeerId, family: Family) -> Reserved {
        let was_held = self.holds(relay);
        self.unreserved.remove(relay);
        let legs = self.legs.iter_mut();
        for leg in legs.filter(|leg| (leg.relay.peer, leg.family) == (*relay, family)) {
            leg.proved();
        }
        let Some(slot) = self.slot(relay, family) else {
            return Reserved::NotOurs;
        };
        slot.failures = 0;
        match slot.reservation {
            Reservation::Requested(Some(listener)) => {
                slot.reservation = Reservation::Held(listener);
                match was_held {
                    false => Reserved::First,
                    true => Reserved::Further,
                }
            }
            Reservation::None { .. } | Reservation::Requested(None) | Reservation::Held(_) => {
                Reserved::Further
            }
        }
    }

    /// A listener ended: with it goes the reservation or the request for one.
    pub(crate) fn handle_listener_closed(
        &mut self,
        listener: ListenerId,
        now: Instant,
        jitter: f64,
    ) -> Option<Lost> {
        let slot = self.slots.iter_mut().find(|slot| match slot.reservation {
            Reservation::Requested(id) => id == Some(listener),
            Reservation::Held(id) => id == listener,
            Reservation::None { .. } => false,
        })?;
        let was_held = matches!(slot.reservation, Reservation::Held(_));
        slot.failures = if was_held {
            0
        } else {
            slot.failures.saturating_add(1)
        };
        let wait = full_jitter(
            RESERVE_BACKOFF_MIN,
            RESERVE_BACKOFF_MAX,
            slot.failures,
            jitter,
        );
        slot.reservation = Reservation::None {
            retry_at: now + wait,
        };
        let (relay, failures, leg) = (slot.peer, slot.failures, slot.leg.take());
        Some(Lost {
            failures,
            relay,
            leg,
            was_held,
            is_held: self.holds(&relay),
        })
    }

    /// The last request for a reservation on this relay has failed, or the reservation has ended.
    pub(crate) fn handle_unreserved(&mut self, relay: PeerId, reason: &str) {
        self.unreserved.insert(relay, reason.to_owned());
    }

    /// Why this relay holds no reservation, as far as the last answer says.
    pub(crate) fn reservation_failure(&self, relay: &PeerId) -> Option<&str> {
        let failure = self.unreserved.get(relay).filter(|_| !self.holds(relay));
        failure.map(String::as_str)
    }

    /// Whether a reservation is held on this relay.
    pub(crate) fn holds(&self, relay: &PeerId) -> bool {
        self.families(relay).next().is_some()
    }

    /// The families in which a reservation is held on this relay.
    pub(crate) fn families<'a>(&'a self, relay: &'a PeerId) -> impl Iterator<Item = Family> {
        let held = |slot: &&Slot| matches!(slot.reservation, Reservation::Held(_));
        self.slots_of(relay).filter(held).map(|slot| slot.family)
    }

    /// How many reservations are to be held.
    pub(crate) const fn wanted(&self) -> usize {
        self.wanted
    }

    /// On how many relays a reservation is held.
    pub(crate) fn held(&self) -> usize {
        self.relays.iter().filter(|relay| self.holds(relay)).count()
    }
}
