//! Connections that are no longer needed.

use std::time::Instant;

use crate::punch::machine::{
    Action, Context,
    directs::{Preference, decides},
};

use super::{Circuit, Identified, Peer};

impl Peer {
    pub(super) fn surplus_due(&self, cx: &Context<'_>) -> Option<Instant> {
        let is_relay = cx.relays.peers.contains(&self.id);
        let concerns = !self.circuits.is_empty()
            || self.last_record.is_some()
            || self.directs.is_crossed()
            || (self.preference(cx) != Preference::default() && self.directs.has_both_families());
        if is_relay || !concerns || !cx.enabled {
            return None;
        }
        // What the peer prefers counts where there is a choice.
        let is_known = self.prefers != Identified::NotYet || !self.directs.has_both_families();
        let decides = decides(cx.local_id, self.id);
        self.directs.surplus_due(decides, is_known, cx.timing)
    }

    /// What both sides prefer. A side that dialed directly is the dialer as well.
    fn preference(&self, cx: &Context<'_>) -> Preference {
        let ours = cx.policy.families.preferred();
        let theirs = match self.prefers {
            Identified::NotYet => None,
            Identified::Prefers(family) => family,
        };
        let (dialer, listener) = match self.dials.or_else(|| self.directs.are_dialed()) {
            Some(false) => (theirs, ours),
            Some(true) | None => (ours, theirs),
        };
        Preference { dialer, listener }
    }

    pub(super) fn close_surplus(&mut self, cx: &mut Context<'_>) {
        if self.surplus_due(cx).is_some_and(|due| due <= cx.now) {
            for connection in self.directs.take_surplus(self.preference(cx)) {
                cx.actions.push_back(Action::Close {
                    peer: self.id,
                    connection,
                });
            }
        }
    }

    pub(super) fn circuit_due(&self, circuit: &Circuit, cx: &Context<'_>) -> Option<Instant> {
        if !cx.enabled || circuit.is_used {
            return None;
        }
        self.directs
            .since()
            .map(|direct| direct.max(circuit.since) + cx.timing.grace)
    }

    pub(super) fn close_circuits(&mut self, cx: &mut Context<'_>) {
        let (expired, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.circuits)
            .into_iter()
            .partition(|circuit| {
                self.circuit_due(circuit, cx)
                    .is_some_and(|due| due <= cx.now)
            });
        self.circuits = kept;
        for circuit in expired {
            cx.actions.push_back(Action::Close {
                peer: self.id,
                connection: circuit.connection,
            });
        }
    }

    pub(super) fn keep_circuits(&mut self, cx: &mut Context<'_>, keep: bool) {
        for circuit in &self.circuits {
            cx.actions.push_back(Action::KeepAlive {
                peer: self.id,
                circuit: circuit.connection,
                keep,
            });
        }
    }
}
