//! The decisions for one peer.

mod handshake;
mod introduced;
mod series;
mod upkeep;

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::{Family, Remote};

use crate::punch::{
    address::Candidate,
    record::{CandidateOutcome, Outcome, Reason, Record},
    vouch::{Said, Vouch, Vouches},
};

use super::{
    Context, Established, Event, Side,
    attempt::{Attempt, Phase},
    directs::Directs,
};

/// The longest round trip time of a circuit that is gone by.
const MAX_CIRCUIT_RTT: Duration = Duration::from_secs(1);

/// How many bytes a peer can make this node send to a third party for each byte that the peer sends: what a QUIC server may send to
/// an address that is not validated ([RFC 9000, 8.1](https://www.rfc-editor.org/rfc/rfc9000#section-8.1)).
const AMPLIFICATION: u64 = 3;

/// What is known of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    id: PeerId,
    circuits: Vec<Circuit>,
    directs: Directs,
    attempt: Option<Attempt>,
    series: Series,
    /// Why the series before the one that the user wants has failed.
    wanted_after: Option<Reason>,
    plan: Plan,
    /// What the last handshake offered: another candidate is a new one.
    offered: HashSet<Candidate>,
    /// The family that the peer prefers, once it has identified itself.
    prefers: Identified,
    /// Whether this node dialed the peer, over a circuit or with an introduction; the last one counts.
    dials: Option<bool>,
    /// What relays vouch for.
    vouches: Vouches,
    /// When the last handshakes began, oldest first.
    begun: VecDeque<Instant>,
    last_end: Option<Instant>,
    /// When the last direct connection was lost.
    direct_lost: Option<Instant>,
    /// What there was to offer when that changed last.
    known: HashSet<Candidate>,
    last_record: Option<Record>,
    touched: Option<Instant>,
    due: Option<Instant>,
}

/// What a peer reports of itself in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identified {
    NotYet,
    Prefers(Option<Family>),
}

#[derive(Debug)]
struct Circuit {
    connection: ConnectionId,
    side: Side,
    since: Instant,
    /// A stream is on it that cannot move.
    is_used: bool,
    /// How long a message over it and its answer take, as last measured.
    rtt: Option<Duration>,
    /// The peer, who dialed us or whom we dialed, takes no handshake from this end.
    refuses: bool,
    /// How many bytes have come from the peer over it, and how many have gone where no relay vouches for the peer.
    received: u64,
    spent: u64,
}

impl Circuit {
    /// Whether so many bytes may go to an address of a third party. They count from now on.
    fn spend(&mut self, bytes: u64) -> bool {
        let fits = self.spent + bytes <= self.received.saturating_mul(AMPLIFICATION);
        if fits {
            self.spent += bytes;
        }
        fits
    }
}

/// A row of attempts.
#[derive(Debug, Default)]
struct Series {
    /// Attempts that have ended.
    attempts: u32,
    last: Option<Reason>,
    /// The next pause of the ladder.
    rung: usize,
    /// Handshakes, as responder, whose CONNECT listed several transports.
    mixed: u32,
    /// An attempt over TCP has failed because both sides took the dialer's role.
    both_dialed: bool,
    /// Initiator: this series has already started again for the private addresses.
    knows_nat: bool,
    /// Initiator: the last round dialed QUIC alone although both sides have TCP too.
    tcp_left_out: bool,
    gave_up: bool,
}

/// What comes next while no attempt runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Begin as soon as there is a candidate; its lack is reported then.
    FirstCandidate {
        until: Instant,
    },
    /// Begin as soon as there is a candidate.
    AnyCandidate,
    /// Begin then.
    Begin {
        at: Instant,
    },
    /// The peer begins; report if it does not.
    Peer {
        until: Instant,
    },
}

impl Peer {
    pub(super) fn new(id: PeerId) -> Self {
        Self {
            id,
            circuits: Vec::new(),
            directs: Directs::default(),
            attempt: None,
            series: Series::default(),
            wanted_after: None,
            plan: Plan::Nothing,
            offered: HashSet::new(),
            prefers: Identified::NotYet,
            dials: None,
            vouches: Vouches::default(),
            begun: VecDeque::new(),
            last_end: None,
            direct_lost: None,
            known: HashSet::new(),
            last_record: None,
            touched: None,
            due: None,
        }
    }

