//! The decisions of hole punching: whom, when, with which addresses, and which connection lives.
//!
//! Pure: time is an argument, jitter comes from a seed, and everything that has an effect is an [`Action`] for the
//! behaviour to carry out.
//!
//! # The course of a punch
//!
//! A circuit has a *listener*, who was dialed, and a *dialer*. The listener of the circuit is the *initiator* of the
//! handshake ([DCUtR](https://github.com/libp2p/specs/blob/master/relay/DCUtR.md)): it opens the stream, sends CONNECT,
//! measures the round trip until the answer, sends SYNC, and dials half a round trip later, in the role of a listener. The
//! *responder* answers CONNECT and dials on SYNC. So both sides' first packets cross.
//!
//! A series has up to three attempts; after it the peer rests on a ladder of growing pauses, which new candidates cut
//! short. Between our own nodes the circuit's dialer may begin a handshake as well, when it alone has a new candidate;
//! other implementations refuse that, and are not asked again.
//!
//! # Which transport in which attempt
//!
//! Both sides derive it from the two address lists, so that no further message is needed ([`round`]): QUIC where both
//! listed it in one family, else TCP. In its second attempt the initiator lists TCP alone, if both have it; in the third
//! both sides dial everything. Another implementation dials whatever was listed to it, so the same lists steer it too.
//!
//! # Which connection lives
//!
//! A punch may give two direct connections. Which side dialed a connection cannot be told alike by both: a transport may
//! complete a dial with a connection that the other side began. So one side decides alone: the one with the smaller peer id
//! closes all but its best, as soon as no new one has come for a while. The other side closes none, unless the surplus is
//! there so much later that the first evidently does not decide (another implementation).

mod attempt;
mod directs;
mod peer;
mod round;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{
    address::{Candidate, peer_of},
    candidates::{Local, Observation, Policy},
    record::{CandidateOutcome, Reason, Record, Role},
    wire::Addresses,
};
use peer::Peer;

/// The most peers without a connection that are remembered.
const MAX_ABSENT_PEERS: usize = 512;

/// How long things take. The defaults suit the internet; tests make them theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// How long a first candidate is waited for before its lack is reported, and a CONNECT is held back for one.
    pub first_candidate: Duration,
    /// From opening the stream to SYNC.
    pub handshake: Duration,
    /// What an attempt gets after its dial, at the least, if the dial itself does not fail before.
    pub attempt: Duration,
    /// After which a dial that says nothing is given up. More than any transport takes.
    pub dial: Duration,
    /// How long after its start a dial that failed at once still hopes for the peer's.
    pub linger: Duration,
    /// Before a handshake that failed is tried again.
    pub handshake_retry: Duration,
    /// Before a series that a new candidate brings, counted from the last attempt.
    pub new_candidate: Duration,
    /// How long the responder waits for the initiator's next attempt.
    pub silence: Duration,
    /// Pauses between series; the last one repeats.
    pub ladder: Vec<Duration>,
    /// After the last new direct connection, before a surplus is closed.
    pub surplus_quiet: Duration,
    /// The longest that a surplus lives, however often new ones come.
    pub surplus_limit: Duration,
    /// After which the side with the larger peer id closes it: later than a QUIC connection whose end got lost dies.
    pub surplus_fallback: Duration,
    /// How long the relayed connections outlive the first direct one.
    pub grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_candidate: Duration::from_secs(3),
            handshake: Duration::from_secs(10),
            attempt: Duration::from_secs(5),
            dial: Duration::from_secs(12),
            linger: Duration::from_secs(1),
            handshake_retry: Duration::from_secs(2),
            new_candidate: Duration::from_secs(1),
            silence: Duration::from_secs(12),
            ladder: [30, 120, 600].map(Duration::from_secs).to_vec(),
            surplus_quiet: Duration::from_secs(1),
            surplus_limit: Duration::from_secs(3),
            surplus_fallback: Duration::from_secs(15),
            grace: Duration::from_secs(5),
        }
    }
}

/// Which end of a circuit this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// It was dialed: the initiator of the handshake.
    Listener,
    /// It dialed: the responder.
    Dialer,
}

/// Names a dial that the machine asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DialId(pub(super) u64);

/// A direct connection, as it is established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Established {
    /// The connection.
    pub(super) connection: ConnectionId,
    /// Whether this node dialed it.
    pub(super) dialed: bool,
    /// Where it goes, if the address names a socket.
    pub(super) remote: Option<Candidate>,
}

