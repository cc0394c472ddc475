//! Peers that were dialed and lost.

use std::time::Instant;

use libp2p::{
    PeerId,
    swarm::{
        ConnectionError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{EventLoop, Purpose, jitter};
use crate::{
    core::{liveness::Ended, reconnect::Action},
    swarm::dial_error,
};

impl EventLoop {
    /// Removes the dials that are over; a peer that one has reached is wanted from now on.
    pub(super) fn end_dials(&mut self) {
        let over = |dial: &mut super::Dial| dial.dialer.is_finished() || dial.reports.is_closed();
        let over: Vec<_> = self.dials.extract_if(.., over).collect();
        for dial in over {
            let peer = dial.dialer.peer();
            if self.dials_of(peer).next().is_none() {
                self.discovery.forget(&peer);
                self.introductions.forget(&peer);
            }
            let Some(path) = self.best_path(&peer) else {
                if self.dials_of(peer).next().is_none() {
                    self.observers.unwanted(&peer);
                }
                continue;
            };
            if self.dials_of(peer).next().is_none() {
                let addrs = dial.dialer.addrs();
                let last = path.relay.or(dial.dialer.led_by());
                self.reconnector
                    .want(peer, addrs, dial.dialer.relays(), last);
            }
        }
    }

    /// Dials the lost peers whose turn it is.
    pub(super) fn dial_lost_peers(&mut self, now: Instant) {
        loop {
            let is_ready =
                |relay: &PeerId| self.relays.is_ready(relay) || self.found_relays.contains(relay);
            let Some(action) = self.reconnector.poll(now, is_ready, jitter()) else {
                return;
            };
            match action {
                Action::DialCircuit { peer, relay } => {
                    tracing::info!(%peer, %relay, "dialing a lost peer");
                    let purpose = Purpose::Again {
                        peer,
                        relay: Some(relay),
                    };
                    self.dial_circuit(peer, relay, purpose);
                }
                Action::DialDirect { peer, addrs } => {
                    let opts = DialOpts::peer_id(peer)
                        .addresses(addrs)
                        .condition(PeerCondition::Always)
                        .build();
                    self.dial(opts, Purpose::Again { peer, relay: None });
                }
                Action::GiveUp { peer } => {
                    tracing::warn!(%peer, "the peer was lost and cannot be reached; dial it to try again");
                }
            }
        }
    }
}

/// How a connection ended, by what its transport says.
pub(super) fn ended(cause: Option<&ConnectionError>) -> Ended {
    match cause {
        None | Some(ConnectionError::KeepAliveTimeout) => Ended::Ours,
        Some(ConnectionError::IO(error)) => {
            // Neither quinn's nor yamux's error can be had by its type: libp2p wraps both in private ones.
            let text = dial_error::innermost(error);
            if text.starts_with("closed by peer") || text == "connection is closed" {
                Ended::Theirs
            } else {
                Ended::Broken
            }
        }
    }
}
