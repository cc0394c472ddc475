//! The decisions for one peer.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::Kind;

use crate::punch::{
    address::{Candidate, Scope},
    record::{CandidateOutcome, Outcome, Reason, Record, Role},
    wire::Addresses,
};

use super::{
    Action, Context, DialId, Established, Event, HandshakeError, Side,
    attempt::{Attempt, Phase},
    directs::{Directs, decides},
    round::{choose, common, is_mixed},
};

/// Attempts in a series.
const MAX_ATTEMPTS: u32 = 3;

/// The most handshakes with one peer in [`BUDGET_WINDOW`], whoever begins them: it bounds the packets that a peer can make
/// this node send to addresses of its choice.
const BUDGET: usize = 8;
const BUDGET_WINDOW: Duration = Duration::from_secs(60);

/// The longest that SYNC is waited for to arrive: a peer that answers late must not delay the dial by as much.
const MAX_SYNC_DELAY: Duration = Duration::from_millis(500);

/// The most public addresses that are remembered of a peer.
const MAX_REMOTE_IPS: usize = 8;

/// What is known of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    id: PeerId,
    circuits: Vec<Circuit>,
    directs: Directs,
    attempt: Option<Attempt>,
    series: Series,
    plan: Plan,
    /// What the last handshake offered: another candidate is a new one.
    offered: HashSet<Candidate>,
    /// The addresses that the peer showed in its last handshake.
    remote_ips: BTreeSet<IpAddr>,
    /// When the last handshakes began, oldest first.
    begun: VecDeque<Instant>,
    last_end: Option<Instant>,
    last_record: Option<Record>,
    touched: Option<Instant>,
    due: Option<Instant>,
}

#[derive(Debug)]
struct Circuit {
    connection: ConnectionId,
    side: Side,
    since: Instant,
    /// The peer, who dialed us or whom we dialed, takes no handshake from this end.
    refuses: bool,
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
    /// Initiator: the last round dialed QUIC alone although both sides have TCP too.
    tcp_left_out: bool,
    gave_up: bool,
}

/// What comes next while no attempt runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Begin as soon as there is a candidate; its lack is reported then.
    FirstCandidate { until: Instant },
    /// Begin as soon as there is a candidate.
    AnyCandidate,
    /// Begin then.
    Begin { at: Instant },
    /// The peer begins; report if it does not.
    Peer { until: Instant },
}

impl Peer {
    pub(super) fn new(id: PeerId) -> Self {
        Self {
            id,
            circuits: Vec::new(),
            directs: Directs::default(),
            attempt: None,
            series: Series::default(),
            plan: Plan::Nothing,
            offered: HashSet::new(),
            remote_ips: BTreeSet::new(),
            begun: VecDeque::new(),
            last_end: None,
            last_record: None,
            touched: None,
            due: None,
        }
    }

    pub(super) fn handle_relayed(&mut self, cx: &mut Context<'_>, connection: ConnectionId, side: Side) {
        self.circuits.push(Circuit { connection, side, since: cx.now, refuses: false });
        if !cx.enabled {
            self.keep_circuits(cx, false);
            self.give_up(cx, Reason::Disabled, None);
            return;
        }
        let idle = matches!(self.plan, Plan::Nothing | Plan::Peer { .. });
        if self.directs.is_empty() && self.attempt.is_none() && idle {
            self.begin_series(cx);
        }
    }

