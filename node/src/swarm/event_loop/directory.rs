//! The directory: this node's own record, the questions of dials, and the relays that the answers name.

use std::{
    collections::BTreeSet,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use p2pnode_protocol::directory::{Event, Registration, publishable};
use p2pnode_transports::to_multiaddr;

use super::{EventLoop, Purpose};
use crate::{
    core::{
        dialer::CircuitFailure,
        found_relays::Need,
        peers::{How, PathKind},
        registrar::Step,
    },
    swarm::behaviour::BehaviourEvent,
};

impl EventLoop {
    pub(super) fn on_directory(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Found {
                query,
                registration,
            } => {
                if self.earlier.contains_key(&query) {
                    tracing::debug!(
                        seq = registration.seq,
                        "found this node's own record of an earlier run"
                    );
                    self.registrar.handle_kept(registration.seq, now);
                }
                let Some(peer) = self.lookups.get(&query).copied() else {
                    return;
                };
                let mut found = registration.found();
                let local = *self.swarm.local_peer_id();
                found
                    .relays
                    .retain(|via| via.relay != local && !self.trusted.contains(&via.relay));
                tracing::debug!(%peer, seq = registration.seq, ?found, "found the record of a peer");
                for dialer in self.dials_of(peer) {
                    dialer.handle_found(&found, now);
                }
            }
            Event::LookedUp { query } => {
                if let Some(relay) = self.earlier.remove(&query) {
                    self.registrar.handle_asked(&relay, now);
                }
                if let Some(peer) = self.lookups.remove(&query) {
                    for dialer in self.dials_of(peer) {
                        dialer.handle_looked_up(now);
                    }
                }
            }
            Event::Told { query, arrived } => {
                if let Some(relay) = self.registrations.remove(&query) {
                    tracing::debug!(%relay, arrived, "told a relay this node's record");
                    self.registrar.handle_told(&relay, arrived, now);
                }
            }
            Event::Refused { source, reason } => {
                tracing::warn!(relay = ?source, %reason, "a relay told a record that is none");
            }
            // A node keeps no records and speaks to relays only.
            Event::Offered(_) => {}
        }
    }

    /// Asks the relays for the record of a peer.
    pub(super) fn look_up(&mut self, peer: PeerId) {
        let query = self.swarm.behaviour_mut().directory.look_up(&peer);
        self.lookups.insert(query, peer);
    }

    /// Tells this node's record to the relays whose turn it is.
    pub(super) fn register(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_moved) {
            let addrs = self.swarm.listeners().filter(|addr| publishable(addr));
            let addrs: BTreeSet<Multiaddr> = addrs.cloned().collect();
            self.registrar.set_addrs(addrs, now);
            let held = self.relays.relays();
            let held: BTreeSet<PeerId> = held.filter(|relay| self.relays.holds(relay)).collect();
            self.registrar.set_relays(&held);
        }
        while let Some(step) = self.registrar.poll(now) {
            match step {
                Step::Ask(relay) => {
                    let local = *self.swarm.local_peer_id();
                    let query = self.swarm.behaviour_mut().directory.look_up(&local);
                    self.earlier.insert(query, relay);
                }
                Step::Tell(relay) => self.tell_record(relay, &self.registrar.addrs()),
            }
        }
    }

    fn tell_record(&mut self, relay: PeerId, addrs: &[Multiaddr]) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since_1970.map_or(0, |since| since.as_millis());
        let seq = self
            .registrar
            .next_seq(u64::try_from(millis).unwrap_or(u64::MAX - 1));
        let local = *self.swarm.local_peer_id();
        match Registration::sign(&self.keypair, seq, addrs) {
            Ok(record) => {
                let directory = &mut self.swarm.behaviour_mut().directory;
                let query = directory.register(relay, &local, record);
                self.registrations.insert(query, relay);
            }
            // The key has signed the node's connections before.
            Err(error) => tracing::error!(%error, "cannot sign this node's record"),
        }
    }

    /// Tells the relays that this node is leaving, and returns when they know.
    pub(super) async fn withdraw(&mut self) {
        self.registrations.clear();
        if self.registrar.addrs().is_empty() {
            return;
        }
        let relays: Vec<PeerId> = self.registrar.relays().collect();
        for relay in relays {
            self.tell_record(relay, &[]);
        }
        while !self.registrations.is_empty() {
            if let SwarmEvent::Behaviour(BehaviourEvent::Directory(Event::Told { query, .. })) =
                self.swarm.select_next_some().await
            {
                self.registrations.remove(&query);
            }
        }
    }

    /// Whether this is a relay, configured or found.
    pub(super) fn is_relay(&self, peer: &PeerId) -> bool {
        self.trusted.contains(peer) || self.found_relays.contains(peer)
    }

    /// Dials a peer through a relay that its record names.
    pub(super) fn dial_found(
        &mut self,
        peer: PeerId,
        relay: PeerId,
        addrs: &[Multiaddr],
        purpose: Purpose,
    ) {
        let peers = &self.peers;
        let is_connected = |relay: &PeerId| !peers.connections_of(relay).is_empty();
        self.found_relays.found(relay, addrs, is_connected);
        self.dial_known(peer, relay, purpose);
    }

    /// Dials a peer through a relay that was found once.
    pub(super) fn dial_known(&mut self, peer: PeerId, relay: PeerId, purpose: Purpose) {
        if let Some(address) = self.open_leg(&relay) {
            return self.dial_over(peer, relay, address, purpose);
        }
        match self.found_relays.wait(&relay, (peer, purpose)) {
            Need::Dial(addresses) => {
                tracing::info!(%peer, %relay, "dialing a relay that the peer's record names");
                // Who is to be called over it must be let through to it, for as long as it is connected.
                if let Some(access) = self.swarm.behaviour_mut().access.as_mut()
                    && access.allow_peer(relay)
                {
                    self.lent.insert(relay);
                }
                let opts = DialOpts::peer_id(relay)
                    .addresses(addresses)
                    .condition(PeerCondition::Always)
                    .build();
                self.found_relays.dialing(&relay, opts.connection_id());
                self.dial(opts, Purpose::FoundLeg(relay));
            }
            Need::Wait | Need::Nothing => {}
        }
    }

    /// The address of a connection to a relay that was found.
    fn open_leg(&self, relay: &PeerId) -> Option<Multiaddr> {
        let legs = self.peers.connections_of(relay).iter();
        let mut paths = legs.filter_map(|id| self.peers.path(*id));
        // A connection that the relay has made is no place to ask for circuits: its address there is a stranger's port.
        let path = paths.find(|path| path.kind == PathKind::Direct && path.how != How::Accepted)?;
        let hop = path.hops.first()?;
        let (transport, remote) = (hop.transport?, hop.remote?);
        Some(to_multiaddr(transport, remote))
    }

    /// A relay that was found is connected: the circuits that have waited for it are dialed.
    pub(super) fn on_found_leg(&mut self, relay: PeerId, connection: ConnectionId) {
        for (peer, purpose) in self.found_relays.dialed(&relay, connection) {
            match self.open_leg(&relay) {
                Some(address) => self.dial_over(peer, relay, address, purpose),
                None => self.on_circuit_failed(
                    purpose,
                    CircuitFailure::Broken,
                    "the relay was lost".to_owned(),
                ),
            }
        }
    }

    /// A connection to a peer is gone, or could not be made: if it was let through for being a relay that a record names, that
    /// ends with its last one.
    pub(super) fn end_access(&mut self, peer: &PeerId) {
        if self.peers.connections_of(peer).is_empty()
            && self.lent.remove(peer)
            && let Some(access) = self.swarm.behaviour_mut().access.as_mut()
        {
            access.disallow_peer(*peer);
        }
    }

    /// A relay that was found cannot be reached.
    pub(super) fn on_found_leg_failed(
        &mut self,
        relay: PeerId,
        connection: ConnectionId,
        reason: &str,
    ) {
        tracing::debug!(%relay, %reason, "cannot reach a relay that a record names");
        self.end_access(&relay);
        for (_, purpose) in self.found_relays.dialed(&relay, connection) {
            let reason = format!("relay {relay}: {reason}");
            self.on_circuit_failed(purpose, CircuitFailure::Broken, reason);
        }
    }
}
