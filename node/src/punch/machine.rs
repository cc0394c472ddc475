//! The decisions of hole punching: whom, when, with which addresses, and which connection lives.
//!
//! Pure: time is an argument and jitter comes from a seed. The driver is the behaviour or a simulator of whole nodes. It calls
//! `handle_*` with what happened. After each call, it takes every [`Action`] from [`Machine::poll_action`] and every [`Event`]
//! from [`Machine::poll_event`]. It calls [`Machine::handle_timeout`] at the time of [`Machine::poll_timeout`].
//!
//! # The course of a punch
//!
//! A circuit has a *dialer* and a *listener*. The listener of the circuit is the *initiator* of the handshake
//! ([DCUtR](https://github.com/libp2p/specs/blob/master/relay/DCUtR.md)). The initiator opens the stream, sends CONNECT, and
//! measures the round trip until the answer. It then sends SYNC and dials half a round trip later, in the role of a listener. The
//! *responder* answers CONNECT and dials on SYNC. So the first flights of both sides cross.
//!
//! Between our own nodes the packets cross one message earlier. The initiator measured the round trip of the circuit during
//! the key exchange, and sends it in CONNECT. The responder returns it in its answer and dials half of it later. At that
//! time the answer arrives, and the initiator dials too. Other implementations skip the field.
//!
//! A series has up to three attempts. After it the peer rests on a ladder of growing pauses, which new candidates cut
//! short. Between our own nodes the circuit's dialer may begin a handshake as well, when it alone has a new candidate.
//! Other implementations refuse that, and are not asked again.
//!
//! # Introductions
//!
//! A relay of ours sees the mappings of both sides. It may send each side the other's mappings at the same time, before a
//! circuit exists. Then both dial at once, in an attempt outside of any series. The handshake over the circuit waits until
//! that attempt has ended, or for a short time ([`peer`]). A series follows if the attempt fails.
//!
//! # Which transport in which attempt
//!
//! Both sides derive the transport from the two address lists, so that no further message is needed ([`round`]). They use QUIC if
//! both listed QUIC in the same family, else TCP. In its second attempt the initiator lists TCP alone, if both have it. In the
//! third both sides dial everything. Another implementation dials every address on its list, so the same lists steer it too.
//!
//! # Which connection lives
//!
//! A punch may give two direct connections. The two sides may disagree on who dialed a connection, because a transport may
//! complete a dial with a connection that the other side began. So the side with the smaller peer id decides alone. It closes all
//! connections but the best, once no new connection has opened for a while. The best is of the family that the dialer of the
//! circuit prefers, then of the family that the listener prefers. Then QUIC comes before TCP, and the older before the younger.
//! Each side learns from identify what the other side prefers. The other side closes the surplus only much later: then the first
//! side is another implementation, which does not decide.

mod action;
mod attempt;
mod context;
mod directs;
mod introductions;
mod peer;
mod round;
mod timing;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::{Family, dcutr::Addresses};

use super::{
    address::{Candidate, peer_of},
    candidates::{Local, Observation, Policy},
    record::{CandidateOutcome, Record, Role},
    vouch::{Said, Vouch},
};
pub(crate) use action::{Action, DialId, Established, HandshakeError, Side};
pub(crate) use action::{Event, FoundPair, Introduced, IntroductionResponse};
pub(crate) use directs::SIBLINGS;
pub(crate) use timing::Timing;

use context::{Context, Relays};
use introductions::Introductions;
use peer::Peer;
use timing::Jitter;

/// The most peers without a connection that are remembered.
const MAX_ABSENT_PEERS: usize = 512;

/// The machine for all peers.
///
/// The driver answers each [`Action::Dial`] with [`Self::handle_direct`] for every address that connects, and with
/// [`Self::handle_dial_failed`] if all of them fail. It answers the stream of a handshake with [`Self::handle_connect`],
/// [`Self::handle_answer`], [`Self::handle_sync`] and [`Self::handle_handshake_failed`].
pub(crate) struct Machine {
    local_id: PeerId,
    enabled: bool,
    policy: Policy,
    timing: Timing,
    local: Local,
    relays: Relays,
    peers: HashMap<PeerId, Peer>,
    /// The last introductions that others asked for.
    introductions: Introductions,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    next_dial: u64,
    jitter: Jitter,
}

