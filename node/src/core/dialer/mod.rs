//! The course of one `dial`: which addresses and circuits to try, when to wait for a punch, when it is over and how it ended.
//!
//! Pure: the time is an argument, and [`Dialer::poll_action`] returns what is to be done.

mod circuit;
mod connections;
mod doubt;
mod introduction;
mod local;
mod lookup;
mod losses;
mod outcome;
mod pace;
mod pinging;
mod pings;
mod relay;
mod request;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_protocol::directory::Found;

use crate::{
    core::{
        event::{Event, FoundBy, PingTotals},
        peers::{Path, PathKind},
    },
    punch::Reason,
};

use circuit::{Circuit, Relay};
use introduction::Introductions;
use local::Local;
use lookup::Lookup;
use losses::Losses;
use pings::{INTERVAL, Pings};

pub(crate) use crate::core::fault::Fault;
pub(crate) use circuit::{CIRCUIT_WAIT, CircuitFailure};
pub(crate) use local::{Candidate, LocalFailure, Sources, Standing};
pub(crate) use losses::{Farewell, REFUSALS};
pub(crate) use pace::Pace;
pub(crate) use pings::PingFailure;
pub(crate) use request::{Action, Caller};
pub use request::{Request, Until};

/// How long a fresh circuit waits for the other side to begin DCUtR. A peer that can begins after one round trip. A peer that has
/// not begun within this time does not run the protocol over this circuit.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// How long a dial that ends relayed waits for the relay to report the far hop, counted from the circuit on. The report takes two
/// round trips to the relay. The ping through the circuit, which the result waits for in any case, takes hardly less.
const FAR_HOP_WAIT: Duration = Duration::from_secs(2);

/// How long a dial with a direct path waits for one of the preferred family. Two families of one host differ by less, and a
/// connection takes a few round trips ([RFC 8305, 5](https://www.rfc-editor.org/rfc/rfc8305#section-5) gives a family as much).
const FAMILY_WAIT: Duration = Duration::from_millis(250);

/// One dial.
#[derive(Debug)]
pub(crate) struct Dialer {
    request: Request,
    caller: Option<Caller>,
    /// Whether this node punches at all.
    punches: bool,
    started: Instant,
    /// Until when the peer is to be reached, or the next ping to be answered.
    deadline: Instant,
    /// When the dial is over, whatever happens. Only answers that took longer than a second move it.
    limit: Instant,
    actions: VecDeque<Action>,
    /// Direct dials under way.
    direct_dials: usize,
    relays: Vec<Relay>,
    local: Local,
    lookup: Lookup,
    /// The peer's own addresses that its record names.
    registered: Vec<Multiaddr>,
    found_by: Option<FoundBy>,
    /// The relay that led to the peer last.
    led_by: Option<PeerId>,
    errors: Vec<String>,
    /// The best path now.
    path: Option<Path>,
    /// Whether it has missed a ping, and nothing else leads to the peer.
    is_doubtful: bool,
    /// When the first relayed path appeared, and no handshake was seen since.
    awaiting_handshake: Option<Instant>,
    /// Until when the far hop is waited for.
    awaiting_far_hop: Option<Instant>,
    /// Until when a direct path of the preferred family is waited for, while there is one of the other.
    awaiting_family: Option<Instant>,
    time_to_direct: Option<Duration>,
    attempts: u32,
    introductions: Introductions,
    /// Why the path is not direct and will not be soon.
    settled: Option<Reason>,
    /// Why the last attempt or series has failed.
    last_reason: Option<Reason>,
    /// What it means if the peer begins no handshake.
    silent: Reason,
    losses: Losses,
    /// Why the last direct path ended, if no other one followed.
    direct_lost: Option<String>,
    /// Whether an attempt has ended since.
    counts_anew: bool,
    pings: Pings,
    totals: PingTotals,
    /// The kind of the path that the last ping was answered over.
    pinged: Option<PathKind>,
    finished: bool,
}

impl Dialer {
    /// Begins a dial over `relays`.
    pub(crate) fn new(
        request: Request,
        relays: impl IntoIterator<Item = PeerId>,
        punches: bool,
        now: Instant,
    ) -> Self {
        let mut dialer = Self {
            caller: None,
            punches,
            started: now,
            deadline: now + request.timeout,
            limit: now + request.timeout + INTERVAL * request.pings.saturating_sub(1),
            losses: Losses::default(),
            actions: VecDeque::from([Action::Report(Event::Dialing {
                t: Duration::ZERO,
                peer: request.peer,
            })]),
            direct_dials: 0,
            relays: relays
                .into_iter()
                .map(|peer| Relay::new(peer, None, Circuit::Waiting))
                .collect(),
            local: Local::default(),
            lookup: Lookup::default(),
            registered: Vec::new(),
            found_by: None,
            led_by: None,
            errors: Vec::new(),
            path: None,
            is_doubtful: false,
            awaiting_handshake: None,
            awaiting_far_hop: None,
            awaiting_family: None,
            time_to_direct: None,
            attempts: 0,
            introductions: Introductions::default(),
            settled: None,
            last_reason: None,
            silent: Reason::RemoteSilent,
            pings: Pings::new(request.pings),
            totals: PingTotals::default(),
            direct_lost: None,
            counts_anew: false,
            pinged: None,
            finished: false,
            request,
        };
        dialer.dial_direct();
        dialer
    }

