//! Connections that open, fail to open, and close.

use std::time::{Duration, Instant};

use libp2p::{PeerId, swarm::ConnectionId};

use super::{Action, Closed, DialFailure, Established, Event, NodeState, Purpose};
use crate::core::{
    admission::Refused,
    dialer::{self, CircuitFailure, Fault},
    event::{self, LossCause},
    liveness::{Ended, Farewell, Link},
    peers::{How, Path, PathCause, PathKind},
    relays::{LostLeg, Opened, Unreachable},
};

/// How soon after its handshake a connection ends that the peer refuses. Nothing else ends so soon: a lost path is noticed later.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Why this node closes a connection that counts as dead.
pub(super) const NO_ANSWER: &str = "no answer to pings";

impl NodeState {
    /// A dial of [`Action::Dial`] is under way as this connection.
    pub(crate) fn handle_dialing(&mut self, connection: ConnectionId, purpose: Purpose) {
        self.purposes.insert(connection, purpose);
        match purpose {
            Purpose::Leg(leg) => self.relays.handle_dialing(leg, connection),
            Purpose::FoundLeg(relay) => self.found_relays.handle_dialing(&relay, connection),
            Purpose::Direct(_)
            | Purpose::Local { .. }
            | Purpose::Circuit { .. }
            | Purpose::SameFamilyCircuit(_)
            | Purpose::Reconnect { .. } => {}
        }
    }

    /// A connection is open: one of [`Action::Dial`], one that a peer has made, or one that the punch machine has dialed.
    pub(crate) fn handle_established(&mut self, established: Established, now: Instant) {
        let Established {
            connection: id,
            peer,
            endpoint,
            sockets,
        } = established;
        let purpose = self.purposes.remove(&id);
        self.peers
            .handle_established(id, peer, &endpoint, sockets, now);
        // Every dial of this state has a purpose; one that has none and is direct is the punch machine's.
        if purpose.is_none() && endpoint.is_dialer() && !endpoint.is_relayed() {
            self.peers.handle_punched(id);
        }
        if let Some(path) = self.peers.path(id) {
            self.on_established(peer, id, path, purpose, now);
        }
        self.advance(now);
    }

    fn on_established(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        path: Path,
        purpose: Option<Purpose>,
        now: Instant,
    ) {
        let own = self.is_dialed(peer);
        let mut cause = PathCause::Made(path.how);
        let opened = self.relays.handle_established(id, now);
        if let Opened::Replaces(old) = opened {
            self.close_doubtful(old, peer, now);
        }
        let is_leg = match opened {
            Opened::Leg | Opened::Replaces(_) if self.is_needless_second(id, now) => {
                self.unreported.insert(id);
                self.actions.push_back(Action::Close(id));
                false
            }
            Opened::Leg | Opened::Replaces(_) => true,
            Opened::Surplus => {
                self.unreported.insert(id);
                self.actions.push_back(Action::Close(id));
                false
            }
            Opened::NotOurs => {
                let gives_way = self.close_doubtful_paths(peer, now);
                if gives_way && path.kind == PathKind::Relayed {
                    cause = PathCause::Missed;
                }
                false
            }
        };
        // Such a relay mostly ends the connection in a moment, and so on for ever.
        if is_leg && (self.relays.is_doubtful(id) || self.relays.refusal(&peer).is_some()) {
            self.unreported.insert(id);
        }
        if self.unreported.contains(&id) {
            tracing::debug!(%peer, connection = %id, kind = %path.kind, how = %path.how, path = %path, "connected");
        } else {
            tracing::info!(own, %peer, connection = %id, kind = %path.kind, how = %path.how, path = %path, "connected");
        }
        if path.kind == PathKind::Direct && path.how != How::Accepted && !self.is_in_range(&path) {
            tracing::error!(%peer, path = %path, range = %self.port_range, "a dial left from outside the range; please report this");
            self.events.push_back(Event::OutOfRange);
        }
        // The punch machine comes next. It decides whether the first direct connection came out of a punch.
        if path.kind == PathKind::Relayed || self.peers.directs(&peer) > 1 {
            self.report_path(peer, cause);
        }
        self.classify(peer);
        if let Some(relay) = path.relay {
            self.classify(relay);
        }
        if is_leg {
            self.on_legs();
            self.introduce_again(peer);
        }
        match purpose {
            Some(Purpose::SameFamilyCircuit(peer)) => self.close_bridges(peer),
            Some(Purpose::Local { peer, host }) => self.neighbours.handle_answer(host, peer, now),
            // Without a token there is nothing to wait for: a relay that wants one is the exception.
            Some(Purpose::FoundLeg(relay)) if !self.has_token(&relay) => {
                self.on_found_leg(relay, id, now);
            }
            Some(
                Purpose::Leg(_)
                | Purpose::FoundLeg(_)
                | Purpose::Direct(_)
                | Purpose::Circuit { .. }
                | Purpose::Reconnect { .. },
            )
            | None => {}
        }
        if is_leg || matches!(purpose, Some(Purpose::FoundLeg(_))) {
            self.join(peer, id);
        }
        self.inquire(id, now);
        self.liveness
            .handle_established(id, self.link(&peer, path.kind), now);
        self.reconnector.handle_connected(&peer, path.relay, now);
        self.keeper.handle_connected(&peer);
        let preference = self.preference(&path);
        if let Some(best) = self.best_path(&peer) {
            for dialer in self.dials_of(peer) {
                match preference {
                    Some(true) => dialer.handle_preferred_family(),
                    Some(false) => dialer.await_family(now),
                    None => {}
                }
                dialer.handle_connected(path.clone(), best.clone(), now);
            }
        }
        if !self.unreported.contains(&id) {
            self.report_connected(peer, path, now);
        }
    }

