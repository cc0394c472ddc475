//! Who may connect, when the configuration is read again.

use std::collections::BTreeSet;

use libp2p::PeerId;

use super::{Action, NodeState};

impl NodeState {
    /// `access.allow` has changed: from now on only `allowed` may connect, if not every peer may. `introducers` are the relays from
    /// which this node takes introductions now.
    ///
    /// A relay learns of that with the next connection to it, so the connections to the relays are made again.
    pub(crate) fn handle_access(
        &mut self,
        allowed: Option<BTreeSet<PeerId>>,
        introducers: BTreeSet<PeerId>,
    ) {
        let before = self.allowed.iter().flatten().copied();
        let touched: BTreeSet<_> = before.chain(allowed.iter().flatten().copied()).collect();
        self.allowed = allowed;
        let temporarily = &self.temporarily_allowed;
        let allowed = self.allowed.as_ref();
        let may_connect = allowed.map(|allowed| allowed.union(temporarily).copied().collect());
        let named = allowed.into_iter().flatten().copied();
        let named = named.chain(self.relays.relays()).collect();
        self.actions.push_back(Action::SetAccess {
            allowed: may_connect,
            named,
        });
        let changes_introducers = self.introducers != introducers;
        self.introducers = introducers;
        for peer in self.peers.peers().copied().collect::<Vec<_>>() {
            let is_allowed = self.is_allowed(&peer);
            if !is_allowed {
                self.reconnector.forget(&peer);
            }
            if !is_allowed || (changes_introducers && self.relays.is_configured(&peer)) {
                for connection in self.peers.connections_of(&peer).to_vec() {
                    self.relays.handle_closing(connection);
                    self.actions.push_back(Action::Close(connection));
                }
            }
        }
        for peer in touched {
            self.classify(peer);
        }
    }
}
