//! What the observers are shown beyond the events: the gauges, and the best path of each peer.

use std::time::Instant;

use libp2p::{PeerId, multiaddr::Protocol};

use super::EventLoop;
use crate::observe::metrics::Cause;

impl EventLoop {
    /// Shows the gauges as they are now.
    pub(super) fn show(&mut self) {
        let is_public = |address: &libp2p::Multiaddr| {
            let mut parts = address.iter();
            !parts.any(|part| part == Protocol::P2pCircuit)
        };
        let listens = self.swarm.listeners().any(is_public);
        let (trusted, found) = (&self.trusted, &self.found_relays);
        let is_relay = |peer: &PeerId| trusted.contains(peer) || found.contains(peer);
        self.observers
            .gauges(&self.peers, &self.relays, &self.sockets, listens, is_relay);
    }

    /// A dial asks for this peer.
    pub(super) fn observe_wanted(&mut self, peer: PeerId, now: Instant) {
        if !self.is_relay(&peer) {
            self.observers.wanted(peer, now);
        }
    }

    /// Something that may have moved the best path of a peer has happened to one of its connections. The legs to relays are
    /// no peers' paths.
    pub(super) fn observe_path(&mut self, peer: PeerId, cause: Cause, now: Instant) {
        if self.is_relay(&peer) {
            return;
        }
        let best = self.peers.best(&peer);
        let best = best.and_then(|id| Some((id, self.peers.kind(id)?)));
        self.observers.best_path(peer, best, cause, now);
    }
}