    pub(super) fn handle_direct(&mut self, cx: &mut Context<'_>, established: Established) {
        let first = self.directs.add(established, cx.now);
        if let Some(mut attempt) = self.attempt.take() {
            if attempt.phase.is_handshake() {
                cx.actions.push_back(Action::Drop { peer: self.id, circuit: attempt.circuit, role: attempt.role });
            }
            if let Some(remote) = established.remote.filter(|_| established.dialed) {
                attempt.set_outcome(&remote, CandidateOutcome::Connected);
            }
            let outcome =
                Outcome::Direct { connection: established.connection, dialed: established.dialed };
            self.series.attempts = attempt.number;
            self.record(cx, attempt, outcome);
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
        self.circuits.retain(|circuit| circuit.connection != connection);
        let lost = self.directs.remove(connection);

        let in_handshake =
            self.attempt.as_ref().is_some_and(|a| a.circuit == connection && a.phase.is_handshake());
        if in_handshake {
            self.fail(cx, Reason::CircuitLost);
        }
        if self.circuits.is_empty() {
            self.plan = Plan::Nothing;
        } else if lost && cx.enabled {
            self.begin_series(cx);
        }
    }

    pub(super) fn handle_candidates_changed(&mut self, cx: &mut Context<'_>) {
        if !cx.enabled || !self.is_relayed_only() {
            return;
        }
        if let Some(attempt) = &self.attempt {
            if let Phase::Holding { .. } = attempt.phase {
                self.answer(cx);
            }
            return;
        }
        let offer = cx.local.offer(cx.policy, &self.remote_ips);
        let news = offer.iter().any(|candidate| !self.offered.contains(candidate));
        match self.plan {
            Plan::FirstCandidate { .. } | Plan::AnyCandidate => self.begin_attempt(cx),
            Plan::Begin { at } if news => {
                let soon = self.soon_after_last(cx);
                if soon < at {
                    self.new_series(soon);
                }
            }
            // The responder's part: only a peer that has been tried in vain is asked out of turn.
            Plan::Peer { .. } | Plan::Nothing if news && self.series.last.is_some() => {
                if self.circuit_to_open().is_some() {
                    let soon = self.soon_after_last(cx);
                    self.new_series(soon);
                }
            }
            Plan::Begin { .. } | Plan::Peer { .. } | Plan::Nothing => {}
        }
    }

    /// CONNECT came over a circuit: this node is the responder.
    pub(super) fn handle_connect(&mut self, cx: &mut Context<'_>, circuit: ConnectionId, addrs: Addresses) {
        if !self.may_answer(cx, circuit) {
            cx.actions.push_back(Action::Drop { peer: self.id, circuit, role: Role::Responder });
            return;
        }
        self.give_way(cx);
        self.begun.push_back(cx.now);
        self.learn_remote_ips(&addrs.known);

        let until = cx.now + cx.timing.first_candidate;
        let number = self.series.attempts + 1;
        let mut attempt = Attempt::new(circuit, Role::Responder, number, cx.now, Phase::Holding { until });
        let listed: Vec<_> = addrs.known.iter().filter_map(Candidate::parse).collect();
        attempt.everything = is_mixed(&listed) && self.series.mixed > 0;
        self.series.mixed += u32::from(is_mixed(&listed));
        let admitted = cx.local.admit(cx.policy, &cx.relays.sockets, self.id, &addrs.known);
        attempt.set_received(admitted, addrs.skipped);
        self.attempt = Some(attempt);
        self.plan = Plan::Nothing;
        if !cx.local.offer(cx.policy, &self.remote_ips).is_empty() {
            self.answer(cx);
        }
    }

    /// SYNC came: dial now.
    pub(super) fn handle_sync(&mut self, cx: &mut Context<'_>, circuit: ConnectionId) {
        let awaited = self
            .attempt
            .as_ref()
            .is_some_and(|a| a.circuit == circuit && matches!(a.phase, Phase::Answered { .. }));
        if awaited {
            self.dial(cx);
        }
    }

    /// The answer to our CONNECT came, and SYNC is on its way.
    pub(super) fn handle_answer(
        &mut self,
        cx: &mut Context<'_>,
        circuit: ConnectionId,
        addrs: Addresses,
        rtt: Duration,
        synced: Instant,
    ) {
        self.learn_remote_ips(&addrs.known);
        let admitted = cx.local.admit(cx.policy, &cx.relays.sockets, self.id, &addrs.known);
        let Some(attempt) = &mut self.attempt else { return };
        if attempt.circuit != circuit || !matches!(attempt.phase, Phase::Offering { .. }) {
            return;
        }
        attempt.set_received(admitted, addrs.skipped);
        attempt.rtt = Some(rtt);
        let dial_at = synced + (rtt / 2).min(MAX_SYNC_DELAY);
        attempt.phase = Phase::Synced { dial_at };
        if dial_at <= cx.now {
            self.dial(cx);
        }
    }

    pub(super) fn handle_handshake_failed(
        &mut self,
        cx: &mut Context<'_>,
        circuit: ConnectionId,
        role: Role,
        error: HandshakeError,
    ) {
        let concerns = self
            .attempt
            .as_ref()
            .is_some_and(|a| a.circuit == circuit && a.role == role && a.phase.is_handshake());
        if !concerns {
            return;
        }
        let reason = match error {
            HandshakeError::Unsupported => Reason::RemoteUnsupported,
            HandshakeError::Timeout => Reason::HandshakeTimeout,
            HandshakeError::Broken => Reason::HandshakeFailed,
        };
        if let Some(circuit) = self.circuits.iter_mut().find(|c| c.connection == circuit) {
            circuit.refuses |= error == HandshakeError::Unsupported;
        }
        self.fail(cx, reason);
    }

    pub(super) fn handle_dial_failed(
        &mut self,
        cx: &mut Context<'_>,
        dial: DialId,
        outcomes: &[(Candidate, CandidateOutcome)],
    ) {
        let Some(attempt) = &mut self.attempt else { return };
        let Phase::Dialing { dial: running, began, .. } = attempt.phase else { return };
        if running != dial {
            return;
        }
        for (candidate, outcome) in outcomes {
            attempt.set_outcome(candidate, *outcome);
        }
        // The responder leaves the next word to the initiator; its dials may outlast ours.
        let linger = match attempt.role {
            Role::Initiator => cx.timing.linger,
            Role::Responder => cx.timing.attempt,
        };
        attempt.phase = Phase::Waiting { until: (began + linger).max(cx.now) };
        self.handle_timeout(cx);
    }

    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if let Some(attempt) = &self.attempt {
            let reason = match attempt.phase {
                phase if phase.deadline() > cx.now => None,
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
            Plan::Nothing | Plan::AnyCandidate | Plan::Begin { .. } | Plan::FirstCandidate { .. } | Plan::Peer { .. } => {}
        }
        self.close_surplus(cx);
        self.close_circuits(cx);
    }

    pub(super) fn prefer(&mut self, connection: Option<ConnectionId>) {
        self.directs.prefer(connection);
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
        let attempt = self.attempt.as_ref().map(|attempt| attempt.phase.deadline());
        let circuits = self.circuits.iter().filter_map(|circuit| self.circuit_due(circuit, cx)).min();
        self.due = [plan, attempt, self.surplus_due(cx), circuits].into_iter().flatten().min();
    }
}

/// Series and attempts.
impl Peer {
    /// A circuit came, or the direct connection went: start over.
    fn begin_series(&mut self, cx: &mut Context<'_>) {
        self.series = Series::default();
        self.keep_circuits(cx, true);
        if self.circuits.iter().any(|circuit| circuit.side == Side::Listener) {
            self.plan = Plan::FirstCandidate { until: cx.now + cx.timing.first_candidate };
            self.begin_attempt(cx);
        } else {
            self.plan = Plan::Peer { until: cx.now + cx.timing.silence };
        }
    }

