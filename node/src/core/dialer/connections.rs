//! The connections of a dial: paths that come, change and go.

use std::time::Instant;

use super::{
    Action, Dialer, FAMILY_WAIT, FAR_HOP_WAIT, Farewell, Until, circuit::Circuit, lookup::Lookup,
};
use crate::{
    core::{
        event::{Event, FoundBy},
        peers::{Path, PathKind},
    },
    punch::Reason,
};

impl Dialer {
    /// A connection to the peer was established; `best` is the path to use from now on.
    pub(crate) fn handle_connected(&mut self, path: Path, best: Path, now: Instant) {
        let found_by = self.found_by(&path);
        self.connected(path, best, found_by, now);
    }

    /// There is a first direct path, which is not of the preferred family: the other family may be a moment later.
    pub(crate) fn await_family(&mut self, now: Instant) {
        if self.time_to_direct.is_none() && self.request.until == Until::Direct {
            self.awaiting_family = Some(now + FAMILY_WAIT);
        }
    }

    /// A direct path of the preferred family is there.
    pub(crate) fn handle_preferred_family(&mut self) {
        self.awaiting_family = None;
    }

    /// The peer is connected already, before anything was dialed.
    /// Its last punch was given up for the reason `last`.
    pub(crate) fn handle_open(&mut self, path: Path, last: Option<Reason>, now: Instant) {
        self.last_reason = last;
        self.connected(path.clone(), path, Some(FoundBy::Open), now);
    }

    fn connected(&mut self, path: Path, best: Path, found_by: Option<FoundBy>, now: Instant) {
        if let Some(relay) = path.relay
            && let Some(relay) = self.relays.iter_mut().find(|known| known.peer == relay)
        {
            relay.state = Circuit::Made;
            relay.failures = 0;
            relay.absent_since = None;
            self.led_by = Some(relay.peer);
        }
        self.losses.connected(now);
        self.pings.handle_path();
        // What failed before a path was there is not why it may be lost.
        self.errors.clear();
        let t = now - self.started;
        if let Some(remote) = path.remote() {
            self.local.connected(remote);
        }
        // What led to the peer first, and again once every path was lost. A connection without a cause of its own inherits the
        // earlier one. A punch can make two, and the surviving one may open after the other has ended.
        self.found_by = match self.path {
            Some(_) => self.found_by.or(found_by),
            None => found_by.or(self.found_by),
        };
        match path.kind {
            PathKind::Direct => {
                self.direct_dials = 0;
                self.time_to_direct.get_or_insert(t);
                self.awaiting_handshake = None;
                self.settled = None;
                self.last_reason = None;
                self.direct_lost = None;
            }
            PathKind::Relayed => {
                if self.time_to_direct.is_none() && self.attempts == self.introductions.attempts() {
                    self.awaiting_handshake.get_or_insert(now);
                }
            }
        }
        self.actions.push_back(Action::Report(Event::Connected {
            t,
            peer: self.request.peer,
            path,
            found_by: found_by.or(self.found_by),
        }));
        self.is_doubtful = false;
        self.path = Some(best);
    }

    /// A connection to the peer was closed, with this `farewell`; `best` is the path that is left.
    pub(crate) fn handle_disconnected(
        &mut self,
        kind: PathKind,
        farewell: Farewell,
        reason: String,
        best: Option<Path>,
        now: Instant,
    ) {
        self.actions.push_back(Action::Report(Event::Disconnected {
            t: now - self.started,
            peer: self.request.peer,
            kind,
            reason: reason.clone(),
        }));
        self.is_doubtful = false;
        self.path = best;
        self.deadline = now + self.request.timeout;
        let was_direct = kind == PathKind::Direct && !self.is_direct();
        if was_direct {
            self.direct_lost = Some(reason.clone());
            self.counts_anew = false;
        }
        if self.path.is_none() && !self.finished {
            self.losses.lost(farewell, reason, now);
            self.pings.handle_cut(kind, now);
            self.awaiting_handshake = None;
            self.settled = None;
            if kind == PathKind::Relayed {
                // The attempts over this circuit prove nothing about the next circuit.
                self.attempts = 0;
                self.introductions.again();
            }
        }
    }

    /// Nothing is left, and the wait is over: begins again with what there is.
    pub(super) fn begin_again(&mut self, now: Instant) {
        self.relays.retain(|relay| relay.found.is_none());
        for relay in &mut self.relays {
            relay.state = Circuit::Waiting;
            relay.unreachable = None;
            relay.is_paced = false;
        }
        self.registered.clear();
        self.lookup = Lookup::default();
        self.local.again(now);
        self.dial_direct();
    }

    /// Whether the best path is a direct one.
    pub(super) fn is_direct(&self) -> bool {
        let kind = self.path.as_ref().map(|path| path.kind);
        kind == Some(PathKind::Direct)
    }

    /// Whether the dial looks for a path: it has none, and does not wait after the loss of one.
    pub(super) fn seeks(&self) -> bool {
        self.path.is_none() && self.losses.waits_until().is_none()
    }

    /// The chosen path changed without a connection coming or going, or its figures did.
    pub(crate) fn handle_path(&mut self, best: Path) {
        self.path = Some(best);
    }

    /// The relay is being asked for the far hop of a circuit to the peer.
    pub(crate) fn await_far_hop(&mut self, now: Instant) {
        self.awaiting_far_hop = Some(now + FAR_HOP_WAIT);
    }

    /// The relay has reported the far hop, or it will not; `best` is the path with what is known.
    pub(crate) fn handle_far_hop(&mut self, best: Option<Path>) {
        self.awaiting_far_hop = None;
        self.path = best;
    }
}