    /// Lets the dial look for the peer in these places, which are tried before any relay.
    pub(crate) fn search(&mut self, sources: Sources, now: Instant) {
        self.local.search(sources, now);
    }

    /// Dials with this identity, which a refusal names.
    pub(crate) const fn call_as(&mut self, caller: Caller) {
        self.caller = Some(caller);
    }

    /// The peer that is dialed.
    pub(crate) fn peer(&self) -> PeerId {
        self.request.peer
    }

    /// Where the peer may be dialed again: the addresses that the dial was given, and that at which the peer was found without
    /// any relay.
    pub(crate) fn addrs(&self) -> Vec<Multiaddr> {
        let given = self.request.addrs.iter();
        given.chain(self.local.reached()).cloned().collect()
    }

    /// The relays that may lead to the peer: this node's, and those that the peer's record names.
    pub(crate) fn relays(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.relays.iter().map(|relay| relay.peer)
    }

    /// The relay that led to the peer last.
    pub(crate) fn led_by(&self) -> Option<PeerId> {
        self.led_by
    }

    /// Time since the dial began.
    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now - self.started
    }

    /// Whether the result was reported.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The next thing to do, until there is none.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Draws the consequences of what has happened by `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if !self.finished {
            self.advance(now);
        }
    }

    /// When [`Dialer::handle_timeout`] may have something to do, if nothing else happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let handshake = self.awaiting_handshake.map(|since| since + HANDSHAKE_WAIT);
        let circuits = self.relays.iter().filter_map(|relay| match relay.state {
            Circuit::Dialing { again_at, .. } | Circuit::Again(again_at) => Some(again_at),
            Circuit::Waiting | Circuit::Made | Circuit::Failed => None,
        });
        let earlier = handshake
            .into_iter()
            .chain(self.awaiting_far_hop)
            .chain(self.awaiting_family)
            .chain(circuits.filter(|_| self.needs_circuit()))
            .chain(self.lookup.deadline().filter(|_| self.seeks()))
            .chain(self.local.holds_until().filter(|_| self.seeks()))
            .chain(self.losses.waits_until())
            .chain(self.pings.misses_at())
            .chain(self.pings.deadline().filter(|_| self.may_ping()))
            .min();
        let deadline = self.deadline.min(self.limit);
        (!self.finished).then(|| earlier.map_or(deadline, |at| at.min(deadline)))
    }

    /// The peer's record lists these relays and addresses.
    pub(crate) fn handle_found(&mut self, found: &Found, now: Instant) {
        self.lookup.found(!found.is_empty());
        for via in &found.relays {
            match self.relays.iter_mut().find(|known| known.peer == via.relay) {
                // One of this node's is asked in any case.
                Some(Relay { found: None, .. }) => {}
                Some(known) => known.found = Some(via.addrs.clone()),
                None => {
                    let found = Some(via.addrs.clone());
                    let relay = Relay::new(via.relay, found, Circuit::Again(now));
                    self.relays.push(relay);
                }
            }
        }
        let known =
            |addr: &Multiaddr| self.registered.contains(addr) || self.request.addrs.contains(addr);
        let new: Vec<_> = found
            .direct
            .iter()
            .filter(|addr| !known(addr))
            .cloned()
            .collect();
        if !new.is_empty() && self.path.is_none() {
            self.registered.extend(new.iter().cloned());
            self.direct_dials += 1;
            self.actions.push_back(Action::DialDirect(new));
        }
    }

    /// The peer may be in these places, best first.
    pub(crate) fn handle_candidates(&mut self, candidates: impl IntoIterator<Item = Candidate>) {
        self.local.found(candidates);
    }

    /// A name could not be resolved, or no link could be asked.
    pub(crate) fn handle_search_failed(&mut self, reason: String) {
        self.note(reason);
    }

    /// [`Action::Search`] has come to its end.
    pub(crate) fn handle_searched(&mut self) {
        self.local.searched();
    }

    /// A dial of [`Action::DialLocal`] failed.
    pub(crate) fn handle_local_failed(&mut self, host: SocketAddr, failure: LocalFailure) {
        self.local.failed(host, failure);
    }

    /// The answers to [`Action::LookUp`] have ended.
    pub(crate) fn handle_looked_up(&mut self, now: Instant) {
        self.lookup.over(now);
    }

    /// [`Action::DialDirect`] has become so many dials, each of which may fail.
    pub(crate) fn handle_direct_dials(&mut self, dials: usize) {
        self.direct_dials = (self.direct_dials + dials).saturating_sub(1);
    }

    /// A dial of [`Action::DialDirect`] failed.
    pub(crate) fn handle_direct_failed(&mut self, reason: String) {
        self.direct_dials = self.direct_dials.saturating_sub(1);
        self.note(reason);
    }

    /// Remembers why a way to the peer has failed, once.
    fn note(&mut self, reason: String) {
        if !self.errors.contains(&reason) {
            self.errors.push(reason);
        }
    }

    /// An attempt at a punch is over.
    pub(crate) fn handle_attempt(&mut self, attempt: Event) {
        self.awaiting_handshake = None;
        if self.direct_lost.is_some() && !std::mem::replace(&mut self.counts_anew, true) {
            // Those that led to the direct path have not failed.
            self.attempts = 0;
        }
        self.attempts += attempt.attempts();
        if let Event::Punch { reason, .. } = &attempt
            && !self.is_direct()
            && *reason != Some(Reason::Superseded)
        {
            self.last_reason = reason.or(self.last_reason);
        }
        self.actions.push_back(Action::Report(attempt));
    }

    /// A search for ports is over.
    pub(crate) fn handle_port_search(&mut self, report: Event) {
        self.actions.push_back(Action::Report(report));
    }

    /// The punch was given up for now.
    pub(crate) fn handle_gave_up(&mut self, reason: Reason) {
        self.awaiting_handshake = None;
        self.settled = Some(reason);
    }

    /// The peer has identified itself. If it begins no handshake, this is why.
    pub(crate) const fn handle_silence_means(&mut self, reason: Reason) {
        self.silent = reason;
    }

    /// Why the path is not direct and will not be soon, once that is known.
    pub(crate) const fn settled(&self) -> Option<Reason> {
        self.settled
    }

    /// Whether the path is the final one.
    fn is_content(&self) -> bool {
        match (&self.path, self.request.until) {
            (None, _) => false,
            (Some(_), Until::Connected) => true,
            (Some(path), Until::Direct) => {
                (path.kind == PathKind::Direct && self.awaiting_family.is_none())
                    || self.settled.is_some()
                    || !self.punches
            }
        }
    }

    fn dial_direct(&mut self) {
        if !self.request.addrs.is_empty() {
            self.direct_dials += 1;
            self.actions
                .push_back(Action::DialDirect(self.request.addrs.clone()));
        }
    }

    /// Looks for the peer where no relay is needed, as long as it is not direct.
    fn search_locally(&mut self, now: Instant) {
        self.local.elapse(now);
        if self.is_direct() || self.losses.waits_until().is_some() {
            return;
        }
        if self.local.begin() {
            self.actions.push_back(Action::Search);
        }
        while let Some(candidate) = self.local.next() {
            self.actions.push_back(Action::DialLocal(candidate));
        }
    }

    /// Draws the consequences of what is known at `now`.
    fn advance(&mut self, now: Instant) {
        if self.path.is_none() && self.answer().is_some() {
            return self.finish(now);
        }
        if self.losses.begins_again(now) {
            self.begin_again(now);
        }
        self.miss_pings(now);
        self.search_locally(now);
        self.redial_circuits(now);
        if self.seeks() && self.lookup.again(now) {
            self.actions.push_back(Action::LookUp);
        }
        if self
            .awaiting_handshake
            .is_some_and(|since| since + HANDSHAKE_WAIT <= now)
        {
            self.awaiting_handshake = None;
            self.settled = Some(self.last_reason.unwrap_or(self.silent));
            self.actions.push_back(Action::MatchFamilies);
        }
        self.awaiting_far_hop = self.awaiting_far_hop.filter(|until| now < *until);
        self.awaiting_family = self.awaiting_family.filter(|until| now < *until);
        let is_far_hop_settled = self.awaiting_far_hop.is_none() || self.is_direct();
        if self.is_content() {
            let kind = self.path.as_ref().map(|path| path.kind);
            if self.request.until == Until::Direct && self.pinged.is_some() && self.pinged != kind {
                // A path is called what it is once something came back over it.
                self.pings.prove();
            }
            if self.pings.are_done() && is_far_hop_settled {
                return self.finish(now);
            }
        }
        if self.may_ping() && self.pings.send(now) {
            self.actions.push_back(Action::Ping);
        }
        let exhausted = self.seeks()
            && self.direct_dials == 0
            && !self.local.is_under_way()
            && !self.lookup.is_under_way()
            && !self.introductions.is_under_way()
            && self
                .relays
                .iter()
                .all(|relay| matches!(relay.state, Circuit::Failed | Circuit::Made));
        if exhausted || now >= self.deadline.min(self.limit) {
            self.finish(now);
        }
    }
}
#[cfg(test)]
mod tests;