    /// Plans a series of its own accord: rest is over, or a candidate is new.
    fn new_series(&mut self, at: Instant) {
        let rung = self.series.rung;
        self.series = Series { rung, ..Series::default() };
        self.plan = Plan::Begin { at };
    }

    /// Sends CONNECT, if there is something to offer and a circuit to send it over. The plan stays if there is not.
    fn begin_attempt(&mut self, cx: &mut Context<'_>) {
        let Some(circuit) = self.circuit_to_open() else {
            self.plan = Plan::Nothing;
            return;
        };
        let mut offer = cx.local.offer(cx.policy, &self.remote_ips);
        if offer.is_empty() {
            if let Plan::Begin { .. } = self.plan {
                self.plan = Plan::AnyCandidate;
            }
            return;
        }
        if let Some(at) = self.budget_frees(cx) {
            self.plan = Plan::Begin { at };
            return;
        }
        self.offered = offer.iter().copied().collect();
        let number = self.series.attempts + 1;
        if number == 2 && self.series.tcp_left_out {
            offer.retain(|candidate| candidate.kind == Kind::Tcp);
        }
        let until = cx.now + cx.timing.handshake;
        let mut attempt = Attempt::new(circuit, Role::Initiator, number, cx.now, Phase::Offering { until });
        attempt.everything = number == MAX_ATTEMPTS;
        attempt.sent = offer;
        let addrs = multiaddrs(&attempt.sent);
        self.attempt = Some(attempt);
        self.plan = Plan::Nothing;
        self.series.gave_up = false;
        self.begun.push_back(cx.now);
        self.keep_circuits(cx, true);
        cx.actions.push_back(Action::Connect { peer: self.id, circuit, addrs });
    }

    /// Sends the answer to CONNECT, with the transports that the initiator listed, or all if we have none of these.
    fn answer(&mut self, cx: &mut Context<'_>) {
        let Some(attempt) = &mut self.attempt else { return };
        let mut offer = cx.local.offer(cx.policy, &self.remote_ips);
        self.offered = offer.iter().copied().collect();
        let received = attempt.received();
        let listed = |candidate: &Candidate| received.iter().any(|r| r.kind == candidate.kind);
        if offer.iter().any(listed) {
            offer.retain(listed);
        }
        attempt.sent = offer;
        attempt.phase = Phase::Answered { until: cx.now + cx.timing.handshake };
        let addrs = multiaddrs(&attempt.sent);
        let circuit = attempt.circuit;
        self.series.gave_up = false;
        self.keep_circuits(cx, true);
        cx.actions.push_back(Action::Reply { peer: self.id, circuit, addrs });
    }

