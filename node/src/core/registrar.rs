//! On which relays this node's record is to be renewed, and when.
//!
//! Pure: the time is an argument. A record lists the addresses under which peers reach this node. The node registers the record
//! at every relay that holds a reservation for the node. It registers the record again when the addresses have changed, and
//! before the record expires.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_protocol::directory::RENEWAL;

/// From a registration that did not arrive to the next.
const AGAIN: Duration = Duration::from_secs(5);

/// How long a relay may take to return the record of an earlier run. After that the node registers its record anyway.
const ASK: Duration = Duration::from_secs(2);

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the relays for this node's own record before the next one is registered at this relay.
    /// [`Registrar::handle_own_record`] takes the answers, [`Registrar::handle_looked_up`] their end.
    LookUp(PeerId),
    /// Register the record at this relay. [`Registrar::handle_registered`] takes the end.
    Register(PeerId),
}

/// The record, and who has it.
#[derive(Debug, Default)]
pub(crate) struct Registrar {
    addrs: BTreeSet<Multiaddr>,
    relays: BTreeMap<PeerId, State>,
    /// The last sequence number.
    seq: u64,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It holds a reservation since a moment ago.
    New,
    /// It is being asked, no longer than until then.
    LookingUp(Instant),
    Due(Instant),
    /// Under way; the registered content is still current, or no longer.
    Registering {
        outdated: bool,
    },
}

impl Registrar {
    /// Where the node can be called from now on.
    pub(crate) fn set_addrs(&mut self, addrs: BTreeSet<Multiaddr>, now: Instant) {
        if self.addrs == addrs {
            return;
        }
        self.addrs = addrs;
        self.outdate(now);
    }

    /// What was registered is no longer what is to be registered.
    fn outdate(&mut self, now: Instant) {
        for state in self.relays.values_mut() {
            *state = match *state {
                State::Due(_) => State::Due(now),
                State::Registering { .. } => State::Registering { outdated: true },
                asked @ (State::New | State::LookingUp(_)) => asked,
            };
        }
    }

    /// The relays that hold a reservation now.
    pub(crate) fn set_relays(&mut self, relays: &BTreeSet<PeerId>) {
        self.relays.retain(|relay, _| relays.contains(relay));
        for relay in relays {
            self.relays.entry(*relay).or_insert(State::New);
        }
    }

