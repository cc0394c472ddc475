//! Series of attempts: when one begins, how it ends, and what follows.

use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use p2pnode_transports::{Family, Transport};

use crate::punch::{
    machine::{
        Action, Context, Event, Side,
        attempt::{Attempt, Phase},
    },
    record::{Outcome, Reason, Role},
};

use super::{Peer, Plan, Series, multiaddrs};

/// Attempts in a series.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// The most handshakes with one peer in [`BUDGET_WINDOW`], those that the peer begins included. It bounds the packets that a peer
/// can make this node send to addresses of the peer's choice.
const BUDGET: usize = 8;
pub(super) const BUDGET_WINDOW: Duration = Duration::from_secs(60);

/// The same for a handshake that this node begins: longer, because the peer counts from when CONNECT arrives, which takes a varying time
/// over the circuit. A peer whose budget is spent ends the handshake.
const OWN_WINDOW: Duration = Duration::from_secs(61);

/// Which part of the time since its last direct connection a pair rests at most.
const HEALS: u32 = 8;

impl Peer {
    /// A circuit came, or the direct connection went: start over.
    pub(super) fn begin_series(&mut self, cx: &mut Context<'_>) {
        self.series = Series::default();
        self.keep_circuits(cx, true);
        if self
            .circuits
            .iter()
            .any(|circuit| circuit.side == Side::Listener)
        {
            self.plan = Plan::FirstCandidate {
                until: cx.now + cx.timing.first_candidate,
            };
            self.begin_attempt(cx);
        } else {
            self.plan = Plan::Peer {
                until: cx.now + cx.timing.silence,
            };
        }
    }

    /// Plans a series of its own accord: rest is over, or a candidate is new.
    pub(super) fn new_series(&mut self, at: Instant) {
        let rung = self.series.rung;
        self.series = Series {
            rung,
            ..Series::default()
        };
        self.plan = Plan::Begin { at };
    }

    /// Sends CONNECT, if there is something to offer and a circuit to send it over. The plan stays if there is not.
    pub(super) fn begin_attempt(&mut self, cx: &mut Context<'_>) {
        let Some(circuit) = self.circuit_to_open() else {
            self.plan = Plan::Nothing;
            return;
        };
        let mut offer = self.offer(cx);
        if offer.is_empty() {
            if let Plan::Begin { .. } = self.plan {
                self.plan = Plan::AnyCandidate;
            }
            return;
        }
        if let Some(at) = self.budget_frees(cx, OWN_WINDOW) {
            self.plan = Plan::Begin { at };
            return;
        }
        self.offered = offer.iter().copied().collect();
        let number = self.series.attempts + 1;
        if number == 2 && self.series.tcp_left_out {
            offer.retain(|candidate| candidate.transport == Transport::Tcp);
        }
        let until = cx.now + cx.timing.handshake;
        let mut attempt = Attempt::new(
            Some(circuit),
            Role::Initiator,
            number,
            cx.now,
            Phase::Offering { until },
        );
        attempt.everything = number == MAX_ATTEMPTS;
        attempt.sent = offer;
        let on_it = self.circuits.iter().find(|c| c.connection == circuit);
        // As it goes over the wire, so that the answer can be compared with it.
        let micros = |rtt: Duration| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        let rtt = on_it
            .and_then(|circuit| circuit.rtt)
            .map(|rtt| Duration::from_micros(micros(rtt)));
        attempt.rtt = rtt;
        let addrs = multiaddrs(&attempt.sent);
        self.attempt = Some(attempt);
        self.plan = Plan::Nothing;
        self.series.gave_up = false;
        self.begun.push_back(cx.now);
        self.keep_circuits(cx, true);
        cx.actions.push_back(Action::Connect {
            peer: self.id,
            circuit,
            addrs,
            rtt,
        });
    }

