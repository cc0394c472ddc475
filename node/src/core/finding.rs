//! What stands in the way of a direct path, and what mends it: for the results of commands.

use serde::{Deserialize, Serialize};

/// What stands in the way of a direct path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name.
    pub id: FindingId,
    /// The same in words.
    pub text: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

/// The name of a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingId {
    /// This side's NAT maps each destination to another port.
    SymmetricHere,
    /// Nothing stands in the way here, so the other side's NAT maps by destination, or lets nobody in.
    SymmetricThere,
    /// No UDP comes back.
    UdpBlocked,
    /// Some ports of the range get nothing back.
    RangeBlocked,
    /// QUIC's datagrams, or full TCP segments, are too long for the way.
    Mtu,
    /// Packets from a port are lost, because a device on the way remembers an earlier connection of it.
    Conntrack,
    /// No relay answers.
    RelayUnreachable,
}

/// What mends a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// Its name.
    pub id: String,
    /// A sentence.
    pub text: String,
    /// What to type; `None` if nothing that can be typed does it.
    pub command: Option<String>,
}