    fn report_connected(&mut self, peer: PeerId, path: Path, now: Instant) {
        self.report(event::Event::Connected {
            t: self.t(now),
            peer,
            path,
            found_by: None,
        });
    }

    /// The relay at the far end of a leg admits this node: if its opening was not reported, it is now.
    pub(super) fn report_admitted(&mut self, id: ConnectionId, now: Instant) {
        if self.unreported.remove(&id)
            && let Some(connection) = self.peers.connection(id)
            && let Some(path) = self.peers.path(id)
        {
            self.report_connected(connection.peer, path, now);
        }
    }

    /// Whether a direct path is of the family that this node prefers; `None` if that does not matter, or this host has no address
    /// of that family.
    fn preference(&self, path: &Path) -> Option<bool> {
        let preferred = self.peers.policy().preferred()?;
        let is_second = self.peers.is_second_choice(path);
        let has_preferred = || self.addresses.has_family(preferred);
        (path.kind == PathKind::Direct && (!is_second || has_preferred())).then_some(!is_second)
    }

    /// A connection was refused, or ended early.
    pub(crate) fn handle_turned_away(&mut self, refused: Refused, now: Instant) {
        self.turned_away.handle_refused(refused, now);
    }

    /// A connection is no longer open.
    pub(crate) fn handle_closed(&mut self, mut closed: Closed, now: Instant) {
        let id = closed.connection;
        if closed.ended != Ended::Ours {
            closed.reason = self.in_words(&closed.peer, &closed.reason);
        }
        let has_answered = self.liveness.has_answered(id);
        let farewell = self.liveness.handle_closed(id, closed.ended, now);
        if (farewell, closed.ended) == (Farewell::Lost, Ended::Ours) {
            NO_ANSWER.clone_into(&mut closed.reason);
        }
        let cause = match (farewell, closed.ended) {
            (Farewell::Lost, Ended::Ours) => LossCause::Silent,
            (Farewell::Wanted, Ended::Ours) => LossCause::Ended,
            (_, Ended::Theirs) => LossCause::Closed,
            (_, Ended::Clock) => LossCause::Clock,
            (_, Ended::Broken | Ended::Reset) => LossCause::Broken,
        };
        if let Some(relay) = self.relays.relay_over(id) {
            self.on_leg_ended(id, relay, cause, &closed.reason, now);
        }
        let reason = &closed.reason;
        self.inquiries.handle_closed(id);
        self.own_key.handle_closed(id);
        self.sights.handle_closed(id);
        self.end_introductions(id);
        self.actions.push_back(Action::ForgetObservation(id));
        let jitter = self.rng.f64();
        let leg = self.relays.handle_closed(id, now, jitter);
        let is_vain = leg.as_ref().is_some_and(|leg| leg.vain > 1);
        let was_leg = leg.is_some();
        if let Some(leg) = &leg {
            let reason = match leg.vain {
                0 => reason.clone(),
                _ => format!("it takes connections and ends them: {reason}"),
            };
            self.relays
                .handle_down_for(&leg.relay, Fault::Remote, &reason);
            if leg.vain > 0 && closed.ended == Ended::Clock {
                for dial in &mut self.dials {
                    let relay = leg.relay.peer;
                    dial.dialer.handle_relay_trouble(relay, reason.clone());
                }
            }
        }
        match leg {
            Some(LostLeg { relay, vain: 0 }) => {
                tracing::warn!(relay = %relay.peer, address = %relay.addr, %reason, "lost the connection to a relay; dialing it again");
            }
            Some(LostLeg { relay, vain }) if vain.is_power_of_two() => {
                tracing::warn!(relay = %relay.peer, address = %relay.addr, %reason, times = vain, "a relay takes connections and ends them: is it full, does its access.allow not name this node, or is its clock wrong? It is dialed ever less often");
            }
            Some(LostLeg { relay, vain }) => {
                tracing::debug!(relay = %relay.peer, address = %relay.addr, %reason, times = vain, "a relay has ended the connection");
            }
            None => {}
        }
        if let Some(connection) = self.peers.handle_closed(id) {
            // What a peer sends before it closes may be lost with the connection: then the end looks like a break.
            let lived = now.saturating_duration_since(connection.since);
            let is_refusal = connection.path.how != How::Accepted
                && !has_answered
                && closed.ended != Ended::Clock
                && (closed.ended == Ended::Theirs || lived < AT_ONCE);
            if is_vain || self.unreported.contains(&id) {
                tracing::debug!(peer = %closed.peer, connection = %id, kind = %connection.path.kind, %reason, "disconnected");
            } else {
                let own = self.is_dialed(closed.peer);
                tracing::info!(own, peer = %closed.peer, connection = %id, kind = %connection.path.kind, %reason, "disconnected");
            }
            if was_leg {
                self.on_legs();
            }
            self.on_closed(closed, &connection.path, farewell, is_refusal, now);
            self.classify(connection.peer);
            if let Some(relay) = connection.path.relay {
                self.classify(relay);
            }
        }
        self.advance(now);
    }

