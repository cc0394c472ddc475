//! The course of one `dial`: which addresses and circuits to try, when to wait for a punch, when it is over and how it ended.
//!
//! Pure: the time is an argument, what is to be done comes out of [`Dialer::poll`].

mod local;
mod lookup;
mod pings;
mod relay;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_bin_shared::directory::Found;
use p2pnode_transports::to_socket_addr;

use crate::{
    event::{Event, FoundBy, Outcome, Reached},
    peers::{How, Path, PathKind},
};

use local::Local;
use lookup::Lookup;
use pings::Pings;
use relay::{CIRCUIT_WAIT, Circuit, Relay};

pub use local::{Candidate, LocalFailure, Sources};
pub use pings::PingFailure;
pub use relay::CircuitFailure;

/// How long a fresh circuit waits for the other side to begin DCUtR. It begins after one round trip if it can; a peer that
/// has not within this time does not speak the protocol over this circuit.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// How long a dial that ends relayed waits for the relay to tell the far hop, from the circuit on: that takes two round
/// trips to the relay, and a ping through the circuit, which the result waits for in any case, hardly less.
const FAR_HOP_WAIT: Duration = Duration::from_secs(2);

/// When a dial is content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// With a direct connection.
    Direct,
    /// With any connection.
    Connected,
}

/// What to dial, and when to be content.
#[derive(Debug, Clone)]
pub struct Request {
    /// The peer to reach.
    pub peer: PeerId,
    /// Addresses of the peer to try besides circuits.
    pub addrs: Vec<Multiaddr>,
    /// When to be content.
    pub until: Until,
    /// How long to try.
    pub timeout: Duration,
    /// Pings to report over the final path before the result. The result waits for one in any case: a path is only called
    /// what it is once something came back over it.
    pub pings: u32,
}

/// What the event loop is to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Dial the peer at these addresses.
    DialDirect(Vec<Multiaddr>),
    /// Dial the peer through this relay.
    DialCircuit(PeerId),
    /// Look for the peer in the DNS and on the links of this host, and tell what is found with [`Dialer::handle_candidates`] and
    /// the end with [`Dialer::handle_searched`].
    Search,
    /// Dial the peer where it may be, and tell a failure with [`Dialer::handle_local_failed`].
    DialLocal(Candidate),
    /// Ask this relay, along with the circuit, to introduce this node to the peer: then both punch before the circuit is there.
    /// Where it is asked, say so with [`Dialer::await_meeting`] and tell the end with [`Dialer::handle_met`].
    Meet(PeerId),
    /// Ask the relays for the peer's record, and tell the answers with [`Dialer::handle_found`] and their end with
    /// [`Dialer::handle_looked_up`].
    LookUp,
    /// Dial the peer through a relay that its record names, at these addresses of the relay.
    DialFound {
        /// The relay.
        relay: PeerId,
        /// Where it is.
        addrs: Vec<Multiaddr>,
    },
    /// Ping the peer now, over its best path, and tell what came of it with [`Dialer::handle_ping`] or
    /// [`Dialer::handle_ping_failed`].
    Ping,
    /// Tell this to whoever asked for the dial. [`Event::Result`] is the last.
    Tell(Event),
}

/// One dial.
#[derive(Debug)]
pub struct Dialer {
    request: Request,
    /// Whether this node punches at all.
    punches: bool,
    started: Instant,
    deadline: Instant,
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
    /// When the first relayed path appeared, and no handshake was seen since.
    awaiting_handshake: Option<Instant>,
    /// Until when the far hop is waited for.
    awaiting_far_hop: Option<Instant>,
    time_to_direct: Option<Duration>,
    attempts: u32,
    /// How many of these came of an introduction.
    introduced: u32,
    /// Relays that were asked for an introduction and have not answered.
    wishes: usize,
    /// Whether a punch runs that came of one.
    is_meeting: bool,
    /// Why the path is not direct and will not be soon.
    settled: Option<String>,
    pings: Pings,
    finished: bool,
}

