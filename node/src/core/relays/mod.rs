//! Which relays to connect to, which to hold a reservation on, and when to try again.
//!
//! Pure: no IO, no clock, no randomness; the time and a jitter between 0 and 1 are arguments. One *leg* is one address of one
//! relay, in one IP family. All legs are kept connected. A mapping that a relay observes is valid for the transport and family of
//! that connection only. So every transport and family that is to be punched needs a leg of its own. A relay that holds a
//! reservation holds one in each family. So a dialer over the relay reaches this node in the dialer's own family.

mod admission;
mod doubts;
mod leg;
mod reservations;
mod seconds;
mod slot;
mod trouble;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_daemon::limiter::{Limiter, Measure};
use p2pnode_transports::{Family, FamilyPolicy};

use crate::config::RelayAddr;

use leg::{Doubt, Join, Leg, State};
use slot::{Reservation, Slot};

pub(crate) use leg::Opened;
pub(crate) use reservations::{Drain, Lost, Reserved};

/// How often something from outside may make waiting legs be dialed at once: a user's dials in a loop are no flood.
const HINTS: Measure = Measure {
    burst: 4,
    period: Duration::from_secs(15),
};

/// How long the first leg to a relay waits for one of the preferred family, which is dialed at the same time: as long as its own
/// dial took, within these bounds. On a far or busy path the two are further apart.
const FAMILY_HEAD_START: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(1));

/// What the node is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Dial this leg; [`RelayKeeper::handle_dialing`] takes the connection's id.
    Dial {
        /// Number of the leg.
        leg: usize,
        /// Where it leads.
        relay: RelayAddr,
    },
    /// Ask for a reservation; [`RelayKeeper::handle_reserving`] takes the listener's id.
    Reserve {
        /// The relay, at an address that is connected.
        relay: RelayAddr,
    },
}

/// A leg that could not be dialed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreachable {
    /// Where it leads.
    pub relay: RelayAddr,
    /// How often in a row.
    pub failures: u32,
    /// Whether the loss is to be reported. A name may lead nowhere in one family; that is no news as long as it leads somewhere
    /// in the other.
    pub is_news: bool,
}

/// A leg that was up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LostLeg {
    /// Where it led.
    pub relay: RelayAddr,
    /// How often in a row the connection ended soon and without a reservation.
    pub vain: u32,
}

/// A leg that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Up<'a> {
    /// The relay's address.
    pub addr: &'a Multiaddr,
    /// Its family.
    pub family: Family,
    /// The connection.
    pub connection: ConnectionId,
    /// Whether the relay has identified itself.
    pub is_ready: bool,
}

/// The legs and reservations of all configured relays.
#[derive(Debug)]
pub(crate) struct RelayKeeper {
    /// On how many relays to hold reservations at once.
    wanted: usize,
    /// As configured.
    relays: Vec<PeerId>,
    legs: Vec<Leg>,
    slots: Vec<Slot>,
    /// Relays that end: what they hold for us is kept while it lasts, and a reservation on another one is asked for at once.
    draining: BTreeSet<PeerId>,
    /// Relays that do not admit this node, and their words.
    refused: BTreeMap<PeerId, String>,
    /// Why the last request for a reservation failed.
    unreserved: BTreeMap<PeerId, String>,
    hints: Limiter<()>,
    policy: FamilyPolicy,
    /// Relays over which circuits wait for a leg of the preferred family, and until when.
    holds: BTreeMap<PeerId, Instant>,
    actions: VecDeque<Action>,
}

