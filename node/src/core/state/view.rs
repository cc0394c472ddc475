//! What observers see of the state.

use std::{collections::BTreeMap, time::Instant};

use libp2p::{Multiaddr, PeerId};
use p2pnode_transports::{Family, PortRange, Transport};

use super::NodeState;
use crate::core::{peers::PeerTable, relays::RelayKeeper};

impl NodeState {
    /// The node's own id.
    pub(crate) const fn local(&self) -> PeerId {
        self.local
    }

    /// The source ports that its packets leave from.
    pub(crate) const fn port_range(&self) -> PortRange {
        self.port_range
    }

    /// The open connections.
    pub(crate) const fn peers(&self) -> &PeerTable {
        &self.peers
    }

    /// The configured relays and the reservations on them.
    pub(crate) const fn relays(&self) -> &RelayKeeper {
        &self.relays
    }

    /// Where this node listens publicly.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Multiaddr> {
        self.addresses.public()
    }

    /// The punch port of each transport and family.
    pub(crate) const fn punch_ports(&self) -> &BTreeMap<(Transport, Family), u16> {
        self.addresses.punch_ports()
    }

    /// When a peer whose punch was given up for now is punched again.
    pub(crate) fn next_punch(&self, peer: &PeerId) -> Option<Instant> {
        self.next_punches.get(peer).copied().flatten()
    }
}