impl Dialer {
    /// Begins a dial over `relays`.
    pub fn new(
        request: Request,
        relays: impl IntoIterator<Item = PeerId>,
        punches: bool,
        now: Instant,
    ) -> Self {
        let mut dialer = Self {
            punches,
            started: now,
            deadline: now + request.timeout,
            actions: VecDeque::from([Action::Tell(Event::Dialing {
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
            awaiting_handshake: None,
            awaiting_far_hop: None,
            time_to_direct: None,
            attempts: 0,
            introduced: 0,
            wishes: 0,
            is_meeting: false,
            settled: None,
            pings: Pings::new(request.pings),
            finished: false,
            request,
        };
        dialer.dial_direct();
        dialer
    }

    /// Lets the dial look for the peer in these places, which are tried before any relay.
    pub fn search(&mut self, sources: Sources, now: Instant) {
        self.local.search(sources, now);
    }

    /// The peer that is dialed.
    pub fn peer(&self) -> PeerId {
        self.request.peer
    }

    /// Where the peer may be dialed again: the addresses that the dial was given, and that at which the peer was found without
    /// any relay.
    pub fn addrs(&self) -> Vec<Multiaddr> {
        let given = self.request.addrs.iter();
        given.chain(self.local.reached()).cloned().collect()
    }

    /// The relays that may lead to the peer: this node's, and those that the peer's record names.
    pub fn relays(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.relays.iter().map(|relay| relay.peer)
    }

    /// The relay that led to the peer last.
    pub fn led_by(&self) -> Option<PeerId> {
        self.led_by
    }

    /// Time since the dial began.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now - self.started
    }

    /// Whether the result was told.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if !self.finished && self.actions.is_empty() {
            self.advance(now);
        }
        self.actions.pop_front()
    }

    /// When [`Dialer::poll`] may have something to do, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let handshake = self.awaiting_handshake.map(|since| since + HANDSHAKE_WAIT);
        let circuits = self.relays.iter().filter_map(|relay| match relay.state {
            Circuit::Dialing { again_at, .. } | Circuit::Again(again_at) => Some(again_at),
            Circuit::Waiting | Circuit::Made | Circuit::Failed => None,
        });
        let earlier = handshake
            .into_iter()
            .chain(self.awaiting_far_hop)
            .chain(circuits.filter(|_| self.path.is_none()))
            .chain(self.lookup.deadline().filter(|_| self.path.is_none()))
            .chain(self.local.holds_until().filter(|_| self.path.is_none()))
            .chain(self.pings.deadline().filter(|_| self.is_content()))
            .min();
        (!self.finished).then(|| earlier.map_or(self.deadline, |at| at.min(self.deadline)))
    }

