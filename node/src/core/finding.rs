//! What stands in the way of a direct path, and what mends it: for the results of commands.

use std::{fmt::Display, net::IpAddr};

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
    /// The relay sees the address of a NAT in place of this node's, so no peer learns where this node is.
    RelayNat,
}

impl Finding {
    /// Of what is `known` of a path and what a look at the network shows: the NAT of a relay, which that look takes for another thing,
    /// then the look.
    pub(crate) fn first(
        known: Option<Self>,
        looked: impl FnOnce() -> Option<Self>,
    ) -> Option<Self> {
        match known {
            Some(known) if known.id == FindingId::RelayNat => Some(known),
            known => looked().or(known),
        }
    }

    /// `relay` sees this host at an address that is not the host's.
    pub(crate) fn hidden(relay: impl Display, at: IpAddr) -> String {
        format!(
            "relay_nat: relay {relay} sees this host at {at}, which is no address of this host and leads no peer here: a NAT on the way, mostly in front of the relay, replaces the source addresses"
        )
    }
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