impl Machine {
    /// A machine without peers. `seed` is all its randomness.
    pub(crate) fn new(
        local_id: PeerId,
        enabled: bool,
        policy: Policy,
        timing: Timing,
        seed: u64,
    ) -> Self {
        Self {
            local_id,
            enabled,
            policy,
            timing,
            local: Local::default(),
            relays: Relays::default(),
            peers: HashMap::new(),
            introductions: Introductions::default(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            next_dial: 0,
            jitter: Jitter(seed),
        }
    }

    /// A remote observed this node at an address, on a connection that was dialed from a punch port.
    pub(crate) fn handle_observed(&mut self, observation: &Observation, now: Instant) {
        let changed = self.local.observe(observation);
        self.candidates_changed(changed, now);
    }

    /// What was observed on that connection no longer holds.
    pub(crate) fn handle_observation_lost(&mut self, connection: ConnectionId, now: Instant) {
        let changed = self.local.forget(connection);
        self.candidates_changed(changed, now);
    }

    /// Sets the sockets of this host at its punch ports, and its networks.
    pub(crate) fn handle_interfaces(
        &mut self,
        addresses: &[Multiaddr],
        networks: Vec<IpNet>,
        now: Instant,
    ) {
        self.local.set_networks(networks);
        let changed = self.local.set_interfaces(addresses);
        self.candidates_changed(changed, now);
    }

    /// Sets where this node is reached because a router maps its punch ports.
    pub(crate) fn handle_mapped(&mut self, addresses: &[Multiaddr], now: Instant) {
        let changed = self.local.set_mapped(addresses);
        self.candidates_changed(changed, now);
    }

    /// Sets the relays: their addresses are never punched, and connections to them never surplus.
    pub(crate) fn handle_relays(&mut self, addresses: &[Multiaddr]) {
        self.relays = Relays {
            peers: addresses.iter().filter_map(peer_of).collect(),
            sockets: addresses
                .iter()
                .filter_map(Candidate::parse)
                .map(|c| c.socket)
                .collect(),
        };
    }

    /// A circuit is there, whose round trip time is `rtt`, if that was measured.
    pub(crate) fn handle_relayed(
        &mut self,
        peer: PeerId,
        circuit: ConnectionId,
        side: Side,
        rtt: Option<Duration>,
        now: Instant,
    ) {
        self.make_room(peer);
        self.with(peer, now, |peer, cx| {
            peer.handle_relayed(cx, circuit, side, rtt)
        });
    }

    /// A direct connection is there.
    pub(crate) fn handle_direct(&mut self, peer: PeerId, established: Established, now: Instant) {
        self.make_room(peer);
        self.with(peer, now, |peer, cx| peer.handle_direct(cx, established));
    }

    /// A peer has identified itself, and prefers this family.
    pub(crate) fn handle_preference(
        &mut self,
        peer: PeerId,
        prefers: Option<Family>,
        now: Instant,
    ) {
        self.with(peer, now, |peer, _| peer.handle_preference(prefers));
    }

    /// Streams that cannot move are on these connections of the peer, which are kept for them.
    pub(crate) fn handle_used(&mut self, peer: PeerId, used: &[ConnectionId], now: Instant) {
        self.with(peer, now, |peer, cx| peer.handle_used(cx, used));
    }

    /// The user wants the peer to be direct now.
    pub(crate) fn handle_wanted(&mut self, peer: PeerId, now: Instant) {
        self.with(peer, now, Peer::handle_wanted);
    }

    /// A connection of either kind has closed.
    pub(crate) fn handle_closed(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        let changed = self.local.forget(connection);
        self.with(peer, now, |peer, cx| peer.handle_closed(cx, connection));
        self.candidates_changed(changed, now);
    }

    /// The peer sent CONNECT.
    pub(crate) fn handle_connect(
        &mut self,
        peer: PeerId,
        circuit: ConnectionId,
        addrs: Addresses,
        now: Instant,
    ) {
        self.with(peer, now, |peer, cx| {
            peer.handle_connect(cx, circuit, addrs)
        });
    }

    /// The peer sent SYNC.
    pub(crate) fn handle_sync(&mut self, peer: PeerId, circuit: ConnectionId, now: Instant) {
        self.with(peer, now, |peer, cx| peer.handle_sync(cx, circuit));
    }

    /// The peer answered our CONNECT `rtt` after it was sent, and SYNC went out at `synced`.
    pub(crate) fn handle_answer(
        &mut self,
        peer: PeerId,
        circuit: ConnectionId,
        addrs: Addresses,
        rtt: Duration,
        synced: Instant,
        now: Instant,
    ) {
        self.with(peer, now, |peer, cx| {
            peer.handle_answer(cx, circuit, addrs, rtt, synced)
        });
    }

    /// A handshake, in which this node had `role`, broke off.
    pub(crate) fn handle_handshake_failed(
        &mut self,
        peer: PeerId,
        circuit: ConnectionId,
        role: Role,
        error: HandshakeError,
        now: Instant,
    ) {
        self.with(peer, now, |peer, cx| {
            peer.handle_handshake_failed(cx, circuit, role, error)
        });
    }

    /// A relay introduced this node and a peer.
    pub(crate) fn handle_introduced(
        &mut self,
        introduced: &Introduced,
        now: Instant,
    ) -> IntroductionResponse {
        let peer = introduced.peer;
        if peer == self.local_id || self.relays.peers.contains(&peer) {
            return IntroductionResponse::Ignored;
        }
        let ips = |addrs: &[Multiaddr]| -> Vec<IpAddr> {
            let sockets = addrs.iter().filter_map(Candidate::parse);
            sockets.map(|candidate| candidate.socket.ip()).collect()
        };
        let (theirs, ours) = (ips(&introduced.addrs), ips(&introduced.own_addrs));
        let vouch = Vouch::introduced(theirs.into_iter(), ours.into_iter());
        self.make_room(peer);
        self.with(peer, now, |peer, cx| {
            peer.handle_vouched(cx, introduced.relay, Said::Introducing, vouch);
        });
        if !introduced.asked && !self.introductions.admits(introduced, now) {
            return IntroductionResponse::Refused;
        }
        let mut response = IntroductionResponse::Ignored;
        self.with(peer, now, |peer, cx| {
            response = peer.handle_introduced(cx, introduced);
        });
        response
    }

    /// A search has found a pair of sockets.
    pub(crate) fn handle_found(&mut self, pair: &FoundPair, now: Instant) {
        self.with(pair.peer, now, |peer, cx| peer.handle_found(cx, pair));
    }

    /// A configured relay reports what the ends of a circuit to a peer share.
    pub(crate) fn handle_vouched(
        &mut self,
        relay: PeerId,
        peer: PeerId,
        vouch: Vouch,
        now: Instant,
    ) {
        self.with(peer, now, |peer, cx| {
            peer.handle_vouched(cx, relay, Said::OfCircuit, vouch);
        });
    }

    /// So many bytes in all have come from the peer over a circuit.
    pub(crate) fn handle_received(
        &mut self,
        peer: PeerId,
        circuit: ConnectionId,
        bytes: u64,
        now: Instant,
    ) {
        self.with(peer, now, |peer, _| peer.handle_received(circuit, bytes));
    }

    /// Addresses of this node that a relay does not see on its connections.
    pub(crate) fn unseen(&self) -> Vec<Multiaddr> {
        let unseen = self.local.unseen(&self.policy);
        unseen.into_iter().map(Candidate::to_multiaddr).collect()
    }

    /// A dial failed, each address in its way.
    pub(crate) fn handle_dial_failed(
        &mut self,
        peer: PeerId,
        dial: DialId,
        outcomes: &[(Candidate, CandidateOutcome)],
        now: Instant,
    ) {
        self.with(peer, now, |peer, cx| {
            peer.handle_dial_failed(cx, dial, outcomes)
        });
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, p)| p.due().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for peer in due {
            self.with(peer, now, Peer::handle_timeout);
        }
    }

