//! Peers that were dialed and lost.

use std::time::Instant;

use libp2p::PeerId;

use super::{NodeState, Purpose};
use crate::core::{
    event::{self, Pause},
    reconnect::{Action, Change},
};

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
                    // `status` has the path until it is given up.
                    match self.peers.best(&peer).is_some() {
                        true => {
                            tracing::info!(%peer, %relay, "the path to a peer misses pings; dialing another one alongside")
                        }
                        false => tracing::info!(%peer, %relay, "dialing a lost peer"),
                    }
                    let purpose = Purpose::Reconnect {
                        peer,
                        relay: Some(relay),
                    };
                    self.dial_circuit(peer, relay, purpose, now);
                }
                Action::DialDirect { peer, addrs } => {
                    self.dial_each(peer, addrs, Purpose::Reconnect { peer, relay: None });
                }
            }
        }
        let t = self.t(now);
        while let Some(change) = self.reconnector.poll_event() {
            match change {
                Change::Paused(peer, reason) => {
                    match reason {
                        Pause::NoRelay => {
                            tracing::warn!(%peer, %reason, "a lost peer is not dialed: no relay is reachable; it is dialed when one is")
                        }
                        Pause::NoAnswer => {
                            tracing::warn!(%peer, %reason, "a lost peer does not answer; it is dialed every few minutes, or with `p2pnode dial`")
                        }
                    }
                    self.report(event::Event::SearchPaused { t, peer, reason });
                }
                Change::Resumed(peer) => {
                    tracing::info!(%peer, "a relay is reachable; a lost peer is dialed again");
                    self.report(event::Event::SearchResumed { t, peer });
                }
            }
        }
    }

    /// Somebody says that this peer is wanted no longer: it is not dialed when it is lost. Returns whether it was wanted.
    pub(crate) fn handle_forget(&mut self, peer: PeerId) -> bool {
        let was_wanted = self.reconnector.forget(&peer);
        self.classify(peer);
        was_wanted
    }
}