    /// Ends the attempt without success and plans what follows.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>, reason: Reason) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        let (role, is_introduced) = (attempt.role, attempt.is_introduced());
        let via = attempt.dialed_via();
        // An attempt without packets shows nothing new about the way to the peer.
        let of_series = match attempt.is_over_budget() {
            true => self.series.last.unwrap_or(reason),
            false => reason,
        };
        self.record(cx, attempt, Outcome::Failed(of_series), via);
        let reason = of_series;
        if is_introduced {
            // What the circuit brought meanwhile was held back for it, and has all its attempts.
            if self.is_relayed_only() {
                self.begin_series(cx);
            }
            return;
        }
        self.series.attempts += 1;
        self.series.last = Some(reason);
        if self.circuits.is_empty() {
            self.plan = Plan::Nothing;
            return;
        }
        match role {
            Role::Initiator if reason == Reason::RemoteUnsupported => self.refused_by_peer(cx),
            Role::Initiator if self.series.attempts < MAX_ATTEMPTS => {
                let over_circuit = [
                    Reason::HandshakeFailed,
                    Reason::HandshakeTimeout,
                    Reason::CircuitLost,
                ]
                .contains(&reason);
                let pause = if over_circuit {
                    cx.timing.handshake_retry
                } else {
                    Duration::ZERO
                };
                self.plan = Plan::Begin { at: cx.now + pause };
                self.handle_timeout(cx);
            }
            Role::Initiator => {
                let pause = self.pause(cx);
                self.give_up(cx, reason, pause);
                self.series.rung += 1;
                if let Some(pause) = pause {
                    self.new_series(cx.now + pause);
                    self.series.last = Some(reason);
                    self.series.gave_up = true;
                }
            }
            Role::Responder if self.series.attempts < MAX_ATTEMPTS => {
                self.plan = Plan::Peer {
                    until: cx.now + cx.timing.silence,
                };
            }
            Role::Responder => {
                self.give_up(cx, reason, None);
                self.series.attempts = 0;
            }
        }
    }

    /// How long the pair rests after a series: as the ladder says. A pair that was direct may soon be so again, so it rests for no
    /// longer than a share of the time for which it has not been.
    fn pause(&self, cx: &mut Context<'_>) -> Option<Duration> {
        let ladder = &cx.timing.ladder;
        let rest = *ladder.get(self.series.rung).or(ladder.last())?;
        let share = self.direct_lost.map(|at| {
            let relayed = cx.now.saturating_duration_since(at);
            (relayed / HEALS).max(cx.timing.heals)
        });
        Some(
            cx.jitter
                .spread(share.map_or(rest, |share| rest.min(share))),
        )
    }

    /// The peer takes no handshake from this side. If this side is the circuit's listener, the series ends. If this side is the
    /// dialer, the peer is another implementation and begins the next handshake itself.
    pub(super) fn refused_by_peer(&mut self, cx: &mut Context<'_>) {
        if let Some(reason) = self.wanted_after.take() {
            // It does not take this side's handshake, and nothing is new about its own.
            self.give_up(cx, reason, None);
        } else if self
            .circuits
            .iter()
            .all(|circuit| circuit.refuses && circuit.side == Side::Listener)
        {
            self.give_up(cx, Reason::RemoteUnsupported, None);
        }
        self.plan = Plan::Nothing;
    }

    pub(super) fn give_up(
        &mut self,
        cx: &mut Context<'_>,
        reason: Reason,
        retry_in: Option<Duration>,
    ) {
        if self.series.gave_up {
            return;
        }
        self.series.gave_up = true;
        self.keep_circuits(cx, false);
        cx.report(Event::GaveUp {
            peer: self.id,
            reason,
            attempts: self.series.attempts,
            retry_in,
        });
    }

    /// Ends the attempt that stands in the way of an answer.
    pub(super) fn give_way(&mut self, cx: &mut Context<'_>) {
        let Some(attempt) = &self.attempt else { return };
        let waits = matches!(attempt.phase, Phase::Synced { .. });
        if attempt.is_introduced() {
            self.supersede(cx);
        } else if attempt.role == Role::Responder
            && !waits
            && !attempt.is_fresh(cx.now, cx.timing.linger)
        {
            // The initiator has seen its dial fail, and ours will.
            let reason = attempt.reason(cx.local);
            self.fail(cx, reason);
        } else {
            self.supersede(cx);
        }
    }

    /// Ends the attempt for the sake of another, without counting it.
    pub(super) fn supersede(&mut self, cx: &mut Context<'_>) {
        self.drop_handshake(cx);
        if let Some(attempt) = self.attempt.take() {
            let via = attempt.dialed_via();
            self.record(cx, attempt, Outcome::Failed(Reason::Superseded), via);
        }
    }

    pub(super) fn record(
        &mut self,
        cx: &mut Context<'_>,
        attempt: Attempt,
        outcome: Outcome,
        via: Option<(Transport, Family)>,
    ) {
        let record = attempt.into_record(self.id, outcome, via, cx.now);
        cx.actions.push_back(Action::Forget { peer: self.id });
        self.last_end = Some(cx.now);
        self.last_record = Some(record.clone());
        cx.report(Event::Attempt(Box::new(record)));
    }

    /// `Some` if the budget of this time is spent, with the time from which it no longer is.
    pub(super) fn budget_frees(&mut self, cx: &Context<'_>, window: Duration) -> Option<Instant> {
        let is_over = |at: &Instant| *at + OWN_WINDOW <= cx.now;
        while self.begun.front().is_some_and(is_over) {
            self.begun.pop_front();
        }
        let nth = self.begun.len().checked_sub(BUDGET)?;
        let frees = *self.begun.get(nth)? + window;
        (cx.now < frees).then_some(frees)
    }

    /// The circuit over which this node may begin: one that it listened on; else any whose other end has not refused.
    pub(super) fn circuit_to_open(&self) -> Option<ConnectionId> {
        let open = || self.circuits.iter().filter(|circuit| !circuit.refuses);
        open()
            .find(|c| c.side == Side::Listener)
            .or_else(|| open().next())
            .map(|c| c.connection)
    }

    pub(super) fn soon_after_last(&self, cx: &Context<'_>) -> Instant {
        self.last_end
            .map_or(cx.now, |end| (end + cx.timing.new_candidate).max(cx.now))
    }
}