    /// When [`Self::handle_timeout`] is due next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(Peer::due).min()
    }

    /// The next thing to do; `None` until something else happens.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to report. To be taken after the actions.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The last attempt with a peer.
    pub(crate) fn last_record(&self, peer: &PeerId) -> Option<&Record> {
        self.peers.get(peer)?.last_record()
    }

    fn candidates_changed(&mut self, changed: bool, now: Instant) {
        if !changed {
            return;
        }
        let relayed: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, p)| p.is_relayed_only())
            .map(|(id, _)| *id)
            .collect();
        for peer in relayed {
            self.with(peer, now, Peer::handle_candidates_changed);
        }
    }

    /// Runs `decide` for a peer that has, or just got, an entry.
    fn with(&mut self, id: PeerId, now: Instant, decide: impl FnOnce(&mut Peer, &mut Context<'_>)) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let mut cx = Context {
            now,
            local_id: self.local_id,
            enabled: self.enabled,
            policy: &self.policy,
            timing: &self.timing,
            local: &self.local,
            relays: &self.relays,
            actions: &mut self.actions,
            events: &mut self.events,
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
                let oldest = absent
                    .iter()
                    .min_by_key(|(_, p)| p.touched())
                    .map(|(id, _)| **id);
                oldest.map(|id| self.peers.remove(&id));
            }
            self.peers.insert(peer, Peer::new(peer));
        }
    }
}

#[cfg(test)]
mod tests;