/// Why a handshake over a circuit did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeError {
    /// The peer does not take the protocol.
    Unsupported,
    /// Time is up.
    Timeout,
    /// The stream broke, or what came over it is not the protocol.
    Broken,
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Open a stream on the circuit and send CONNECT.
    Connect {
        /// The peer.
        peer: PeerId,
        /// The circuit.
        circuit: ConnectionId,
        /// What CONNECT lists.
        addrs: Vec<Multiaddr>,
    },
    /// Answer the CONNECT that was received on the circuit.
    Reply {
        /// The peer.
        peer: PeerId,
        /// The circuit.
        circuit: ConnectionId,
        /// What the answer lists.
        addrs: Vec<Multiaddr>,
    },
    /// Drop the handshake that runs on the circuit.
    Drop {
        /// The peer.
        peer: PeerId,
        /// The circuit.
        circuit: ConnectionId,
        /// Whose part this node has in it.
        role: Role,
    },
    /// Dial all of these at once.
    Dial {
        /// The peer.
        peer: PeerId,
        /// The name of the dial.
        dial: DialId,
        /// The addresses.
        addrs: Vec<Multiaddr>,
        /// The initiator dials in the role of a listener, the responder in that of a dialer.
        role: Role,
    },
    /// Close a connection.
    Close {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
    },
    /// Whether punching needs the circuit.
    KeepAlive {
        /// The peer.
        peer: PeerId,
        /// The circuit.
        circuit: ConnectionId,
        /// Whether it does.
        keep: bool,
    },
    /// Tell it.
    Report(Event),
}

/// What is told of punching.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An attempt has ended.
    Attempt(Box<Record>),
    /// A peer has become direct.
    Direct {
        /// The peer.
        peer: PeerId,
        /// The first direct connection.
        connection_id: ConnectionId,
        /// How many attempts the series took; 0 if it came about without punching.
        attempts: u32,
    },
    /// A series has ended without a direct connection.
    GaveUp {
        /// The peer.
        peer: PeerId,
        /// Why the last attempt failed.
        reason: Reason,
        /// How many attempts the series had.
        attempts: u32,
        /// When this node tries again by itself; `None` if that is up to the peer, or pointless.
        retry_in: Option<Duration>,
    },
}

/// What holds for every peer, and where decisions go.
pub(super) struct Context<'a> {
    now: Instant,
    local_id: PeerId,
    enabled: bool,
    policy: &'a Policy,
    timing: &'a Timing,
    local: &'a Local,
    relays: &'a Relays,
    actions: &'a mut VecDeque<Action>,
    next_dial: &'a mut u64,
    jitter: &'a mut Jitter,
}

impl Context<'_> {
    fn dial_id(&mut self) -> DialId {
        *self.next_dial += 1;
        DialId(*self.next_dial)
    }

    fn report(&mut self, event: Event) {
        self.actions.push_back(Action::Report(event));
    }
}

/// The relays in use: who they are and where they listen.
#[derive(Debug, Default)]
struct Relays {
    peers: HashSet<PeerId>,
    sockets: HashSet<SocketAddr>,
}

/// The machine for all peers.
pub(super) struct Machine {
    local_id: PeerId,
    enabled: bool,
    policy: Policy,
    timing: Timing,
    local: Local,
    relays: Relays,
    peers: HashMap<PeerId, Peer>,
    actions: VecDeque<Action>,
    next_dial: u64,
    jitter: Jitter,
}

impl Machine {
    /// A machine without peers. `seed` is all its randomness.
    pub(super) fn new(local_id: PeerId, enabled: bool, policy: Policy, timing: Timing, seed: u64) -> Self {
        Self {
            local_id,
            enabled,
            policy,
            timing,
            local: Local::default(),
            relays: Relays::default(),
            peers: HashMap::new(),
            actions: VecDeque::new(),
            next_dial: 0,
            jitter: Jitter(seed),
        }
    }

    /// A remote has told how it sees this node.
    pub(super) fn handle_observed(&mut self, observation: &Observation, now: Instant) {
        let changed = self.local.observe(observation);
        self.candidates_changed(changed, now);
    }

    /// What was observed on that connection no longer holds.
    pub(super) fn handle_observation_lost(&mut self, connection: ConnectionId, now: Instant) {
        let changed = self.local.forget(connection);
        self.candidates_changed(changed, now);
    }

    /// Sets the sockets of this host at its punch ports.
    pub(super) fn handle_interfaces(&mut self, addresses: &[Multiaddr], now: Instant) {
        let changed = self.local.set_interfaces(addresses);
        self.candidates_changed(changed, now);
    }

    /// Sets the mappings that a router has promised.
    pub(super) fn handle_mapped(&mut self, addresses: &[Multiaddr], now: Instant) {
        let changed = self.local.set_mapped(addresses);
        self.candidates_changed(changed, now);
    }

    /// Sets the relays: their addresses are never punched, and connections to them never surplus.
    pub(super) fn set_relays(&mut self, addresses: &[Multiaddr]) {
        self.relays = Relays {
            peers: addresses.iter().filter_map(peer_of).collect(),
            sockets: addresses.iter().filter_map(Candidate::parse).map(|c| c.socket).collect(),
        };
    }

    /// A circuit is there.
    pub(super) fn handle_relayed(&mut self, peer: PeerId, circuit: ConnectionId, side: Side, now: Instant) {
        self.make_room(peer);
        self.with(peer, now, |peer, cx| peer.handle_relayed(cx, circuit, side));
    }