    pub(super) fn handle_relayed(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        side: Side,
        rtt: Option<Duration>,
    ) {
        self.begin_session();
        self.dials = Some(side == Side::Dialer);
        self.circuits.push(Circuit {
            connection,
            side,
            since: cx.now,
            is_used: false,
            rtt,
            refuses: false,
            received: 0,
            spent: 0,
        });
        if !cx.enabled {
            self.keep_circuits(cx, false);
            self.give_up(cx, Reason::Disabled, None);
            return;
        }
        if self.attempt.as_ref().is_some_and(Attempt::is_introduced) {
            self.keep_circuits(cx, true);
        }
        let idle = matches!(self.plan, Plan::Nothing | Plan::Peer { .. });
        if self.directs.is_empty() && self.attempt.is_none() && idle {
            self.begin_series(cx);
        }
    }

    /// The next connection may be the first of a session. Another run of the peer may prefer another family, and the other side
    /// may have dialed.
    fn begin_session(&mut self) {
        if self.is_absent() {
            self.prefers = Identified::NotYet;
            self.dials = None;
        }
    }

    pub(super) fn handle_direct(&mut self, cx: &mut Context<'_>, established: Established) {
        self.begin_session();
        let first = self.directs.add(established, cx.now);
        self.drop_handshake(cx);
        if let Some(mut attempt) = self.attempt.take() {
            if attempt.found {
                self.directs.leave_older(cx.now);
            }
            if let Some(remote) = established.remote.filter(|_| established.dialed) {
                attempt.set_outcome(&remote, CandidateOutcome::Connected);
            }
            let outcome = Outcome::Direct {
                connection: established.connection,
                dialed: established.dialed,
            };
            let via = established
                .remote
                .map(|remote| (remote.transport, remote.family()));
            self.series.attempts = attempt.number;
            self.record(cx, attempt, outcome, via);
        }
        if first {
            cx.report(Event::Direct {
                peer: self.id,
                connection_id: established.connection,
                attempts: self.series.attempts,
            });
        }
        self.plan = Plan::Nothing;
        self.series = Series::default();
    }

    pub(super) fn handle_closed(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        self.circuits
            .retain(|circuit| circuit.connection != connection);
        let lost = self.directs.remove(connection);
        if lost {
            self.direct_lost = Some(cx.now);
        }

        let in_handshake = self
            .attempt
            .as_ref()
            .is_some_and(|a| a.circuit == Some(connection) && a.phase.is_handshake());
        // A peer that leaves closes its direct connection and then the circuit: that is no failure of the handshake which began
        // between the two.
        let just_lost = |at: Instant| cx.now < at + cx.timing.grace;
        if in_handshake && self.circuits.is_empty() && self.direct_lost.is_some_and(just_lost) {
            self.attempt = None;
        } else if in_handshake {
            self.fail(cx, Reason::CircuitLost);
        }
        if self.circuits.is_empty() {
            self.plan = Plan::Nothing;
        } else if lost && cx.enabled {
            self.begin_series(cx);
        }
    }

    /// The peer prefers this family.
    pub(super) fn handle_preference(&mut self, prefers: Option<Family>) {
        self.prefers = Identified::Prefers(prefers);
    }

    /// Streams that cannot move are on these connections. A connection that is used no longer has its time again before it closes.
    pub(super) fn handle_used(&mut self, cx: &mut Context<'_>, used: &[ConnectionId]) {
        for circuit in &mut self.circuits {
            let is_used = used.contains(&circuit.connection);
            if circuit.is_used && !is_used {
                circuit.since = cx.now;
            }
            circuit.is_used = is_used;
        }
        self.directs.set_used(used, cx.now);
    }

    /// The user wants the peer to be direct. If it was given up for now, another series begins, in which this node has the first
    /// word.
    pub(super) fn handle_wanted(&mut self, cx: &mut Context<'_>) {
        let is_due = cx.enabled && self.is_relayed_only() && self.attempt.is_none();
        if is_due && self.series.gave_up && self.circuit_to_open().is_some() {
            self.wanted_after = self.series.last;
            let soon = self.soon_after_last(cx);
            self.new_series(soon);
        }
    }

    pub(super) fn handle_candidates_changed(&mut self, cx: &mut Context<'_>) {
        if !cx.enabled || !self.is_relayed_only() {
            return;
        }
        if let Some(attempt) = &self.attempt {
            let is_held = matches!(attempt.phase, Phase::Holding { .. });
            if is_held && !self.offer(cx).is_empty() {
                self.answer(cx);
            }
            return;
        }
        let offer: HashSet<_> = self.offer(cx).into_iter().collect();
        // A mapping that is back is a sign that the network is, too.
        let is_back = self.direct_lost.is_some() && !offer.is_subset(&self.known);
        let news = is_back || !offer.is_subset(&self.offered);
        self.known = offer;
        match self.plan {
            Plan::FirstCandidate { .. } | Plan::AnyCandidate => self.begin_attempt(cx),
            Plan::Begin { at } if news => {
                let soon = self.soon_after_last(cx);
                if soon < at {
                    self.new_series(soon);
                }
            }
            // This is the responder's part. It begins out of turn only after an attempt with the peer has failed.
            Plan::Peer { .. } | Plan::Nothing if news && self.series.last.is_some() => {
                if self.circuit_to_open().is_some() {
                    let soon = self.soon_after_last(cx);
                    self.new_series(soon);
                }
            }
            Plan::Begin { .. } | Plan::Peer { .. } | Plan::Nothing => {}
        }
    }