    /// The next thing to do, until there is none.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Has the record registered where it is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.addrs.is_empty() {
            return;
        }
        for (relay, state) in &mut self.relays {
            match *state {
                State::New => {
                    *state = State::LookingUp(now + ASK);
                    self.actions.push_back(Action::LookUp(*relay));
                }
                State::LookingUp(at) | State::Due(at) if at <= now => {
                    *state = State::Registering { outdated: false };
                    self.actions.push_back(Action::Register(*relay));
                }
                State::LookingUp(_) | State::Due(_) | State::Registering { .. } => {}
            }
        }
    }

    /// A record of this node of an earlier run, with this number, is kept somewhere. The clock may have been set back since:
    /// relays that have it from others than this node would take the next one for the older.
    pub(crate) fn handle_own_record(&mut self, seq: u64, now: Instant) {
        if seq > self.seq {
            self.seq = seq;
            self.outdate(now);
        }
    }

    /// A relay has answered what it keeps, or it will not.
    pub(crate) fn handle_looked_up(&mut self, relay: &PeerId, now: Instant) {
        if let Some(state @ State::LookingUp(_)) = self.relays.get_mut(relay) {
            *state = State::Due(now);
        }
    }

    /// When [`Registrar::handle_timeout`] has something next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.relays.values().filter_map(|state| match state {
            State::LookingUp(at) | State::Due(at) => Some(*at),
            State::New | State::Registering { .. } => None,
        });
        due.min().filter(|_| !self.addrs.is_empty())
    }

    /// A registration is over.
    pub(crate) fn handle_registered(&mut self, relay: &PeerId, arrived: bool, now: Instant) {
        let Some(state @ State::Registering { .. }) = self.relays.get_mut(relay) else {
            return;
        };
        *state = State::Due(match (&state, arrived) {
            (State::Registering { outdated: true }, _) => now,
            (_, true) => now + RENEWAL,
            (_, false) => now + AGAIN,
        });
    }

    /// The relays that may have the record.
    pub(crate) fn relays(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.relays.keys().copied()
    }

    /// The content of the record.
    pub(crate) fn addrs(&self) -> Vec<Multiaddr> {
        self.addrs.iter().cloned().collect()
    }

    /// The number of the next record, given milliseconds since 1970: never one that was used, as far as that is known.
    pub(crate) fn next_seq(&mut self, millis: u64) -> u64 {
        self.seq = millis.max(self.seq.saturating_add(1));
        self.seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(last: u8) -> BTreeSet<Multiaddr> {
        let addr = format!("/ip4/203.0.113.{last}/tcp/443");
        BTreeSet::from([addr.parse().expect("a multiaddr")])
    }

    fn poll(registrar: &mut Registrar, now: Instant) -> Option<Action> {
        registrar.handle_timeout(now);
        registrar.poll_action()
    }

    /// The relay has nothing of an earlier run.
    fn ask(registrar: &mut Registrar, relay: PeerId, now: Instant) {
        assert_eq!(poll(registrar, now), Some(Action::LookUp(relay)));
        assert_eq!(poll(registrar, now), None);
        registrar.handle_looked_up(&relay, now);
    }

    /// There is a record, and a relay that keeps it.
    fn with_relay(now: Instant) -> (Registrar, PeerId) {
        let (mut registrar, relay) = (Registrar::default(), PeerId::random());
        registrar.set_addrs(addrs(1), now);
        registrar.set_relays(&BTreeSet::from([relay]));
        (registrar, relay)
    }

    /// The relay is sent the record.
    fn registering(now: Instant) -> (Registrar, PeerId) {
        let (mut registrar, relay) = with_relay(now);
        ask(&mut registrar, relay, now);
        assert_eq!(poll(&mut registrar, now), Some(Action::Register(relay)));
        (registrar, relay)
    }

    #[test]
    fn a_record_is_registered_when_there_is_one_and_renewed_before_it_expires() {
        let (relay, now) = (PeerId::random(), Instant::now());
        let mut registrar = Registrar::default();
        registrar.set_relays(&BTreeSet::from([relay]));
        assert_eq!(
            (poll(&mut registrar, now), registrar.poll_timeout()),
            (None, None)
        );
        registrar.set_addrs(addrs(1), now);
        ask(&mut registrar, relay, now);
        assert_eq!(registrar.poll_timeout(), Some(now));
        assert_eq!(poll(&mut registrar, now), Some(Action::Register(relay)));
        assert_eq!(
            (poll(&mut registrar, now), registrar.poll_timeout()),
            (None, None)
        );
        registrar.handle_registered(&relay, true, now);
        assert_eq!(registrar.poll_timeout(), Some(now + RENEWAL));
        assert_eq!(
            poll(&mut registrar, now + RENEWAL),
            Some(Action::Register(relay))
        );
        registrar.handle_registered(&relay, false, now);
        assert_eq!(registrar.poll_timeout(), Some(now + AGAIN));
    }

    #[test]
    fn what_has_changed_is_registered_at_once_also_if_it_changed_on_the_way() {
        let now = Instant::now();
        let (mut registrar, relay) = registering(now);
        registrar.set_addrs(addrs(2), now);
        assert_eq!(poll(&mut registrar, now), None);
        registrar.handle_registered(&relay, true, now);
        assert_eq!(poll(&mut registrar, now), Some(Action::Register(relay)));
        registrar.handle_registered(&relay, true, now);
        registrar.set_addrs(addrs(2), now);
        assert_eq!(poll(&mut registrar, now), None, "nothing has changed");
        registrar.set_addrs(addrs(3), now);
        assert_eq!(poll(&mut registrar, now), Some(Action::Register(relay)));
    }

    #[test]
    fn a_relay_that_has_lost_the_reservation_gets_the_record_again_when_it_holds_one_again() {
        let now = Instant::now();
        let (mut registrar, relay) = registering(now);
        registrar.handle_registered(&relay, true, now);
        registrar.set_relays(&BTreeSet::new());
        assert_eq!(registrar.poll_timeout(), None);
        registrar.set_relays(&BTreeSet::from([relay]));
        ask(&mut registrar, relay, now);
        assert_eq!(poll(&mut registrar, now), Some(Action::Register(relay)));
    }

    #[test]
    fn sequence_numbers_grow_even_if_the_clock_does_not() {
        let mut registrar = Registrar::default();
        assert_eq!(registrar.next_seq(1000), 1000);
        assert_eq!(registrar.next_seq(1000), 1001);
        assert_eq!(registrar.next_seq(10), 1002);
        assert_eq!(registrar.next_seq(2000), 2000);
    }

    #[test]
    fn after_the_clock_was_set_back_the_next_record_is_newer_than_that_of_the_run_before() {
        let now = Instant::now();
        let (mut registrar, relay) = with_relay(now);
        assert_eq!(poll(&mut registrar, now), Some(Action::LookUp(relay)));
        registrar.handle_own_record(9000, now);
        registrar.handle_looked_up(&relay, now);
        assert_eq!(poll(&mut registrar, now), Some(Action::Register(relay)));
        assert_eq!(registrar.next_seq(1000), 9001);
        // One that comes late is answered with a newer one.
        registrar.handle_own_record(8000, now);
        registrar.handle_own_record(9500, now);
        registrar.handle_registered(&relay, true, now);
        assert_eq!(poll(&mut registrar, now), Some(Action::Register(relay)));
        assert_eq!(registrar.next_seq(1001), 9501);
        registrar.handle_own_record(u64::MAX, now);
        assert_eq!(registrar.next_seq(1002), u64::MAX);
    }

    #[test]
    fn a_relay_that_does_not_say_what_it_keeps_gets_the_record_all_the_same() {
        let now = Instant::now();
        let (mut registrar, relay) = with_relay(now);
        assert_eq!(poll(&mut registrar, now), Some(Action::LookUp(relay)));
        assert_eq!(registrar.poll_timeout(), Some(now + ASK));
        assert_eq!(
            poll(&mut registrar, now + ASK),
            Some(Action::Register(relay))
        );
        registrar.handle_looked_up(&relay, now);
        assert_eq!(poll(&mut registrar, now + ASK), None);
    }
}