    fn dial(&mut self, cx: &mut Context<'_>) {
        let Some(attempt) = &mut self.attempt else { return };
        let received = attempt.received();
        let chosen = choose(&attempt.sent, &received, attempt.everything);
        if attempt.role == Role::Initiator {
            let tcp_too = common(&attempt.sent, &received).any(|kind| kind == Kind::Tcp);
            self.series.tcp_left_out = tcp_too && chosen.iter().all(|c| c.kind == Kind::Quic);
        }
        if chosen.is_empty() {
            attempt.phase = Phase::Waiting { until: cx.now + cx.timing.attempt };
            return;
        }
        for candidate in &chosen {
            attempt.set_outcome(candidate, CandidateOutcome::Pending);
        }
        let dial = cx.dial_id();
        let attempt_time = match attempt.role {
            // The next round dials another transport, so it need not wait until this one's sockets are free.
            Role::Initiator if self.series.tcp_left_out && attempt.number == 1 => {
                let rtts = attempt.rtt.unwrap_or_default() * 8;
                cx.timing.attempt.max(rtts).min(cx.timing.dial)
            }
            Role::Initiator | Role::Responder => cx.timing.dial,
        };
        attempt.phase = Phase::Dialing { dial, began: cx.now, until: cx.now + attempt_time };
        cx.actions.push_back(Action::Dial { peer: self.id, dial, addrs: multiaddrs(&chosen), role: attempt.role });
    }

    /// Ends the attempt without success and plans what follows.
    fn fail(&mut self, cx: &mut Context<'_>, reason: Reason) {
        let Some(attempt) = self.attempt.take() else { return };
        let role = attempt.role;
        self.record(cx, attempt, Outcome::Failed(reason));
        self.series.attempts += 1;
        self.series.last = Some(reason);
        if self.circuits.is_empty() {
            self.plan = Plan::Nothing;
            return;
        }
        match role {
            Role::Initiator if reason == Reason::RemoteUnsupported => self.refused_by_peer(cx),
            Role::Initiator if self.series.attempts < MAX_ATTEMPTS => {
                let pause = match reason {
                    Reason::HandshakeFailed | Reason::HandshakeTimeout | Reason::CircuitLost => cx.timing.handshake_retry,
                    _ => Duration::ZERO,
                };
                self.plan = Plan::Begin { at: cx.now + pause };
                self.handle_timeout(cx);
            }
            Role::Initiator => {
                let rung = self.series.rung.min(cx.timing.ladder.len().saturating_sub(1));
                let pause = cx.timing.ladder.get(rung).copied().map(|pause| cx.jitter.spread(pause));
                self.give_up(cx, reason, pause);
                self.series.rung = rung + 1;
                if let Some(pause) = pause {
                    self.new_series(cx.now + pause);
                    self.series.last = Some(reason);
                    self.series.gave_up = true;
                }
            }
            Role::Responder if self.series.attempts < MAX_ATTEMPTS => {
                self.plan = Plan::Peer { until: cx.now + cx.timing.silence };
            }
            Role::Responder => {
                self.give_up(cx, reason, None);
                self.series.attempts = 0;
            }
        }
    }

    /// The peer takes no handshake from this side. As the circuit's listener that is the end of it; as its dialer it only
    /// means that the peer is another implementation, and that the next word is its own.
    fn refused_by_peer(&mut self, cx: &mut Context<'_>) {
        if self.circuits.iter().all(|circuit| circuit.refuses && circuit.side == Side::Listener) {
            self.give_up(cx, Reason::RemoteUnsupported, None);
        }
        self.plan = Plan::Nothing;
    }

    fn give_up(&mut self, cx: &mut Context<'_>, reason: Reason, retry_in: Option<Duration>) {
        if self.series.gave_up {
            return;
        }
        self.series.gave_up = true;
        self.keep_circuits(cx, false);
        cx.report(Event::GaveUp { peer: self.id, reason, attempts: self.series.attempts, retry_in });
    }

    /// Ends the attempt that stands in the way of an answer.
    fn give_way(&mut self, cx: &mut Context<'_>) {
        let Some(attempt) = &self.attempt else { return };
        match attempt.role {
            Role::Initiator => {
                let attempts = self.series.attempts;
                self.drop_handshake(cx);
                if let Some(attempt) = self.attempt.take() {
                    self.record(cx, attempt, Outcome::Failed(Reason::Superseded));
                }
                self.series.attempts = attempts;
            }
            // The initiator begins anew: its dial has failed, and ours will.
            Role::Responder => {
                let reason = attempt.reason(cx.local);
                self.fail(cx, reason);
            }
        }
    }

