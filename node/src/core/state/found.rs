//! Relays that are not configured: those that the record of a dialed peer names.

use std::time::Instant;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::to_multiaddr;

use super::{Action, NodeState, Purpose};
use crate::core::{
    dialer::CircuitFailure,
    found_relays::Dial,
    peers::{How, PathKind},
};

impl NodeState {
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
        self.found_relays.handle_found(relay, addrs, is_connected);
        self.classify(relay);
        self.dial_known(peer, relay, purpose);
    }

    /// Dials a peer through a relay that was found once.
    pub(super) fn dial_known(&mut self, peer: PeerId, relay: PeerId, purpose: Purpose) {
        if let Some(address) = self.open_leg(&relay) {
            return self.dial_over(peer, relay, address, purpose);
        }
        self.found_relays.handle_wanted(relay, (peer, purpose));
        while let Some(Dial { relay, addrs }) = self.found_relays.poll_action() {
            tracing::info!(%peer, %relay, "dialing a relay that the peer's record names");
            self.allow_temporarily(relay);
            self.dial(relay, addrs, Purpose::FoundLeg(relay));
        }
    }

    /// A relay over which a peer is to be called may connect, as long as a connection to it is made or open.
    fn allow_temporarily(&mut self, relay: PeerId) {
        if !self.is_allowed(&relay) {
            self.temporarily_allowed.insert(relay);
            self.actions.push_back(Action::Allow(relay));
        }
    }

    /// Whether the access rules let a peer connect.
    pub(super) fn is_allowed(&self, peer: &PeerId) -> bool {
        let allowed = self.allowed.as_ref();
        allowed.is_none_or(|allowed| allowed.contains(peer))
            || self.temporarily_allowed.contains(peer)
    }

    /// A connection to a peer has closed or has failed. If the peer may connect only as a relay that a record names, its
    /// permission ends with its last connection.
    pub(super) fn end_access(&mut self, peer: &PeerId) {
        if self.peers.connections_of(peer).is_empty() && self.temporarily_allowed.remove(peer) {
            self.actions.push_back(Action::Disallow(*peer));
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

    /// Whether this is a relay, configured or found.
    pub(crate) fn is_relay(&self, peer: &PeerId) -> bool {
        self.relays.is_configured(peer) || self.found_relays.contains(peer)
    }

    /// Whether this is a relay that was found and is not configured.
    pub(super) fn is_found(&self, relay: &PeerId) -> bool {
        !self.relays.is_configured(relay) && self.found_relays.contains(relay)
    }

    /// A relay that was found is connected: the circuits that have waited for it are dialed.
    pub(super) fn on_found_leg(&mut self, relay: PeerId, connection: ConnectionId, now: Instant) {
        for (peer, purpose) in self.found_relays.handle_dialed(&relay, connection) {
            match self.open_leg(&relay) {
                Some(address) => self.dial_over(peer, relay, address, purpose),
                None => self.on_circuit_failed(
                    purpose,
                    CircuitFailure::Broken,
                    "the relay was lost".to_owned(),
                    now,
                ),
            }
        }
    }

    /// A relay that was found cannot be reached.
    pub(super) fn on_found_leg_failed(
        &mut self,
        relay: PeerId,
        connection: ConnectionId,
        reason: &str,
        now: Instant,
    ) {
        tracing::debug!(%relay, %reason, "cannot reach a relay that a record names");
        self.end_access(&relay);
        for (_, purpose) in self.found_relays.handle_dialed(&relay, connection) {
            let reason = format!("relay {relay}: {reason}");
            self.on_circuit_failed(purpose, CircuitFailure::Broken, reason, now);
        }
    }
}