    /// Circuits can be asked of this relay.
    pub fn handle_relay_ready(&mut self, relay: PeerId, now: Instant) {
        let needed = self.path.is_none() && !self.local.holds(now);
        let meets = self.wants_to_meet();
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
                self.actions.push_back(Action::Meet(relay.peer));
            }
            self.actions.push_back(Action::DialCircuit(relay.peer));
        }
    }

    /// Whether an introduction would be of use.
    pub fn wants_to_meet(&self) -> bool {
        self.path.is_none() && self.punches && self.request.until == Until::Direct
    }

    /// A relay is being asked for an introduction.
    pub fn await_meeting(&mut self) {
        self.wishes += 1;
    }

    /// The relay has answered, or will not; and whether the peer is punched because of it, of which
    /// [`Dialer::handle_introduced_attempt`] tells the end.
    pub fn handle_met(&mut self, is_punched: bool) {
        self.wishes = self.wishes.saturating_sub(1);
        self.is_meeting |= is_punched;
    }

    /// An attempt that came of an introduction is over.
    pub fn handle_introduced_attempt(&mut self, attempt: Event) {
        self.is_meeting = false;
        self.introduced += 1;
        self.attempts += 1;
        self.actions.push_back(Action::Tell(attempt));
    }

    /// The relay cannot be reached over any of its addresses.
    pub fn handle_relay_unreachable(&mut self, relay: PeerId, t: Duration, reason: &str) {
        if let Some(known) = self.relays.iter_mut().find(|known| known.peer == relay)
            && matches!(known.state, Circuit::Waiting | Circuit::Again(_))
        {
            known.state = Circuit::Failed;
            self.actions
                .push_back(Action::Tell(Event::RelayUnreachable {
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
        self.actions.push_back(Action::Tell(Event::RelayRefused {
            t,
            relay,
            reason: words.to_owned(),
        }));
        self.note(format!("relay {relay} refused us: {words}"));
    }

    /// The peer's record says that it can be called there.
    pub fn handle_found(&mut self, found: &Found, now: Instant) {
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
    pub fn handle_candidates(&mut self, candidates: impl IntoIterator<Item = Candidate>) {
        self.local.found(candidates);
    }

    /// A name could not be resolved, or nobody could be asked.
    pub fn handle_search_failed(&mut self, reason: String) {
        self.note(reason);
    }

    /// [`Action::Search`] has come to its end.
    pub fn handle_searched(&mut self) {
        self.local.searched();
    }

    /// A dial of [`Action::DialLocal`] failed.
    pub fn handle_local_failed(&mut self, host: SocketAddr, failure: LocalFailure) {
        self.local.failed(host, failure);
    }

    /// The answers to [`Action::LookUp`] have ended.
    pub fn handle_looked_up(&mut self, now: Instant) {
        self.lookup.over(now);
    }

    /// A dial of [`Action::DialDirect`] failed.
    pub fn handle_direct_failed(&mut self, reason: String) {
        self.direct_dials = self.direct_dials.saturating_sub(1);
        self.note(reason);
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

    /// Remembers why a way to the peer has failed, once.
    fn note(&mut self, reason: String) {
        if !self.errors.contains(&reason) {
            self.errors.push(reason);
        }
    }

    /// A connection to the peer was established; `best` is the path to use from now on.
    pub fn handle_connected(&mut self, path: Path, best: Path, now: Instant) {
        if let Some(relay) = path.relay
            && let Some(relay) = self.relays.iter_mut().find(|known| known.peer == relay)
        {
            relay.state = Circuit::Made;
            relay.failures = 0;
            relay.absent_since = None;
            self.led_by = Some(relay.peer);
        }
        let t = now - self.started;
        let found_by = self.found_by(&path);
        if let Some(remote) = remote(&path) {
            self.local.connected(remote);
        }
        self.found_by = self.found_by.or(found_by);
        match path.kind {
            PathKind::Direct => {
                self.direct_dials = 0;
                self.time_to_direct.get_or_insert(t);
                self.awaiting_handshake = None;
                self.settled = None;
            }
            PathKind::Relayed => {
                if self.time_to_direct.is_none() && self.attempts == self.introduced {
                    self.awaiting_handshake.get_or_insert(now);
                }
            }
        }
        self.actions.push_back(Action::Tell(Event::Connected {
            t,
            peer: self.request.peer,
            path,
            found_by: found_by.or(self.found_by),
        }));
        self.path = Some(best);
    }

    /// The peer is connected already, before anything was dialed.
    pub fn handle_open(&mut self, path: Path, now: Instant) {
        self.found_by = Some(FoundBy::Open);
        self.handle_connected(path.clone(), path, now);
    }

    /// What led to a connection, if this node has dialed it: what it accepts or punches comes of what was there before, which
    /// is the introduction of a relay if nothing else was.
    fn found_by(&self, path: &Path) -> Option<FoundBy> {
        if self.found_by == Some(FoundBy::Open) {
            return None;
        }
        if path.how != How::Dialed {
            let was_introduced = self.is_meeting || self.introduced > 0;
            return (self.found_by.is_none() && was_introduced).then_some(FoundBy::Relay);
        }
        if path.kind == PathKind::Relayed {
            let is_found = |relay: &Relay| Some(relay.peer) == path.relay && relay.found.is_some();
            return Some(match self.relays.iter().any(is_found) {
                true => FoundBy::Registered,
                false => FoundBy::Relay,
            });
        }
        let Some(remote) = remote(path) else {
            return Some(FoundBy::Static);
        };
        let has = |addrs: &[Multiaddr]| {
            addrs
                .iter()
                .any(|addr| to_socket_addr(addr) == Some(remote))
        };
        Some(if has(&self.request.addrs) {
            FoundBy::Static
        } else if let Some(found_by) = self.local.found_by(remote) {
            found_by
        } else if has(&self.registered) {
            FoundBy::Registered
        } else {
            FoundBy::Static
        })
    }

    /// A connection to the peer was closed; `best` is the path that is left.
    pub fn handle_disconnected(
        &mut self,
        kind: PathKind,
        reason: String,
        best: Option<Path>,
        now: Instant,
    ) {
        self.actions.push_back(Action::Tell(Event::Disconnected {
            t: now - self.started,
            peer: self.request.peer,
            kind,
            reason,
        }));
        self.path = best;
        if self.path.is_none() && !self.finished {
            // Nothing is left: begin again with what there is.
            self.awaiting_handshake = None;
            self.settled = None;
            self.attempts = 0;
            self.introduced = 0;
            self.deadline = now + self.request.timeout;
            self.relays.retain(|relay| relay.found.is_none());
            for relay in &mut self.relays {
                relay.state = Circuit::Waiting;
            }
            self.registered.clear();
            self.lookup = Lookup::default();
            self.local.again(now);
            self.found_by = None;
            self.dial_direct();
        }
    }

    /// The chosen path changed without a connection coming or going, or its figures did.
    pub fn handle_path(&mut self, best: Path) {
        self.path = Some(best);
    }

    /// The relay is being asked for the far hop of a circuit to the peer.
    pub fn await_far_hop(&mut self, now: Instant) {
        self.awaiting_far_hop = Some(now + FAR_HOP_WAIT);
    }

    /// The relay has told the far hop, or it will not; `best` is the path with what is known.
    pub fn handle_far_hop(&mut self, best: Option<Path>) {
        self.awaiting_far_hop = None;
        self.path = best;
    }

    /// The two sides are shaking hands for a punch.
    pub fn handle_handshake(&mut self) {
        self.awaiting_handshake = None;
    }

    /// An attempt at a punch is over.
    pub fn handle_attempt(&mut self, attempt: Event) {
        self.awaiting_handshake = None;
        self.attempts += 1;
        self.actions.push_back(Action::Tell(attempt));
    }

    /// The punch was given up for now.
    pub fn handle_gave_up(&mut self, reason: String) {
        self.awaiting_handshake = None;
        self.settled = Some(reason);
    }

    /// A ping of [`Action::Ping`] was answered, and the path it went over is still the best.
    pub fn handle_ping(&mut self, rtt: Duration, best: Path, now: Instant) {
        let kind = best.kind;
        self.path = Some(best);
        if !self.is_content() {
            self.pings.failed(PingFailure::Stale);
            return;
        }
        self.deadline = now + self.request.timeout;
        let seq = self.pings.answered();
        if seq <= self.request.pings {
            self.actions
                .push_back(Action::Tell(Event::Ping { seq, rtt, kind }));
        }
    }

    /// A ping of [`Action::Ping`] was not answered, or says nothing of the path that is best now.
    pub fn handle_ping_failed(&mut self, failure: PingFailure) {
        self.pings.failed(failure);
    }

    /// Whether the path is the final one.
    fn is_content(&self) -> bool {
        match (&self.path, self.request.until) {
            (None, _) => false,
            (Some(_), Until::Connected) => true,
            (Some(path), Until::Direct) => {
                path.kind == PathKind::Direct || self.settled.is_some() || !self.punches
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

    /// Asks once more for the circuits that take too long. Those whose wait after a failure is over have their turn as soon as
    /// their relay is connected.
    fn redial_circuits(&mut self, now: Instant) {
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

    /// Looks for the peer where no relay is needed, as long as it is not direct.
    fn search_locally(&mut self, now: Instant) {
        self.local.elapse(now);
        let is_direct = |path: &Path| path.kind == PathKind::Direct;
        if self.path.as_ref().is_some_and(is_direct) {
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
        self.search_locally(now);
        self.redial_circuits(now);
        if self.path.is_none() && self.lookup.again(now) {
            self.actions.push_back(Action::LookUp);
        }
        if self
            .awaiting_handshake
            .is_some_and(|since| since + HANDSHAKE_WAIT <= now)
        {
            self.awaiting_handshake = None;
            self.settled = Some("remote_unsupported".to_owned());
        }
        if self.awaiting_far_hop.is_some_and(|until| until <= now) {
            self.awaiting_far_hop = None;
        }
        let is_told = self.awaiting_far_hop.is_none()
            || self
                .path
                .as_ref()
                .is_some_and(|path| path.kind == PathKind::Direct);
        if self.is_content() {
            if self.pings.are_done() && is_told {
                return self.finish(now);
            }
            if self.pings.send(now) {
                self.actions.push_back(Action::Ping);
            }
        }
        let exhausted = self.path.is_none()
            && self.direct_dials == 0
            && !self.local.is_under_way()
            && !self.lookup.is_under_way()
            && self.wishes == 0
            && !self.is_meeting
            && self
                .relays
                .iter()
                .all(|relay| matches!(relay.state, Circuit::Failed | Circuit::Made));
        if exhausted || now >= self.deadline {
            self.finish(now);
        }
    }

    fn finish(&mut self, now: Instant) {
        self.finished = true;
        let kind = self.path.as_ref().map(|path| path.kind);
        let (outcome, reason) = match kind {
            Some(PathKind::Direct) => (Reached::Direct, None),
            Some(PathKind::Relayed) => (Reached::Relayed, self.relayed_reason()),
            None => (Reached::Unreachable, Some(self.unreachable_reason())),
        };
        self.actions.push_back(Action::Tell(Event::Result(Outcome {
            outcome,
            t: now - self.started,
            time_to_direct: self.time_to_direct.filter(|_| outcome == Reached::Direct),
            attempts: self.attempts,
            path: self.path.clone(),
            reason,
            found_by: self.found_by.filter(|_| self.path.is_some()),
        })));
    }

    fn relayed_reason(&self) -> Option<String> {
        if !self.punches {
            return Some("disabled".to_owned());
        }
        if self.request.until == Until::Connected && self.settled.is_none() {
            return None;
        }
        Some(self.settled.clone().unwrap_or_else(|| "timeout".to_owned()))
    }

    fn unreachable_reason(&self) -> String {
        let waiting = self
            .relays
            .iter()
            .filter(|relay| {
                matches!(
                    relay.state,
                    Circuit::Waiting | Circuit::Dialing { .. } | Circuit::Again(_)
                )
            })
            .count();
        let mut reasons = self.errors.clone();
        reasons.extend(self.local.vain());
        if waiting > 0 || self.direct_dials > 0 {
            let what = match (waiting, self.direct_dials) {
                (0, _) => "the peer's addresses".to_owned(),
                (n, 0) => format!("{n} relay(s)"),
                (n, _) => format!("{n} relay(s) and the peer's addresses"),
            };
            reasons.push(format!(
                "timeout: no answer from {what} within {} s",
                self.request.timeout.as_secs_f64()
            ));
        }
        if reasons.is_empty() {
            return "no relay and no address of it is known: give --relay or --addr, or set discovery.dns or discovery.mdns"
                .to_owned();
        }
        reasons.join("; ")
    }
}

/// The other end of a direct path.
fn remote(path: &Path) -> Option<SocketAddr> {
    let hop = path.hops.first().filter(|_| path.kind == PathKind::Direct);
    hop.and_then(|hop| hop.remote)
}

#[cfg(test)]
mod tests;
