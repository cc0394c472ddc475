//! Peers that were dialed and lost.

use std::time::Instant;

use libp2p::PeerId;

use super::{NodeState, Purpose};
use crate::core::reconnect::Action;

impl NodeState {
    /// Dials the lost peers whose turn it is.
    pub(super) fn dial_lost_peers(&mut self, now: Instant) {
        let (relays, found) = (&self.relays, &self.found_relays);
        let is_ready = |relay: &PeerId| relays.is_ready(relay) || found.contains(relay);
        self.reconnector
            .handle_timeout(now, is_ready, || self.rng.f64());
        while let Some(action) = self.reconnector.poll_action() {
            match action {
                Action::DialCircuit { peer, relay } => {
                    tracing::info!(%peer, %relay, "dialing a lost peer");
                    let purpose = Purpose::Reconnect {
                        peer,
                        relay: Some(relay),
                    };
                    self.dial_circuit(peer, relay, purpose, now);
                }
                Action::DialDirect { peer, addrs } => {
                    self.dial_each(peer, addrs, Purpose::Reconnect { peer, relay: None });
                }
                Action::GiveUp { peer } => {
                    tracing::warn!(%peer, "the peer was lost and cannot be reached; dial it to try again");
                    self.classify(peer);
                }
            }
        }
    }
}