    fn record(&mut self, cx: &mut Context<'_>, attempt: Attempt, outcome: Outcome) {
        let record = attempt.into_record(self.id, outcome, cx.now);
        self.last_end = Some(cx.now);
        self.last_record = Some(record.clone());
        cx.report(Event::Attempt(Box::new(record)));
    }

    /// Drops the stream of the handshake, if the attempt still has one.
    fn drop_handshake(&mut self, cx: &mut Context<'_>) {
        if let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.phase.is_handshake()) {
            cx.actions.push_back(Action::Drop { peer: self.id, circuit: attempt.circuit, role: attempt.role });
        }
    }

    fn may_answer(&mut self, cx: &Context<'_>, circuit: ConnectionId) -> bool {
        let known = self.circuits.iter().any(|c| c.connection == circuit);
        if !cx.enabled || !known || !self.directs.is_empty() || self.budget_frees(cx).is_some() {
            return false;
        }
        match &self.attempt {
            None => true,
            // Both began at once: the one with the smaller peer id goes on.
            Some(attempt) if attempt.role == Role::Initiator => !decides(cx.local_id, self.id),
            Some(attempt) => !attempt.phase.is_handshake(),
        }
    }

    /// `Some` if the budget is spent, with the time from which it no longer is.
    fn budget_frees(&mut self, cx: &Context<'_>) -> Option<Instant> {
        while self.begun.front().is_some_and(|at| *at + BUDGET_WINDOW <= cx.now) {
            self.begun.pop_front();
        }
        (self.begun.len() >= BUDGET).then(|| self.begun.front().map(|at| *at + BUDGET_WINDOW)).flatten()
    }

    /// The circuit over which this node may begin: one that it listened on; else any whose other end has not refused.
    fn circuit_to_open(&self) -> Option<ConnectionId> {
        let open = || self.circuits.iter().filter(|circuit| !circuit.refuses);
        open().find(|c| c.side == Side::Listener).or_else(|| open().next()).map(|c| c.connection)
    }

    fn soon_after_last(&self, cx: &Context<'_>) -> Instant {
        self.last_end.map_or(cx.now, |end| (end + cx.timing.new_candidate).max(cx.now))
    }

    fn learn_remote_ips(&mut self, addrs: &[Multiaddr]) {
        let ips: BTreeSet<IpAddr> = addrs
            .iter()
            .filter_map(Candidate::parse)
            .filter(|candidate| matches!(candidate.scope(), Scope::Global | Scope::Private))
            .map(|candidate| candidate.socket.ip())
            .take(MAX_REMOTE_IPS)
            .collect();
        if !ips.is_empty() {
            self.remote_ips = ips;
        }
    }
}

/// Connections that are no longer needed.
impl Peer {
    fn surplus_due(&self, cx: &Context<'_>) -> Option<Instant> {
        let is_relay = cx.relays.peers.contains(&self.id);
        let concerns = !self.circuits.is_empty() || self.last_record.is_some() || self.directs.is_crossed();
        if is_relay || !concerns || !cx.enabled {
            return None;
        }
        self.directs.surplus_due(decides(cx.local_id, self.id), cx.timing)
    }

    fn close_surplus(&mut self, cx: &mut Context<'_>) {
        if self.surplus_due(cx).is_some_and(|due| due <= cx.now) {
            for connection in self.directs.take_surplus() {
                cx.actions.push_back(Action::Close { peer: self.id, connection });
            }
        }
    }

    fn circuit_due(&self, circuit: &Circuit, cx: &Context<'_>) -> Option<Instant> {
        if !cx.enabled {
            return None;
        }
        self.directs.since().map(|direct| direct.max(circuit.since) + cx.timing.grace)
    }

    fn close_circuits(&mut self, cx: &mut Context<'_>) {
        let (expired, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.circuits)
            .into_iter()
            .partition(|circuit| self.circuit_due(circuit, cx).is_some_and(|due| due <= cx.now));
        self.circuits = kept;
        for circuit in expired {
            cx.actions.push_back(Action::Close { peer: self.id, connection: circuit.connection });
        }
    }

    fn keep_circuits(&mut self, cx: &mut Context<'_>, keep: bool) {
        for circuit in &self.circuits {
            cx.actions.push_back(Action::KeepAlive { peer: self.id, circuit: circuit.connection, keep });
        }
    }
}

fn multiaddrs(candidates: &[Candidate]) -> Vec<Multiaddr> {
    candidates.iter().copied().map(Candidate::to_multiaddr).collect()
}
