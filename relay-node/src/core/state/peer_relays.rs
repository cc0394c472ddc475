//! The other relays, which keep copies of all records.

use libp2p::PeerId;

use super::{Action, Event, Keep, RelayState};
use crate::core::{
    clock::Now,
    peer_relays::{Dial, PeerRelayEvent},
};

impl RelayState {
    /// A dial of another relay failed with `error`. `jitter` is between 0 and 1 and spreads the next one.
    pub fn handle_dial_failed(&mut self, relay: PeerId, error: String, now: Now, jitter: f64) {
        self.peer_relays
            .handle_dial_failed(relay, now.instant, jitter);
        while let Some(event) = self.peer_relays.poll_event() {
            if let PeerRelayEvent::Unreachable(relay, failures) = event {
                let error = error.clone();
                self.events.push_back(Event::PeerRelayUnreachable {
                    relay,
                    error,
                    failures,
                });
            }
        }
    }

    pub(super) fn settle_peer_relays(&mut self, now: Now) {
        while let Some(Dial { relay, addrs }) = self.peer_relays.poll_action() {
            self.actions.push_back(Action::Dial { relay, addrs });
        }
        while let Some(event) = self.peer_relays.poll_event() {
            match event {
                PeerRelayEvent::Connected(relay) => {
                    self.keep_alive(relay, Keep::Always);
                    let peers = self.records.peers();
                    let records = peers.len();
                    self.replication.add(relay, peers);
                    self.events
                        .push_back(Event::PeerRelayConnected { relay, records });
                    self.settle_replication(now);
                }
                PeerRelayEvent::Lost(relay) => {
                    self.keep_alive(relay, Keep::WhileUsed);
                    self.replication.forget(&relay);
                    self.events.push_back(Event::PeerRelayLost(relay));
                }
                // Only a dial that fails causes it.
                PeerRelayEvent::Unreachable(..) => {}
            }
        }
    }
}