    /// `is_refusal`: the close of the peer would be one.
    fn on_closed(
        &mut self,
        closed: Closed,
        path: &Path,
        farewell: Farewell,
        is_refusal: bool,
        now: Instant,
    ) {
        let Closed {
            connection: id,
            peer,
            ended,
            reason,
        } = closed;
        let kind = path.kind;
        self.end_access(&peer);
        self.report_path(peer, PathCause::of_end(ended, farewell));
        let best = self.best_path(&peer);
        if best.is_none() {
            self.next_punches.remove(&peer);
            self.keeper.handle_lost(&peer, now);
            let jitter = self.rng.f64();
            match (farewell, ended) {
                (_, Ended::Reset) if kind == PathKind::Direct => {
                    let at = path.remote_addr();
                    self.reconnector.handle_reset(&peer, at, now, jitter);
                }
                // Its search has begun when its path became doubtful.
                (Farewell::Lost, _) if self.reconnector.is_searched(&peer) => {}
                (Farewell::Lost, _) => self.reconnector.handle_lost(&peer, now, jitter),
                (Farewell::Wanted, Ended::Theirs | Ended::Broken | Ended::Clock | Ended::Reset) => {
                    self.reconnector.handle_left(&peer, now, jitter);
                }
                (Farewell::Wanted, Ended::Ours) => {
                    self.reconnector.forget(&peer);
                }
            }
        }
        self.reconnector.handle_refusal(&peer, is_refusal);
        self.forget_pings(id, kind, farewell);
        let said = match ended {
            Ended::Theirs | Ended::Broken | Ended::Reset if is_refusal => dialer::Farewell::Refused,
            Ended::Theirs => dialer::Farewell::Closed,
            Ended::Ours | Ended::Broken | Ended::Clock | Ended::Reset => dialer::Farewell::Lost,
        };
        for dialer in self.dials_of(peer) {
            dialer.handle_disconnected(kind, said, reason.clone(), best.clone(), now);
        }
        if !self.unreported.remove(&id) {
            self.report(event::Event::Disconnected {
                t: self.t(now),
                peer,
                kind,
                reason,
            });
        }
    }

