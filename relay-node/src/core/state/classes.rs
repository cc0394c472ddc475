//! What each peer may make this relay hold.

use libp2p::PeerId;
use p2pnode_transports::Class;

use super::{Action, RelayState};

impl RelayState {
    /// Something has happened to a peer that its class may depend on.
    pub(super) fn classify(&mut self, peer: PeerId) {
        let class = if self.policy.carries(&peer) {
            Class::Carrying
        } else if self.policy.holds(&peer)
            || self.policy.asks(&peer)
            || self.peer_relays.contains(&peer)
        {
            Class::Known
        } else {
            Class::Stranger
        };
        let before = match class {
            Class::Stranger => self.classes.remove(&peer),
            Class::Known | Class::Carrying | Class::Serving => self.classes.insert(peer, class),
        };
        if before.unwrap_or(Class::Stranger) != class {
            self.actions.push_back(Action::Classify { peer, class });
        }
    }
}