    /// A direct connection is there.
    pub(super) fn handle_direct(&mut self, peer: PeerId, established: Established, now: Instant) {
        self.make_room(peer);
        self.with(peer, now, |peer, cx| peer.handle_direct(cx, established));
    }

    /// A connection of either kind has closed.
    pub(super) fn handle_closed(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        let changed = self.local.forget(connection);
        self.with(peer, now, |peer, cx| peer.handle_closed(cx, connection));
        self.candidates_changed(changed, now);
    }

    /// The peer sent CONNECT.
    pub(super) fn handle_connect(&mut self, peer: PeerId, circuit: ConnectionId, addrs: Addresses, now: Instant) {
        self.with(peer, now, |peer, cx| peer.handle_connect(cx, circuit, addrs));
    }

    /// The peer sent SYNC.
    pub(super) fn handle_sync(&mut self, peer: PeerId, circuit: ConnectionId, now: Instant) {
        self.with(peer, now, |peer, cx| peer.handle_sync(cx, circuit));
    }

    /// The peer answered our CONNECT `rtt` after it was sent, and SYNC went out at `synced`.
    pub(super) fn handle_answer(
        &mut self,
        peer: PeerId,
        circuit: ConnectionId,
        addrs: Addresses,
        rtt: Duration,
        synced: Instant,
        now: Instant,
    ) {
        self.with(peer, now, |peer, cx| peer.handle_answer(cx, circuit, addrs, rtt, synced));
    }

    /// A handshake, in which this node had `role`, broke off.
    pub(super) fn handle_handshake_failed(
        &mut self,
        peer: PeerId,
        circuit: ConnectionId,
        role: Role,
        error: HandshakeError,
        now: Instant,
    ) {
        self.with(peer, now, |peer, cx| peer.handle_handshake_failed(cx, circuit, role, error));
    }

    /// A dial failed, each address in its way.
    pub(super) fn handle_dial_failed(
        &mut self,
        peer: PeerId,
        dial: DialId,
        outcomes: &[(Candidate, CandidateOutcome)],
        now: Instant,
    ) {
        self.with(peer, now, |peer, cx| peer.handle_dial_failed(cx, dial, outcomes));
    }

    /// Names the connection that survives if there are several; the rules choose if it is `None` or gone.
    pub(super) fn prefer(&mut self, peer: PeerId, connection: Option<ConnectionId>) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.prefer(connection);
        }
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<PeerId> =
            self.peers.iter().filter(|(_, p)| p.due().is_some_and(|at| at <= now)).map(|(id, _)| *id).collect();
        for peer in due {
            self.with(peer, now, Peer::handle_timeout);
        }
    }

    /// When [`Self::handle_timeout`] is due next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(Peer::due).min()
    }

    /// What is to be done next.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The last attempt with a peer.
    pub(super) fn last_record(&self, peer: &PeerId) -> Option<&Record> {
        self.peers.get(peer)?.last_record()
    }

    fn candidates_changed(&mut self, changed: bool, now: Instant) {
        if !changed {
            return;
        }
        let relayed: Vec<PeerId> = self.peers.iter().filter(|(_, p)| p.is_relayed_only()).map(|(id, _)| *id).collect();
        for peer in relayed {
            self.with(peer, now, Peer::handle_candidates_changed);
        }
    }

    /// Runs `decide` for a peer that has, or just got, an entry.
    fn with(&mut self, id: PeerId, now: Instant, decide: impl FnOnce(&mut Peer, &mut Context<'_>)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut cx = Context {
            now,
            local_id: self.local_id,
            enabled: self.enabled,
            policy: &self.policy,
            timing: &self.timing,
            local: &self.local,
            relays: &self.relays,
            actions: &mut self.actions,
            next_dial: &mut self.next_dial,
            jitter: &mut self.jitter,
        };
        decide(peer, &mut cx);
        peer.settle(&cx);
    }

    /// Makes an entry for a peer; of those without a connection the oldest gives way.
    fn make_room(&mut self, peer: PeerId) {
        if !self.peers.contains_key(&peer) {
            let absent: Vec<_> = self.peers.iter().filter(|(_, p)| p.is_absent()).collect();
            if absent.len() >= MAX_ABSENT_PEERS {
                let oldest = absent.iter().min_by_key(|(_, p)| p.touched()).map(|(id, _)| **id);
                oldest.map(|id| self.peers.remove(&id));
            }
            self.peers.insert(peer, Peer::new(peer));
        }
    }
}

/// Deterministic jitter ([SplitMix64](https://prng.di.unimi.it/splitmix64.c)): good enough to spread retries.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    /// `pause`, give or take a fifth.
    fn spread(&mut self, pause: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        pause.mul_f64(0.8 + 0.4 * unit)
    }
}

#[cfg(test)]
mod tests;