    /// A dial has failed, on all of its addresses.
    pub(crate) fn handle_dial_failed(
        &mut self,
        id: ConnectionId,
        failure: DialFailure,
        now: Instant,
    ) {
        let reason = failure.reason.clone();
        match self.purposes.remove(&id) {
            Some(Purpose::Leg(_)) => self.on_leg_failed(id, failure.fault, &reason, now),
            Some(Purpose::Direct(peer)) => {
                for dialer in self.dials_of(peer) {
                    dialer.handle_direct_failed(reason.clone());
                }
            }
            Some(Purpose::Local { peer, host }) => self.on_local_failed(peer, host, failure, now),
            Some(Purpose::FoundLeg(relay)) => self.on_found_leg_failed(relay, id, &reason, now),
            Some(
                purpose @ (Purpose::Circuit { .. }
                | Purpose::Reconnect { .. }
                | Purpose::SameFamilyCircuit(_)),
            ) => match failure.circuit {
                CircuitFailure::Refused => self.on_circuit_refused(purpose, reason, now),
                failed @ (CircuitFailure::Absent | CircuitFailure::Broken) => {
                    self.on_circuit_failed(purpose, failed, reason, now);
                }
            },
            // A punch's dial: its machine reports itself.
            None => tracing::debug!(connection = %id, %reason, "a dial failed"),
        }
        self.advance(now);
    }

    fn on_leg_failed(&mut self, id: ConnectionId, fault: Fault, reason: &str, now: Instant) {
        let (jitter, t) = (self.rng.f64(), self.t(now));
        let Some(Unreachable {
            relay,
            failures,
            is_news,
        }) = self.relays.handle_dial_failed(id, now, jitter)
        else {
            return;
        };
        self.relays.handle_down_for(&relay, fault, reason);
        let (peer, address) = (relay.peer, &relay.addr);
        if is_news {
            match fault {
                Fault::Local => {
                    tracing::warn!(target: event::LOGGED, relay = %peer, %address, %reason, "cannot dial a relay, because of this host; it is dialed again, ever less often");
                }
                // Whoever waits for the dial reads it there.
                Fault::Address | Fault::Remote if !self.dials.is_empty() => {
                    tracing::info!(target: event::LOGGED, relay = %peer, %address, %reason, "cannot reach a relay; it is dialed again, ever less often");
                }
                Fault::Address | Fault::Remote => {
                    tracing::warn!(target: event::LOGGED, relay = %peer, %address, %reason, "cannot reach a relay; it is dialed again, ever less often");
                }
            }
            self.report(event::Event::RelayUnreachable {
                t,
                relay: peer,
                reason: reason.to_owned(),
            });
        } else {
            tracing::debug!(relay = %peer, %address, %reason, failures, "cannot reach a relay");
        }
        if self.relays.is_unreachable(&peer)
            && let Some((fault, reason)) = self.relays.down_for(&peer)
        {
            for dial in &mut self.dials {
                dial.dialer()
                    .handle_relay_unreachable(peer, fault, &reason, now);
            }
        }
    }

    fn link(&self, peer: &PeerId, kind: PathKind) -> Link {
        match kind {
            PathKind::Relayed => Link::Circuit,
            PathKind::Direct if self.is_relay(peer) => Link::Leg,
            PathKind::Direct => Link::Direct,
        }
    }

    fn is_in_range(&self, path: &Path) -> bool {
        let local = path.hops.first().and_then(|hop| hop.local);
        local.is_none_or(|local| self.port_range.contains(local.port()))
    }
}