impl RelayKeeper {
    /// A keeper of reservations on `wanted` of `relays`, none of them connected yet, over legs of the families that `policy`
    /// allows.
    pub(crate) fn new(
        relays: &[RelayAddr],
        wanted: usize,
        policy: FamilyPolicy,
        now: Instant,
    ) -> Self {
        let mut keeper = Self {
            wanted,
            relays: Vec::new(),
            legs: Vec::new(),
            slots: Vec::new(),
            draining: BTreeSet::new(),
            refused: BTreeMap::new(),
            unreserved: BTreeMap::new(),
            hints: Limiter::new(HINTS),
            policy,
            holds: BTreeMap::new(),
            actions: VecDeque::new(),
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
                    keeper.slots.push(Slot::new(peer, family, now));
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
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Has the legs dialed and the reservations asked for whose turn it is.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.holds.retain(|_, until| now < *until);
        while let Some(action) = self.due(now) {
            self.actions.push_back(action);
        }
    }

    fn due(&mut self, now: Instant) -> Option<Action> {
        for (number, leg) in self.legs.iter_mut().enumerate() {
            if matches!(leg.state, State::Down { retry_at } if retry_at <= now) {
                leg.state = State::Dialing(None);
                leg.dialed_at = now;
                return Some(Action::Dial {
                    leg: number,
                    relay: leg.relay.clone(),
                });
            }
            if leg.doubt == Doubt::Begun {
                leg.doubt = Doubt::Dialing {
                    connection: None,
                    is_over: false,
                };
                leg.dialed_at = now;
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

    /// When [`RelayKeeper::handle_timeout`] may have something to do, if nothing else happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
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
        let holds = self.holds.values().copied();
        legs.chain(reservations).chain(holds).min()
    }

    /// The leg is being dialed under this connection id.
    pub(crate) fn handle_dialing(&mut self, leg: usize, connection: ConnectionId) {
        let Some(leg) = self.legs.get_mut(leg) else {
            return;
        };
        match &mut leg.doubt {
            Doubt::Dialing {
                connection: spare @ None,
                ..
            } => *spare = Some(connection),
            Doubt::None | Doubt::Begun | Doubt::Dialing { .. } | Doubt::Failed => {
                leg.state = State::Dialing(Some(connection));
            }
        }
    }

    /// A connection was established.
    pub(crate) fn handle_established(&mut self, connection: ConnectionId, now: Instant) -> Opened {
        let is_spare = |leg: &Leg| matches!(leg.doubt, Doubt::Dialing { connection: spare, .. } if spare == Some(connection));
        let mut legs = self.legs.iter_mut();
        let Some(leg) =
            legs.find(|leg| leg.state == State::Dialing(Some(connection)) || is_spare(leg))
        else {
            return Opened::NotOurs;
        };
        let opened = match (leg.doubt, leg.connection()) {
            (Doubt::Dialing { is_over: true, .. }, _) => {
                leg.doubt = Doubt::None;
                return Opened::Surplus;
            }
            (Doubt::Dialing { .. }, Some(old)) => {
                leg.replaced = Some(old);
                Opened::Replaces(old)
            }
            (_, _) => Opened::Leg,
        };
        leg.doubt = Doubt::None;
        leg.state = State::Up {
            connection,
            since: now,
            has_proved: false,
            identified: false,
            join: Join::Done,
        };
        leg.failures = 0;
        leg.down_for = None;
        let (peer, family) = (leg.relay.peer, leg.family);
        let took = now.saturating_duration_since(leg.dialed_at);
        self.hold(peer, family, took, now);
        // The connection leads to another run of the relay. A relay that still drains announces that again.
        self.draining.remove(&peer);
        opened
    }

    /// The relay to which this leg leads, if it is one.
    pub(crate) fn relay_over(&self, connection: ConnectionId) -> Option<PeerId> {
        let mut legs = self.legs.iter();
        let leg = legs.find(|leg| leg.connection() == Some(connection))?;
        Some(leg.relay.peer)
    }

    /// A leg of this family is up, whose dial took so long. If the other family is preferred and on its way, circuits wait for it for a moment.
    fn hold(&mut self, relay: PeerId, family: Family, took: Duration, now: Instant) {
        let is_first = |leg: &Leg| self.policy.rank(leg.family) == 0;
        let mut others = self.legs.iter().filter(|leg| leg.relay.peer == relay);
        let is_coming = |leg: &Leg| {
            is_first(leg) && leg.failures == 0 && matches!(leg.state, State::Dialing(_))
        };
        let is_up = |leg: &Leg| is_first(leg) && leg.connection().is_some();
        if self.policy.rank(family) == 0 || others.clone().any(is_up) || !others.any(is_coming) {
            self.holds.remove(&relay);
        } else {
            let (least, most) = FAMILY_HEAD_START;
            self.holds.insert(relay, now + took.clamp(least, most));
        }
    }

    fn leg_over(&mut self, connection: ConnectionId) -> Option<&mut Leg> {
        let mut legs = self.legs.iter_mut();
        legs.find(|leg| leg.connection() == Some(connection))
    }

    /// The relay has identified itself on this connection: reservations may be asked for.
    pub(crate) fn handle_identified(
        &mut self,
        connection: ConnectionId,
        now: Instant,
    ) -> Option<PeerId> {
        let leg = self
            .legs
            .iter_mut()
            .find(|leg| leg.connection() == Some(connection))?;
        if let State::Up { identified, .. } = &mut leg.state {
            *identified = true;
        }
        let (peer, family) = (leg.relay.peer, leg.family);
        // The relay may have been restarted or reconfigured. If it refuses again, that counts with the earlier refusals.
        if let Some(slot) = self.slot(&peer, family)
            && let Reservation::None { retry_at } = &mut slot.reservation
        {
            *retry_at = now;
        }
        Some(peer)
    }

    /// A dial failed. Returns the leg, if the dial was one of ours.
    pub(crate) fn handle_dial_failed(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        jitter: f64,
    ) -> Option<Unreachable> {
        self.spare_failed(connection);
        let number = self
            .legs
            .iter()
            .position(|leg| leg.state == State::Dialing(Some(connection)))?;
        let leg = self.legs.get_mut(number)?;
        leg.failures = leg.failures.saturating_add(1);
        let peer = leg.relay.peer;
        self.holds.remove(&peer);
        self.down(number, now, jitter);
        let leg = self.legs.get(number)?;
        let mut twins = self
            .legs
            .iter()
            .filter(|other| leg.is_twin && other.is_twin && other.relay.peer == leg.relay.peer);
        Some(Unreachable {
            relay: leg.relay.clone(),
            failures: leg.failures,
            is_news: leg.failures == 1 && !leg.is_second && twins.all(|twin| twin.failures > 0),
        })
    }

    /// This node is about to close a connection, which proves nothing against the relay.
    pub(crate) fn handle_closing(&mut self, connection: ConnectionId) {
        let mut legs = self.legs.iter_mut();
        if let Some(leg) = legs.find(|leg| leg.connection() == Some(connection)) {
            leg.proved();
        }
    }

    /// A connection was closed. Returns the leg if it is one of ours.
    pub(crate) fn handle_closed(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        jitter: f64,
    ) -> Option<LostLeg> {
        for leg in &mut self.legs {
            leg.replaced.take_if(|old| *old == connection);
        }
        let number = self
            .legs
            .iter()
            .position(|leg| leg.connection() == Some(connection))?;
        self.down(number, now, jitter);
        let leg = self.legs.get_mut(number)?;
        leg.take_spare();
        let lost = LostLeg {
            relay: leg.relay.clone(),
            vain: leg.vain,
        };
        if !leg.is_second {
            let first = leg.second(now);
            self.drop_idle_second(&first);
        }
        Some(lost)
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

    /// A relay may answer now, for all that is known: legs that wait are dialed at once, unless that happened often lately.
    pub(crate) fn handle_hint(&mut self, now: Instant) {
        if self.hints.admits((), now) {
            for leg in &mut self.legs {
                leg.retry(now);
            }
        }
    }

    /// The host has other addresses: as [`Self::handle_hint`], and relays that were away for long may be back soon.
    pub(crate) fn handle_network_changed(&mut self, now: Instant) {
        if self.hints.admits((), now) {
            for leg in &mut self.legs {
                leg.retry(now);
                if let Some(since) = &mut leg.wanted_since {
                    *since = now;
                }
            }
        }
    }

    /// The legs that are open.
    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.legs.iter().filter_map(Leg::connection)
    }

    /// Whether this is a leg to a relay that closed the last connection soon and without a reservation.
    pub(crate) fn is_doubtful(&self, connection: ConnectionId) -> bool {
        let mut legs = self.legs.iter();
        legs.any(|leg| leg.connection() == Some(connection) && leg.vain > 0)
    }

    /// Whether circuits can be asked of this relay. The relay need not have identified itself: waiting for that would cost a dial
    /// a round trip. The relay reports how it sees this node in time for the punch.
    pub(crate) fn is_connected(&self, relay: &PeerId) -> bool {
        !self.holds.contains_key(relay)
            && self
                .legs
                .iter()
                .any(|leg| leg.relay.peer == *relay && leg.takes_circuits())
    }

    /// Whether this relay is connected and has identified itself.
    pub(crate) fn is_ready(&self, relay: &PeerId) -> bool {
        self.legs
            .iter()
            .any(|leg| leg.relay.peer == *relay && leg.is_ready())
    }

    /// Whether this is one of the relays.
    pub(crate) fn is_configured(&self, peer: &PeerId) -> bool {
        self.relays.contains(peer)
    }

    /// The configured addresses of this relay.
    pub(crate) fn addrs<'a>(&'a self, relay: &'a PeerId) -> impl Iterator<Item = &'a Multiaddr> {
        let legs = self.legs.iter().filter(move |leg| leg.relay.peer == *relay);
        legs.map(|leg| &leg.relay.addr)
    }

    /// The relays, in the order configured.
    pub(crate) fn relays(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.relays.iter().copied()
    }

    /// The legs to this relay that are up, in the order of preference.
    pub(crate) fn up<'a>(&'a self, relay: &'a PeerId) -> impl Iterator<Item = Up<'a>> {
        let is_up = move |leg: &&Leg| leg.relay.peer == *relay && leg.is_usable();
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
    pub(crate) fn is_unreachable(&self, relay: &PeerId) -> bool {
        self.legs
            .iter()
            .filter(|leg| leg.relay.peer == *relay)
            .all(|leg| leg.failures > 0 && leg.connection().is_none())
    }
}

#[cfg(test)]
mod tests;
