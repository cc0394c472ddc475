//! Where connections and circuits come from.

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use p2pnode_daemon::shares::{InFamily, Part};
use p2pnode_protocol::{Family, Network, Source};

/// Who calls over a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Caller {
    Peer(PeerId),
    Relay(PeerId),
}

impl Part for Caller {
    fn weight(self) -> usize {
        match self {
            Self::Peer(_) => 1,
            Self::Relay(_) => 16,
        }
    }
}

/// Where an inbound connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Origin {
    Network(Network),
    /// Over a circuit: the address is known to the relay only.
    Relay(PeerId),
}

impl Part for Origin {
    fn weight(self) -> usize {
        match self {
            Self::Network(network) => Part::weight(network),
            Self::Relay(_) => 8,
        }
    }
}

impl InFamily for Origin {
    fn family(self) -> Option<Family> {
        match self {
            Self::Network(network) => network.family(),
            Self::Relay(_) => None,
        }
    }
}

/// The relay of a circuit, which its local address names.
pub(super) fn relay_of(local: &Multiaddr) -> Option<PeerId> {
    let is_circuit = local.iter().any(|part| part == Protocol::P2pCircuit);
    peer_of(local).filter(|_| is_circuit)
}

/// The first peer that an address names.
pub(super) fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    addr.iter().find_map(|part| {
        if let Protocol::P2p(peer) = part {
            Some(peer)
        } else {
            None
        }
    })
}

/// Where an inbound connection comes from, the smallest part first.
pub(super) fn origins(local: &Multiaddr, remote: &Multiaddr) -> Vec<Origin> {
    if let Some(relay) = relay_of(local) {
        return vec![Origin::Relay(relay)];
    }
    let networks = Source::of(remote).into_iter().flat_map(Source::networks);
    networks.map(Origin::Network).collect()
}
