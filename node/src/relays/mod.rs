//! Which relays to be connected to, and which to hold a reservation on, and when to try again.
//!
//! Pure: no IO, no clock, no randomness; the time and a jitter between 0 and 1 are arguments. One *leg* is one address of
//! one relay, in one IP family. All legs are kept connected: a mapping that a relay observes is good for the transport and
//! family of that connection only, so every transport and family that is to be punched needs a leg of its own. A relay that
//! holds a reservation holds one in each family, so that whoever calls over it meets us in the family in which it came.

mod leg;

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, core::transport::ListenerId, swarm::ConnectionId};
use p2pnode_bin_shared::backoff::backoff;
use p2pnode_transports::{Family, FamilyPolicy};

use crate::config::RelayAddr;

use leg::{Join, Leg, State};

/// First wait after a relay refused a reservation.
const RESERVE_BACKOFF_MIN: Duration = Duration::from_millis(500);

/// Longest wait between two requests for a reservation: a relay that says no is not asked often.
const RESERVE_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// First wait after a relay did not admit this node.
const REFUSED_BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The longest one: the relay is spared, and a token that is put right there and not here is noticed within it.
const REFUSED_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What the event loop is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial this leg and tell the connection's id with [`RelayKeeper::dialing`].
    Dial {
        /// Number of the leg.
        leg: usize,
        /// Where it leads.
        relay: RelayAddr,
    },
    /// Ask for a reservation and tell the listener's id with [`RelayKeeper::requested`].
    Reserve {
        /// The relay, at an address that is connected.
        relay: RelayAddr,
    },
}

/// A reservation that ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// The relay that it was on or was asked of.
    pub relay: PeerId,
    /// Whether it was held; else the request for it failed.
    pub was_held: bool,
    /// Whether the relay holds one still, in the other family.
    pub is_held: bool,
}

/// A leg that could not be dialed.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Where it leads.
    pub relay: RelayAddr,
    /// How often in a row.
    pub failures: u32,
    /// Whether somebody has to know. A name that leads nowhere in one family is no news as long as it leads somewhere in the
    /// other.
    pub is_news: bool,
}

/// A leg that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Up<'a> {
    /// The relay's address.
    pub addr: &'a Multiaddr,
    /// Its family.
    pub family: Family,
    /// The connection.
    pub connection: ConnectionId,
    /// Whether the relay has told who it is.
    pub is_ready: bool,
}

/// The legs and reservations of all configured relays.
#[derive(Debug)]
pub struct RelayKeeper {
    /// On how many relays to hold reservations at once.
    wanted: usize,
    /// As configured.
    relays: Vec<PeerId>,
    legs: Vec<Leg>,
    slots: Vec<Slot>,
    /// Relays that end: what they hold for us is kept while it lasts, and a reservation on another one is asked for at once.
    draining: HashSet<PeerId>,
    /// Relays that do not admit this node, and their words.
    refused: BTreeMap<PeerId, String>,
}

/// The reservation on a relay in one family.
#[derive(Debug)]
struct Slot {
    peer: PeerId,
    family: Family,
    reservation: Reservation,
    /// Requests in a row that failed.
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Reservation {
    None { retry_at: Instant },
    Requested(Option<ListenerId>),
    Held(ListenerId),
}

impl RelayKeeper {
    /// A keeper of reservations on `wanted` of `relays`, none of them connected yet, over legs of the families that `policy`
    /// allows.
    pub fn new(relays: &[RelayAddr], wanted: usize, policy: FamilyPolicy, now: Instant) -> Self {
        let mut keeper = Self {
            wanted,
            relays: Vec::new(),
            legs: Vec::new(),
            slots: Vec::new(),
            draining: HashSet::new(),
            refused: BTreeMap::new(),
        };
        for relay in relays {
            let peer = relay.peer;
            if !keeper.relays.contains(&peer) {
                keeper.relays.push(peer);
            }
            for leg in Leg::of(relay, policy, now) {
                let family = leg.family;
                let mut slots = keeper.slots.iter();
                if !slots.any(|slot| (slot.peer, slot.family) == (peer, family)) {
                    keeper.slots.push(Slot {
                        peer,
                        family,
                        reservation: Reservation::None { retry_at: now },
                        failures: 0,
                    });
                }
                keeper.legs.push(leg);
            }
        }
        let order = |peer: &PeerId, family| {
            let relay = keeper.relays.iter().position(|relay| relay == peer);
            (relay, policy.rank(family))
        };
        let (legs, slots) = (&mut keeper.legs, &mut keeper.slots);
        legs.sort_by_key(|leg| order(&leg.relay.peer, leg.family));
        slots.sort_by_key(|slot| order(&slot.peer, slot.family));
        keeper
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        for (number, leg) in self.legs.iter_mut().enumerate() {
            if matches!(leg.state, State::Down { retry_at } if retry_at <= now) {
                leg.state = State::Dialing(None);
                return Some(Action::Dial {
                    leg: number,
                    relay: leg.relay.clone(),
                });
            }
        }
        let due = |slot: &&Slot| matches!(slot.reservation, Reservation::None { retry_at } if retry_at <= now);
        let (number, relay) = self.slots.iter().enumerate().find_map(|(number, slot)| {
            let leg = Some(slot).filter(due).and_then(|slot| self.leg_for(slot))?;
            Some((number, leg.relay.clone()))
        })?;
        self.slots.get_mut(number)?.reservation = Reservation::Requested(None);
        Some(Action::Reserve { relay })
    }

