//! What each peer may make this node hold.

use libp2p::PeerId;
use p2pnode_transports::Class;

use super::{Action, NodeState};

impl NodeState {
    /// The classes of the peers that the configuration names.
    pub(super) fn classify_configured(&mut self) {
        let relays = self.relays.relays();
        let allowed = self.allowed.iter().flatten().copied();
        for peer in relays.chain(allowed).collect::<Vec<_>>() {
            self.classify(peer);
        }
    }

    /// Something has happened to a peer that its class may depend on.
    pub(super) fn classify(&mut self, peer: PeerId) {
        let class = self.class(&peer);
        let before = match class {
            Class::Stranger => self.classes.remove(&peer),
            Class::Known | Class::Carrying | Class::Serving => self.classes.insert(peer, class),
        };
        if before.unwrap_or(Class::Stranger) != class {
            self.actions.push_back(Action::Classify { peer, class });
        }
    }

    fn class(&mut self, peer: &PeerId) -> Class {
        match self.serving.get(peer) {
            Some(true) => return Class::Serving,
            Some(false) => return Class::Carrying,
            None => {}
        }
        // The bytes of a circuit go over the connection to its relay.
        if self.peers.is_circuit_relay(peer) {
            return Class::Carrying;
        }
        let is_named = |allowed: &std::collections::BTreeSet<_>| allowed.contains(peer);
        let is_known = self.is_relay(peer)
            || self.allowed.as_ref().is_some_and(is_named)
            || self.reconnector.is_wanted(peer)
            || self.is_dialed(*peer);
        match is_known {
            true => Class::Known,
            false => Class::Stranger,
        }
    }
}
