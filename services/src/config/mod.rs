//! The values that `services`, `forwards`, `socks` and `sessions` consist of.
//!
//! Each parses from the text of a configuration or a flag. Its error is one line: the value, what is wrong, and the remedy.

mod address;
mod check;
mod keys;
mod name;
#[cfg(test)]
mod tests;

use std::time::Duration;

use libp2p::PeerId;

pub use address::{Address, Host, Listen, Target};
pub use check::{Fault, Known, Peers, RawForward, RawService, forward, service};
pub use keys::{Services, listener, read};
pub use name::{Destination, RawProtocol, ServiceName, What};

/// How long a session outlives its path, unless `sessions.linger` says otherwise.
pub const LINGER: Duration = Duration::from_secs(60);

/// How many bytes all sessions may hold, unless `sessions.memory` says otherwise: 128 MiB.
pub const MEMORY: u64 = 128 << 20;

/// How long a flow lives without a datagram, unless `udp_idle` says otherwise.
pub const UDP_IDLE: Duration = Duration::from_secs(60);

/// A service of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Where its connections go.
    pub target: Target,
    /// Who may use it.
    pub allow: Allow,
    /// How the target learns who calls.
    pub identity: Identity,
    /// The protocol of a raw stream that leads to it as well.
    pub protocol: Option<RawProtocol>,
    /// From which ports the target is dialed.
    pub source: Source,
    /// How long a flow lives without a datagram.
    pub udp_idle: Duration,
}

/// A service of another node, brought here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Where clients connect.
    pub listen: Listen,
    /// The services, in the order in which they are tried, each with its peer.
    pub to: Vec<(What, PeerId)>,
}

/// Who may use a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// Every peer.
    Any,
    /// These.
    Peers(std::collections::BTreeSet<PeerId>),
}

impl Allow {
    /// Whether `peer` may use the service.
    #[must_use]
    pub fn permits(&self, peer: &PeerId) -> bool {
        match self {
            Self::Any => true,
            Self::Peers(peers) => peers.contains(peer),
        }
    }
}

/// How a target learns who calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Not at all.
    #[default]
    None,
    /// By a header of the PROXY protocol, version 2.
    ProxyV2,
    /// By a source address of its own for each peer.
    Address,
}

/// From which ports a target is dialed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Source {
    /// From any: the target is inside, and the range is for what leaves toward the network.
    #[default]
    Any,
    /// From the range.
    Range,
}

/// The names of identities and sources.
impl Identity {
    /// By name.
    pub const NAMES: [(&str, Self); 3] = [
        ("none", Self::None),
        ("proxy-v2", Self::ProxyV2),
        ("address", Self::Address),
    ];
}

impl Source {
    /// By name.
    pub const NAMES: [(&str, Self); 2] = [("any", Self::Any), ("range", Self::Range)];
}
