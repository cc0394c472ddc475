//! The circuits of a dial: one over each relay that may lead to the peer.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

use super::{Action, Dialer};
use crate::core::event::Event;

/// How long a circuit may take before it is asked for once more. A relay of libp2p's make silently drops what goes beyond ten
/// handshakes at a time with one peer, and its client then waits for a minute; a circuit that comes at all comes within a few
/// round trips.
pub(super) const CIRCUIT_WAIT: Duration = Duration::from_secs(3);

/// How long a peer may be absent from a relay before the dial believes it: a relay that was restarted has its reservations back
/// within 5 s, and so has a peer that has lost its own.
const ABSENCE: Duration = Duration::from_secs(5);

/// From a circuit that failed to the next one over the same relay; doubled with each failure.
const AGAIN_MIN: Duration = Duration::from_millis(250);

/// The longest of these.
const AGAIN_MAX: Duration = Duration::from_secs(4);

/// What the failure of a circuit means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitFailure {
    /// It will be the same.
    Refused,
    /// The peer holds no reservation on the relay: it is not there, or the relay or the peer has just come back.
    Absent,
    /// It broke off.
    Broken,
}

/// A relay that may lead to the peer.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) peer: PeerId,
    /// Where it is, if it is not one of this node's but one that the peer's record names.
    pub(super) found: Option<Vec<Multiaddr>>,
    pub(super) state: Circuit,
    /// Circuits over it that have failed in a row.
    pub(super) failures: u32,
    /// Since when the peer has been absent from it.
    pub(super) absent_since: Option<Instant>,
}

/// The circuit over a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circuit {
    /// The relay is not connected yet.
    Waiting,
    /// The circuit is being made.
    Dialing {
        /// How many dials of it are under way.
        dials: u32,
        /// When another is begun.
        again_at: Instant,
    },
    /// It could not be made, and is asked for again then.
    Again(Instant),
    /// There is or was one.
    Made,
    /// It could not be made.
    Failed,
}

impl Relay {
    /// One of this node's own, or one that was `found` at these addresses, in this state.
    pub(super) const fn new(peer: PeerId, found: Option<Vec<Multiaddr>>, state: Circuit) -> Self {
        Self {
            peer,
            found,
            state,
            failures: 0,
            absent_since: None,
        }
    }

    /// How a circuit over it is made.
    pub(super) fn dial(&self) -> Action {
        match &self.found {
            None => Action::DialCircuit(self.peer),
            Some(addrs) => Action::DialFound {
                relay: self.peer,
                addrs: addrs.clone(),
            },
        }
    }

    /// What follows the failure of its circuit.
    pub(super) fn next(&mut self, failure: CircuitFailure, now: Instant) -> Circuit {
        let absent_since = match failure {
            CircuitFailure::Refused => return Circuit::Failed,
            CircuitFailure::Absent => Some(*self.absent_since.get_or_insert(now)),
            CircuitFailure::Broken => {
                self.absent_since = None;
                None
            }
        };
        let wait = (AGAIN_MIN * 2u32.saturating_pow(self.failures)).min(AGAIN_MAX);
        self.failures = self.failures.saturating_add(1);
        match absent_since.map(|since| since + ABSENCE) {
            Some(until) if until <= now => Circuit::Failed,
            // Once more when the time is up.
            Some(until) => Circuit::Again((now + wait).min(until)),
            None => Circuit::Again(now + wait),
        }
    }
}

impl Dialer {
    /// Circuits can be asked of this relay.
    pub fn handle_relay_ready(&mut self, relay: PeerId, now: Instant) {
        let needed = self.path.is_none() && !self.local.holds(now);
        let meets = self.wants_introduction();
        if needed && self.lookup.begin(relay) {
            self.actions.push_back(Action::LookUp);
        }
        if let Some(relay) = self.relays.iter_mut().find(|known| known.peer == relay)
            && needed
            && match relay.state {
                Circuit::Waiting => true,
                Circuit::Again(at) => at <= now,
                Circuit::Dialing { .. } | Circuit::Made | Circuit::Failed => false,
            }
        {
            relay.state = Circuit::Dialing {
                dials: 1,
                again_at: now + CIRCUIT_WAIT,
            };
            if meets {
                self.actions.push_back(Action::Introduce(relay.peer));
            }
            self.actions.push_back(Action::DialCircuit(relay.peer));
        }
    }

    /// The relay cannot be reached over any of its addresses.
    pub fn handle_relay_unreachable(&mut self, relay: PeerId, t: Duration, reason: &str) {
        if let Some(known) = self.relays.iter_mut().find(|known| known.peer == relay)
            && matches!(known.state, Circuit::Waiting | Circuit::Again(_))
        {
            known.state = Circuit::Failed;
            self.actions
                .push_back(Action::Report(Event::RelayUnreachable {
                    t,
                    relay,
                    reason: reason.to_owned(),
                }));
            self.note(format!("relay {relay} is unreachable: {reason}"));
        }
    }

    /// The relay does not admit this node, in these words.
    pub fn handle_relay_refused(&mut self, relay: PeerId, t: Duration, words: &str) {
        let Some(known) = self.relays.iter_mut().find(|known| known.peer == relay) else {
            return;
        };
        if matches!(known.state, Circuit::Made | Circuit::Failed) {
            return;
        }
        known.state = Circuit::Failed;
        self.actions.push_back(Action::Report(Event::RelayRefused {
            t,
            relay,
            reason: words.to_owned(),
        }));
        self.note(format!("relay {relay} refused us: {words}"));
    }

    /// A dial of [`Action::DialCircuit`] failed.
    pub fn handle_circuit_failed(
        &mut self,
        relay: PeerId,
        failure: CircuitFailure,
        reason: String,
        now: Instant,
    ) {
        if let Some(relay) = self.relays.iter_mut().find(|known| known.peer == relay) {
            match &mut relay.state {
                Circuit::Dialing { dials, .. } if *dials > 1 => *dials -= 1,
                Circuit::Dialing { .. } => relay.state = relay.next(failure, now),
                Circuit::Waiting | Circuit::Again(_) | Circuit::Made | Circuit::Failed => {}
            }
        }
        self.note(reason);
    }

    /// Asks once more for the circuits that take too long. Those whose wait after a failure is over have their turn as soon as
    /// their relay is connected.
    pub(super) fn redial_circuits(&mut self, now: Instant) {
        if self.path.is_some() {
            return;
        }
        for relay in &mut self.relays {
            match &mut relay.state {
                Circuit::Dialing { dials, again_at } if *again_at <= now => {
                    *dials += 1;
                    *again_at = now + CIRCUIT_WAIT;
                    self.actions.push_back(relay.dial());
                }
                Circuit::Again(at) if *at <= now => {
                    if relay.found.is_some() {
                        relay.state = Circuit::Dialing {
                            dials: 1,
                            again_at: now + CIRCUIT_WAIT,
                        };
                        self.actions.push_back(relay.dial());
                    } else {
                        relay.state = Circuit::Waiting;
                    }
                }
                Circuit::Waiting
                | Circuit::Dialing { .. }
                | Circuit::Again(_)
                | Circuit::Made
                | Circuit::Failed => {}
            }
        }
    }
}
