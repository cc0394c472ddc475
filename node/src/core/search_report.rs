//! How a search ended, for observers.

use std::{fmt, time::Duration};

use libp2p::PeerId;
use p2pnode_protocol::port_search::{Ports, Side};
use serde::{Deserialize, Serialize};

use crate::core::json;

/// A search that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchReport {
    /// The peer.
    #[serde(with = "json::text")]
    pub peer: PeerId,
    /// How the NAT of each side gives ports, if both are known.
    pub class: Option<SearchClass>,
    /// How long it took, from the wish or the offer to its end.
    #[serde(rename = "took_ms", with = "json::millis")]
    pub took: Duration,
    /// Packets that this side has sent.
    pub sent: u32,
    /// Probes of the peer that have come.
    pub received: u32,
    /// Datagrams that were none: forged, reflected or replayed.
    pub ignored: u32,
    /// How it ended.
    pub outcome: SearchOutcome,
    /// Whether a direct path was to move to another port, before its mapping dies of age.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
    /// Why it was not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<NoSearch>,
}

/// How the NATs give ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchClass {
    /// The NAT of this side.
    pub here: PortClass,
    /// The NAT of the peer.
    pub there: PortClass,
    /// How sure `here` is, in percent: 100 less the chance that random ports would have looked alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u8>,
}

/// How a NAT gives ports to new mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortClass {
    /// One for all destinations.
    Stable,
    /// Any.
    Random,
    /// Any of a block.
    Block,
    /// One after another.
    Sequential,
}

impl PortClass {
    /// The same in words.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Stable => "one port for all destinations",
            Self::Random => "random ports",
            Self::Block => "ports of a block",
            Self::Sequential => "ports one after another",
        }
    }
}

impl From<&Side> for PortClass {
    fn from(side: &Side) -> Self {
        match side.ports {
            None => Self::Stable,
            Some(Ports::Random) => Self::Random,
            Some(Ports::Block { .. }) => Self::Block,
            Some(Ports::Sequential { .. }) => Self::Sequential,
        }
    }
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchOutcome {
    /// With a pair of sockets, between which a connection is made.
    Found,
    /// All packets of the series are sent, and no pair was found.
    NotFound,
    /// The peer has become direct, or is gone.
    Needless,
    /// The peer, or the relay, has not answered.
    Unanswered,
    /// No relay has seen this node's ports.
    NoSample,
    /// No packet was sent, for a reason.
    NotTried,
}

p2pnode_protocol::named! {
    /// Why there is no search.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum NoSearch {
        /// Each side has one mapping for all destinations, and one of them has named no fresh ports. It is of an earlier version, or its
        /// range has none.
        NotSymmetric,
        /// Both map by destination, and one of them to random ports: 54,000 packets a side find a pair in half of the searches.
        RandomBoth,
        /// One side has IPv4 and the other IPv6.
        Family,
        /// Both are behind one address.
        SameNat,
        /// The symmetric side has no free port of its range.
        NoPorts,
    }
}

impl NoSearch {
    /// The same in words.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::NotSymmetric => "neither NAT is symmetric, and one side has named no fresh ports",
            Self::RandomBoth => {
                "both NATs are symmetric and one has random ports, so no affordable number of packets finds a pair"
            }
            Self::Family => "the two have no IP family in common",
            Self::SameNat => "both are behind one address",
            Self::NoPorts => "the symmetric side has no free port of its range",
        }
    }
}

macro_rules! display_as_serialized {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.serialize(f)
            }
        }
    )*};
}

display_as_serialized!(NoSearch, PortClass, SearchOutcome);
