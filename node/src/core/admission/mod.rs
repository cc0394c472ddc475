//! Which connections a node takes, and which one gives up its place for a newcomer.
//!
//! Each budget stands by itself, so strangers who use up one leave the others alone:
//!
//! - inbound handshakes, shared by source ([`Handshakes`]);
//! - handshakes of circuits, shared by caller and relay;
//! - dials of punches, which remotes ask for;
//! - inbound connections, shared by source. A full table closes the oldest stranger of the source that has the most.
//!
//! The dials that this node wants, to relays and to peers, have no limit. A stranger is a peer that this node has not dialed and
//! that no configuration names.

mod limits;
mod origin;
mod recent;
mod refused;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_daemon::shares::{Handshakes, PATIENCE, Part as _, Place, Places, Shares};
use p2pnode_protocol::{Source, Transport};

pub(crate) use {
    limits::{memory_of_services, of_services},
    recent::Recent,
    refused::Refused,
};

use limits::Limits;
use origin::{Caller, Origin, origins, peer_of, relay_of};

/// Connections of a peer. In a punch, each of up to eight candidates may connect from both sides before the surplus is closed. One
/// more is relayed.
const PER_PEER: usize = 17;

/// Circuits of a caller that may be in their handshake at once. A caller that a relay introduces again has two.
const CIRCUITS_PER_CALLER: usize = 4;

/// Dials of punches to a peer at once: two series of eight candidates.
const PUNCHES_PER_PEER: usize = 16;

/// Inbound connections of an IPv4 address or IPv6 /64: a site with many nodes.
const PER_SOURCE: usize = 256;

/// How long a stranger's connection stays before one of no heavier source displaces it: time for a punch and its first stream.
const STRANGERS_PATIENCE: Duration = Duration::from_secs(30);

/// Refusals are summed up in one line of the log in this time.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// What the swarm has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// End an inbound handshake.
    End(ConnectionId),
    /// Close a connection of that peer.
    Close(PeerId, ConnectionId),
}

/// Something was refused or ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// Why.
    pub(crate) refused: Refused,
    /// How many since the last line of the log, this one included, if a line is due.
    pub(crate) to_log: Option<u64>,
}

/// What a node has to do with a peer.
#[derive(Debug, Default)]
struct Peer {
    connections: usize,
    /// Dials that this node wants.
    dials: usize,
    /// Whether there has been one since the peer was last gone.
    is_wanted: bool,
}

/// The connections of a node, as far as their number matters.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    /// Peers that the configuration names.
    named: BTreeSet<PeerId>,
    peers: HashMap<PeerId, Peer>,
    handshakes: Handshakes<ConnectionId>,
    circuits: Shares<ConnectionId, Caller>,
    /// For how many handshakes of circuits there is memory.
    room: usize,
    /// Whether the process is above `limits.memory`.
    is_full: bool,
    own_dials: HashMap<ConnectionId, PeerId>,
    punches: HashMap<ConnectionId, PeerId>,
    inbound: Places<ConnectionId, Origin>,
    /// Whose the inbound connections are.
    owners: HashMap<ConnectionId, PeerId>,
    logged: Option<Instant>,
    unlogged: u64,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

