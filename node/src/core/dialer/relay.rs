//! The relays of a dial: the circuits over them, and the introductions that they are asked for along with these.

use std::time::Instant;

use libp2p::PeerId;

use super::{
    Action, Dialer, Fault, Until,
    circuit::{CIRCUIT_WAIT, Circuit, CircuitFailure},
};
use crate::{core::event::Event, punch::IntroductionResponse};

impl Dialer {
    /// Circuits can be asked of this relay.
    pub(crate) fn handle_relay_ready(&mut self, relay: PeerId, now: Instant) {
        if self.losses.begins_again(now) {
            self.begin_again(now);
        }
        let needed = self.needs_circuit() && !self.local.holds(now);
        let meets = self.wants_introduction();
        if needed && self.seeks() && self.lookup.begin(relay) {
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
            relay.unreachable = None;
            relay.is_paced = false;
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

    /// The relay cannot be reached over any of its addresses. While the fault may be over in a moment, the dial waits for it.
    pub(crate) fn handle_relay_unreachable(
        &mut self,
        relay: PeerId,
        fault: Fault,
        reason: &str,
        now: Instant,
    ) {
        let t = self.elapsed(now);
        let Some(known) = self.relays.iter_mut().find(|known| known.peer == relay) else {
            return;
        };
        if !matches!(known.state, Circuit::Waiting | Circuit::Again(_)) {
            return;
        }
        if fault != Fault::Remote {
            known.state = Circuit::Failed;
        }
        // What is at fault on this host is noted once for all relays.
        known.unreachable = (fault != Fault::Local).then(|| reason.to_owned());
        if !std::mem::replace(&mut known.is_reported, true) {
            let reason = reason.to_owned();
            self.actions
                .push_back(Action::Report(Event::RelayUnreachable { t, relay, reason }));
        }
        if fault == Fault::Local {
            self.note(reason.to_owned());
        }
    }

    /// The relay is of no use when the dial begins, or ends connections for a clock, for this reason. It is dialed meanwhile.
    pub(crate) fn handle_relay_trouble(&mut self, relay: PeerId, reason: String) {
        if let Some(known) = self.relays.iter_mut().find(|known| known.peer == relay) {
            known.unreachable = Some(reason);
        }
    }

    /// The relay does not admit this node, in these words.
    pub(crate) fn handle_relay_refused(&mut self, relay: PeerId, words: &str, now: Instant) {
        let t = self.elapsed(now);
        let Some(known) = self.relays.iter_mut().find(|known| known.peer == relay) else {
            return;
        };
        if matches!(known.state, Circuit::Made | Circuit::Failed) {
            return;
        }
        known.state = Circuit::Failed;
        known.unreachable = None;
        self.actions.push_back(Action::Report(Event::RelayRefused {
            t,
            relay,
            reason: words.to_owned(),
        }));
        self.note(format!("relay {relay} refused us: {words}"));
    }

    /// A dial of [`Action::DialCircuit`] failed.
    pub(crate) fn handle_circuit_failed(
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

    /// The circuit of [`Action::DialCircuit`] or [`Action::DialFound`] was asked for too often. It may be asked for again then.
    pub(crate) fn handle_circuit_paced(&mut self, relay: PeerId, until: Instant) {
        if let Some(relay) = self.relays.iter_mut().find(|known| known.peer == relay)
            && let Circuit::Dialing { dials, .. } = &mut relay.state
        {
            match dials {
                1 => {
                    relay.is_paced = true;
                    relay.state = Circuit::Again(until);
                }
                more => *more -= 1,
            }
        }
    }

    /// Asks once more for the circuits that take too long. Those whose wait after a failure is over have their turn as soon as
    /// their relay is connected.
    pub(super) fn redial_circuits(&mut self, now: Instant) {
        if !self.needs_circuit() {
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
                        relay.is_paced = false;
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

    /// Whether an introduction would be of use.
    pub(crate) fn wants_introduction(&self) -> bool {
        self.seeks() && self.punches && self.request.until == Until::Direct
    }

    /// A relay is being asked for an introduction.
    pub(crate) fn await_introduction(&mut self) {
        self.introductions.asked();
    }

    /// The relay has answered, or will not. [`Dialer::handle_introduced_attempt`] reports the end of a punch that has begun.
    pub(crate) fn handle_introduction_reply(&mut self, start: IntroductionResponse) {
        self.introductions.answered(start);
    }

    /// An attempt that came of an introduction is over.
    pub(crate) fn handle_introduced_attempt(&mut self, attempt: Event) {
        self.introductions.attempted();
        self.attempts += attempt.attempts();
        self.actions.push_back(Action::Report(attempt));
    }
}