    /// A relay vouches for this.
    pub(super) fn handle_vouched(
        &mut self,
        cx: &mut Context<'_>,
        relay: PeerId,
        said: Said,
        vouch: Vouch,
    ) {
        let before = self.vouches.at(cx.now);
        self.vouches.add(relay, said, vouch, cx.now);
        let vouches = self.vouches.at(cx.now);
        if vouches == before {
            return;
        }
        if let Some(attempt) = &mut self.attempt
            && matches!(attempt.phase, Phase::Dialing { .. })
            && attempt.vouch(&vouches)
        {
            let dialed = attempt.dialed();
            cx.actions
                .push_back(attempt.expect(self.id, &dialed, Remote::Unknown));
        }
        self.handle_candidates_changed(cx);
    }

    pub(super) fn handle_received(&mut self, circuit: ConnectionId, bytes: u64) {
        let mut circuits = self.circuits.iter_mut();
        if let Some(circuit) = circuits.find(|known| known.connection == circuit) {
            circuit.received = circuit.received.max(bytes);
        }
    }

    /// What the peer may be offered.
    fn offer(&self, cx: &Context<'_>) -> Vec<Candidate> {
        cx.local.offer(cx.policy, &self.vouches.at(cx.now))
    }

    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if let Some(attempt) = &self.attempt {
            let is_due = self.attempt_due(cx).is_some_and(|due| due <= cx.now);
            let reason = match attempt.phase {
                _ if !is_due => None,
                Phase::Offering { .. } | Phase::Answered { .. } => Some(Reason::HandshakeTimeout),
                Phase::Dialing { .. } | Phase::Waiting { .. } => Some(attempt.reason(cx.local)),
                Phase::Holding { .. } => {
                    self.answer(cx);
                    None
                }
                Phase::Synced { .. } => {
                    self.dial(cx);
                    None
                }
            };
            if let Some(reason) = reason {
                self.drop_handshake(cx);
                self.fail(cx, reason);
            }
        }
        match self.plan {
            Plan::Begin { at } if at <= cx.now => self.begin_attempt(cx),
            Plan::FirstCandidate { until } if until <= cx.now => {
                self.give_up(cx, Reason::NoCandidates, None);
                self.plan = Plan::AnyCandidate;
            }
            Plan::Peer { until } if until <= cx.now => {
                let reason = self.series.last.unwrap_or(Reason::RemoteSilent);
                self.give_up(cx, reason, None);
                self.plan = Plan::Nothing;
            }
            Plan::Nothing
            | Plan::AnyCandidate
            | Plan::Begin { .. }
            | Plan::FirstCandidate { .. }
            | Plan::Peer { .. } => {}
        }
        self.close_surplus(cx);
        self.close_circuits(cx);
    }

    /// Whether the peer is reached over relays alone.
    pub(super) fn is_relayed_only(&self) -> bool {
        self.directs.is_empty() && !self.circuits.is_empty()
    }

    pub(super) fn is_absent(&self) -> bool {
        self.directs.is_empty() && self.circuits.is_empty() && self.attempt.is_none()
    }

    pub(super) fn last_record(&self) -> Option<&Record> {
        self.last_record.as_ref()
    }

    pub(super) fn touched(&self) -> Option<Instant> {
        self.touched
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// To be called after each decision.
    pub(super) fn settle(&mut self, cx: &Context<'_>) {
        self.touched = Some(cx.now);
        let plan = match self.plan {
            Plan::Begin { at } => Some(at),
            Plan::FirstCandidate { until } | Plan::Peer { until } => Some(until),
            Plan::Nothing | Plan::AnyCandidate => None,
        };
        let attempt = self.attempt_due(cx);
        let circuits = self
            .circuits
            .iter()
            .filter_map(|circuit| self.circuit_due(circuit, cx))
            .min();
        self.due = [plan, attempt, self.surplus_due(cx), circuits]
            .into_iter()
            .flatten()
            .min();
    }
}

fn multiaddrs(candidates: &[Candidate]) -> Vec<Multiaddr> {
    candidates
        .iter()
        .copied()
        .map(Candidate::to_multiaddr)
        .collect()
}