impl Admission {
    /// No connections. `named` are the peers that the configuration names, `files` is how many files the process may have open.
    pub(crate) fn new(named: BTreeSet<PeerId>, files: Option<u64>) -> Self {
        let limits = Limits::within(files);
        Self {
            limits,
            named,
            peers: HashMap::new(),
            handshakes: Handshakes::new(limits.handshakes),
            circuits: Shares::default(),
            room: usize::MAX,
            is_full: false,
            own_dials: HashMap::new(),
            punches: HashMap::new(),
            inbound: Places::new(limits.connections, limits.connections / 8),
            owners: HashMap::new(),
            logged: None,
            unlogged: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// From now on the configuration names these peers.
    pub(crate) fn handle_named(&mut self, named: BTreeSet<PeerId>) {
        self.named = named;
    }

    /// There is memory for so many inbound handshakes at once, and for no connection if the process is above `limits.memory`.
    pub(crate) fn handle_memory(&mut self, handshakes: usize, is_full: bool) {
        self.handshakes.set_room(handshakes);
        (self.room, self.is_full) = (handshakes, is_full);
    }

    /// A connection from `remote` to `local` begins its handshake.
    ///
    /// # Errors
    /// Why it is refused. If it is not, [`Self::handle_established`] or [`Self::handle_failed`] follows.
    pub(crate) fn handle_incoming(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
        now: Instant,
    ) -> Result<(), Refused> {
        if self.is_full {
            return Err(self.refused(Refused::Memory, now));
        }
        let displaced = match (relay_of(local), Transport::of(remote), Source::of(remote)) {
            (Some(relay), ..) => self.begin_circuit(connection, relay, peer_of(remote), now),
            (None, Some(transport), Some(source)) => {
                let place = self.handshakes.begin(connection, transport, source, now);
                place.or(Refused::Handshakes)
            }
            (None, ..) => Ok(None),
        };
        match displaced {
            Ok(Some(displaced)) => {
                self.actions.push_back(Action::End(displaced));
                self.refused(Refused::HandshakeDisplaced, now);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(refused) => Err(self.refused(refused, now)),
        }
    }

    /// A circuit over `relay` begins its handshake.
    fn begin_circuit(
        &mut self,
        connection: ConnectionId,
        relay: PeerId,
        caller: Option<PeerId>,
        now: Instant,
    ) -> Result<Option<ConnectionId>, Refused> {
        let caller = caller.map(Caller::Peer);
        if caller.is_some_and(|caller| self.circuits.of(caller) >= CIRCUITS_PER_CALLER) {
            return Err(Refused::Circuits);
        }
        let parts = caller.into_iter().chain([Caller::Relay(relay)]);
        let place = if self.circuits.len() < self.limits.circuits.min(self.room) {
            Place::Free
        } else {
            let displaced = self
                .circuits
                .displaced(parts.clone(), PATIENCE, now, |_, _| true);
            displaced.map_or(Place::None, Place::Of)
        };
        let displaced = place.or(Refused::Circuits)?;
        if let Some(displaced) = displaced {
            self.circuits.leave(&displaced);
        }
        self.circuits.take(connection, parts, now);
        Ok(displaced)
    }

    /// This node wants to dial `peer`, and does so as this connection.
    pub(crate) fn handle_own_dial(&mut self, connection: ConnectionId, peer: PeerId) {
        self.own_dials.insert(connection, peer);
        let known = self.peers.entry(peer).or_default();
        known.dials += 1;
        known.is_wanted = true;
    }

    /// A dial begins. One that is not [this node's own](Self::handle_own_dial) belongs to a punch.
    ///
    /// # Errors
    /// Why it is refused. If it is not, [`Self::handle_established`] or [`Self::handle_failed`] follows.
    pub(crate) fn handle_dial(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        now: Instant,
    ) -> Result<(), Refused> {
        let Some(peer) = peer.filter(|peer| !self.named.contains(peer)) else {
            return Ok(());
        };
        if self.own_dials.contains_key(&connection) {
            return Ok(());
        }
        let of_peer = self.punches.values().filter(|other| **other == peer);
        if self.punches.len() >= self.limits.punches || of_peer.count() >= PUNCHES_PER_PEER {
            return Err(self.refused(Refused::Punches, now));
        }
        self.punches.insert(connection, peer);
        Ok(())
    }

    /// A handshake with `peer` is over, of an inbound connection or of a dial: whether the connection may be used. `inbound` has its
    /// local and its remote address.
    ///
    /// # Errors
    /// Why it is refused, after which [`Self::handle_failed`] follows.
    pub(crate) fn handle_authenticated(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        inbound: Option<(&Multiaddr, &Multiaddr)>,
        now: Instant,
    ) -> Result<(), Refused> {
        if self.own_dials.contains_key(&connection) {
            return Ok(());
        }
        let held = self.peers.get(&peer).map_or(0, |peer| peer.connections);
        if held >= PER_PEER {
            return Err(self.refused(Refused::PeerConnections, now));
        }
        let Some((local, remote)) = inbound else {
            return Ok(());
        };
        match self.place(peer, &origins(local, remote), now) {
            Ok(Some(displaced)) => {
                self.inbound.leave(&displaced);
                if let Some(owner) = self.owners.remove(&displaced) {
                    self.actions.push_back(Action::Close(owner, displaced));
                }
                self.refused(Refused::ConnectionDisplaced, now);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(_) if self.is_known(&peer) && held == 0 => Ok(()),
            Err(refused) => Err(self.refused(refused, now)),
        }
    }

    /// Who leaves for an inbound connection of `peer`, if somebody has to.
    fn place(
        &self,
        peer: PeerId,
        origins: &[Origin],
        now: Instant,
    ) -> Result<Option<ConnectionId>, Refused> {
        let is_known = self.is_known(&peer);
        let is_within =
            |origin: &Origin| self.inbound.shares.of(*origin) < PER_SOURCE * origin.weight();
        if !is_known && !origins.iter().all(is_within) {
            return Err(Refused::SourceConnections);
        }
        let is_strangers = |connection: &ConnectionId| {
            let owner = self.owners.get(connection);
            owner.is_some_and(|owner| !self.is_known(owner))
        };
        // A peer that is known waits for nobody.
        let patience = if is_known {
            Duration::ZERO
        } else {
            STRANGERS_PATIENCE
        };
        self.inbound
            .place(origins, false, patience, now, is_strangers)
            .or(Refused::Connections)
    }

    /// Whether the configuration names the peer, or this node has dialed it.
    fn is_known(&self, peer: &PeerId) -> bool {
        self.named.contains(peer) || self.peers.get(peer).is_some_and(|peer| peer.is_wanted)
    }

    /// A connection with `peer` is open. `inbound` has its local and its remote address.
    pub(crate) fn handle_established(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        inbound: Option<(&Multiaddr, &Multiaddr)>,
        now: Instant,
    ) {
        self.peers.entry(peer).or_default().connections += 1;
        self.handle_failed(connection);
        if let Some((local, remote)) = inbound {
            let origins = origins(local, remote);
            self.inbound.take(connection, &origins, now);
            self.owners.insert(connection, peer);
        }
    }

    /// A handshake or a dial is over.
    pub(crate) fn handle_failed(&mut self, connection: ConnectionId) {
        self.handshakes.end(&connection);
        self.circuits.leave(&connection);
        self.punches.remove(&connection);
        if let Some(peer) = self.own_dials.remove(&connection) {
            if let Some(known) = self.peers.get_mut(&peer) {
                known.dials -= 1;
            }
            self.forget(peer);
        }
    }

    /// A connection with `peer` is closed.
    pub(crate) fn handle_closed(&mut self, connection: ConnectionId, peer: PeerId) {
        self.inbound.leave(&connection);
        self.owners.remove(&connection);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.connections = known.connections.saturating_sub(1);
        }
        self.forget(peer);
    }

    /// The next thing to do, until there is none.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next refusal, until there is none.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A peer that is gone is nobody.
    fn forget(&mut self, peer: PeerId) {
        let is_gone = |peer: &Peer| peer.connections + peer.dials == 0;
        if self.peers.get(&peer).is_some_and(is_gone) {
            self.peers.remove(&peer);
        }
    }

    fn refused(&mut self, refused: Refused, now: Instant) -> Refused {
        self.unlogged += 1;
        let is_due = |logged| now.saturating_duration_since(logged) >= LOG_PERIOD;
        let to_log = self.logged.is_none_or(is_due).then_some(self.unlogged);
        if to_log.is_some() {
            self.logged = Some(now);
            self.unlogged = 0;
        }
        self.events.push_back(Event { refused, to_log });
        refused
    }
}