    /// The leg over which this slot's reservation can be asked for, if that is wanted.
    fn leg_for(&self, slot: &Slot) -> Option<&Leg> {
        let lasts = |relay: &&PeerId| self.is_taken(relay) && !self.draining.contains(*relay);
        let is_wanted = !self.draining.contains(&slot.peer)
            && (self.is_taken(&slot.peer)
                || self.relays.iter().filter(lasts).count() < self.wanted);
        let mut legs = self.legs.iter().filter(|_| is_wanted);
        legs.find(|leg| (leg.relay.peer, leg.family) == (slot.peer, slot.family) && leg.is_ready())
    }

    /// Whether a reservation is held on this relay or asked of it.
    fn is_taken(&self, relay: &PeerId) -> bool {
        self.slots_of(relay)
            .any(|slot| !matches!(slot.reservation, Reservation::None { .. }))
    }

    fn slots_of<'a>(&'a self, relay: &'a PeerId) -> impl Iterator<Item = &'a Slot> {
        self.slots.iter().filter(move |slot| slot.peer == *relay)
    }

    /// When [`RelayKeeper::poll`] may have something to do, if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let legs = self.legs.iter().filter_map(|leg| match leg.state {
            State::Down { retry_at } => Some(retry_at),
            State::Dialing(_) | State::Up { .. } => None,
        });
        let reservations = self
            .slots
            .iter()
            .filter(|slot| self.leg_for(slot).is_some())
            .filter_map(|slot| match slot.reservation {
                Reservation::None { retry_at } => Some(retry_at),
                Reservation::Requested(_) | Reservation::Held(_) => None,
            });
        legs.chain(reservations).min()
    }

    /// The leg is being dialed under this connection id.
    pub fn dialing(&mut self, leg: usize, connection: ConnectionId) {
        if let Some(leg) = self.legs.get_mut(leg) {
            leg.state = State::Dialing(Some(connection));
        }
    }

    /// The request for a reservation runs under this listener id.
    pub fn requested(&mut self, relay: &RelayAddr, listener: ListenerId) {
        let family = self.legs.iter().find(|leg| leg.relay == *relay);
        if let Some(family) = family.map(|leg| leg.family)
            && let Some(slot) = self.slot(&relay.peer, family)
        {
            slot.reservation = Reservation::Requested(Some(listener));
        }
    }

    fn slot(&mut self, relay: &PeerId, family: Family) -> Option<&mut Slot> {
        let mut slots = self.slots.iter_mut();
        slots.find(|slot| (slot.peer, slot.family) == (*relay, family))
    }

    /// A connection was established. Returns the leg's relay if it is one of ours.
    pub fn handle_established(&mut self, connection: ConnectionId) -> Option<PeerId> {
        let leg = self
            .legs
            .iter_mut()
            .find(|leg| leg.state == State::Dialing(Some(connection)))?;
        leg.state = State::Up {
            connection,
            identified: false,
            join: Join::Done,
        };
        leg.failures = 0;
        let peer = leg.relay.peer;
        // It is another run of the relay; one that still drains says so again.
        self.draining.remove(&peer);
        Some(peer)
    }

    /// The relay is asked on this connection whether it admits this node; until it has answered, no reservation is asked of it
    /// there, and no circuit if this node has a token for it.
    pub fn await_join(&mut self, connection: ConnectionId, has_token: bool) {
        if let Some(State::Up { join, .. }) = self.leg_over(connection).map(|leg| &mut leg.state) {
            *join = Join::Awaited { has_token };
        }
    }

    /// The relay admits this node, or asks nobody who he is.
    pub fn handle_joined(&mut self, connection: ConnectionId, now: Instant) {
        let Some(leg) = self.leg_over(connection) else {
            return;
        };
        leg.refusals = 0;
        if let State::Up { join, .. } = &mut leg.state {
            *join = Join::Done;
        }
        let peer = leg.relay.peer;
        self.refused.remove(&peer);
        self.retry_refused(&peer, now);
    }

    /// The relay does not admit this node, in these words. Whether that is news.
    pub fn handle_refused(
        &mut self,
        relay: PeerId,
        connection: ConnectionId,
        words: &str,
        now: Instant,
        jitter: f64,
    ) -> bool {
        if let Some(leg) = self.leg_over(connection) {
            leg.state = State::Down {
                retry_at: now
                    + backoff(
                        REFUSED_BACKOFF_MIN,
                        REFUSED_BACKOFF_MAX,
                        leg.refusals,
                        jitter,
                    ),
            };
            leg.refusals = leg.refusals.saturating_add(1);
        }
        self.refused.insert(relay, words.to_owned()).as_deref() != Some(words)
    }

    /// Something has changed, so that the relay may admit this node now: legs on which it did not are dialed at once.
    pub fn retry_refused(&mut self, relay: &PeerId, now: Instant) {
        let legs = self.legs.iter_mut();
        for leg in legs.filter(|leg| leg.relay.peer == *relay && leg.refusals > 0) {
            if let State::Down { retry_at } = &mut leg.state {
                *retry_at = now;
            }
        }
    }

    /// Why this relay does not admit this node, if it does not.
    pub fn refusal(&self, relay: &PeerId) -> Option<&str> {
        self.refused.get(relay).map(String::as_str)
    }

    fn leg_over(&mut self, connection: ConnectionId) -> Option<&mut Leg> {
        let mut legs = self.legs.iter_mut();
        legs.find(|leg| leg.connection() == Some(connection))
    }

    /// The peer of this connection says that it ends, and grants nothing any more. Returns whether it is one of our relays, and
    /// had not said so before.
    pub fn handle_draining(&mut self, connection: ConnectionId) -> bool {
        let mut legs = self.legs.iter();
        let leg = legs.find(|leg| leg.connection() == Some(connection));
        leg.is_some_and(|leg| self.draining.insert(leg.relay.peer))
    }

    /// The relay told who it is on this connection: reservations may be asked for.
    pub fn handle_identified(&mut self, connection: ConnectionId, now: Instant) -> Option<PeerId> {
        let leg = self
            .legs
            .iter_mut()
            .find(|leg| leg.connection() == Some(connection))?;
        if let State::Up { identified, .. } = &mut leg.state {
            *identified = true;
        }
        let (peer, family) = (leg.relay.peer, leg.family);
        // A fresh connection is a fresh start: the relay may have been restarted or reconfigured.
        if let Some(slot) = self.slot(&peer, family)
            && let Reservation::None { retry_at } = &mut slot.reservation
        {
            *retry_at = now;
            slot.failures = 0;
        }
        Some(peer)
    }

    /// A dial failed. Returns the leg, if the dial was one of ours.
    pub fn handle_dial_failed(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        jitter: f64,
    ) -> Option<Unreachable> {
        let number = self
            .legs
            .iter()
            .position(|leg| leg.state == State::Dialing(Some(connection)))?;
        let leg = self.legs.get_mut(number)?;
        leg.failures = leg.failures.saturating_add(1);
        self.down(number, now, jitter);
        let leg = self.legs.get(number)?;
        let mut twins = self
            .legs
            .iter()
            .filter(|other| leg.is_twin && other.is_twin && other.relay.peer == leg.relay.peer);
        Some(Unreachable {
            relay: leg.relay.clone(),
            failures: leg.failures,
            is_news: leg.failures == 1 && twins.all(|twin| twin.failures > 0),
        })
    }

    /// A connection was closed. Returns the leg's address if it is one of ours.
    pub fn handle_closed(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        jitter: f64,
    ) -> Option<RelayAddr> {
        let number = self
            .legs
            .iter()
            .position(|leg| leg.connection() == Some(connection))?;
        self.down(number, now, jitter);
        self.legs.get(number).map(|leg| leg.relay.clone())
    }

    fn down(&mut self, number: usize, now: Instant, jitter: f64) {
        let Some(peer) = self.legs.get(number).map(|leg| leg.relay.peer) else {
            return;
        };
        let mut others = self.legs.iter().enumerate();
        let is_alone = !others.any(|(other, leg)| {
            other != number && leg.relay.peer == peer && leg.connection().is_some()
        });
        if let Some(leg) = self.legs.get_mut(number) {
            leg.down(is_alone, now, jitter);
        }
    }

    /// The relay accepted our reservation in this family, or renewed it. Returns whether it is the first on this relay.
    pub fn handle_reserved(&mut self, relay: &PeerId, family: Family) -> bool {
        let was_held = self.holds(relay);
        let Some(slot) = self.slot(relay, family) else {
            return false;
        };
        slot.failures = 0;
        if let Reservation::Requested(Some(listener)) = slot.reservation {
            slot.reservation = Reservation::Held(listener);
            return !was_held;
        }
        false
    }

    /// A listener ended: with it goes the reservation or the request for one.
    pub fn handle_listener_closed(
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
        let wait = backoff(
            RESERVE_BACKOFF_MIN,
            RESERVE_BACKOFF_MAX,
            slot.failures,
            jitter,
        );
        slot.reservation = Reservation::None {
            retry_at: now + wait,
        };
        let relay = slot.peer;
        Some(Lost {
            relay,
            was_held,
            is_held: self.holds(&relay),
        })
    }

    /// Whether circuits can be asked of this relay: it need not have told who it is. A dial that waits for that waits a round
    /// trip, in which the relay tells, by the time that it matters, how it sees this node.
    pub fn is_connected(&self, relay: &PeerId) -> bool {
        self.legs
            .iter()
            .any(|leg| leg.relay.peer == *relay && leg.takes_circuits())
    }

    /// Whether this relay is connected and has told who it is.
    pub fn is_ready(&self, relay: &PeerId) -> bool {
        self.legs
            .iter()
            .any(|leg| leg.relay.peer == *relay && leg.is_ready())
    }

    /// The relays, in the order configured.
    pub fn relays(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.relays.iter().copied()
    }

    /// The legs to this relay that are up, in the order of preference.
    pub fn up<'a>(&'a self, relay: &'a PeerId) -> impl Iterator<Item = Up<'a>> {
        let is_up = move |leg: &&Leg| leg.relay.peer == *relay && leg.takes_circuits();
        let legs = self.legs.iter().filter(is_up);
        legs.filter_map(|leg| {
            leg.connection().map(|connection| Up {
                addr: &leg.relay.addr,
                family: leg.family,
                connection,
                is_ready: leg.is_ready(),
            })
        })
    }

    /// Whether every leg of this relay has failed at least once and none is up.
    pub fn is_unreachable(&self, relay: &PeerId) -> bool {
        self.legs
            .iter()
            .filter(|leg| leg.relay.peer == *relay)
            .all(|leg| leg.failures > 0 && leg.connection().is_none())
    }

    /// Whether a reservation is held on this relay.
    pub fn holds(&self, relay: &PeerId) -> bool {
        self.families(relay).next().is_some()
    }

    /// The families in which a reservation is held on this relay.
    pub fn families<'a>(&'a self, relay: &'a PeerId) -> impl Iterator<Item = Family> {
        let held = |slot: &&Slot| matches!(slot.reservation, Reservation::Held(_));
        self.slots_of(relay).filter(held).map(|slot| slot.family)
    }

    /// How many reservations are to be held.
    pub const fn wanted(&self) -> usize {
        self.wanted
    }

    /// On how many relays a reservation is held.
    pub fn held(&self) -> usize {
        self.relays.iter().filter(|relay| self.holds(relay)).count()
    }
}

#[cfg(test)]
mod tests;
