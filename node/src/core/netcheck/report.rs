//! The result as it is printed: one JSON object.

use std::net::IpAddr;

use p2pnode_transports::{Family, Transport};
use serde::{Deserialize, Serialize};

use super::{Allocation, Filtering, Kind, Mapping, PathFacts};
use crate::core::finding::Remedy;

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) event: NetcheckEvent,
    pub(crate) checks: Vec<Check>,
    pub(crate) verdict: Verdict,
}

/// The name of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NetcheckEvent {
    Netcheck,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) id: Id,
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transport: Option<Transport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) family: Option<Family>,
    #[serde(flatten)]
    pub(crate) nat: Option<Nat>,
    pub(crate) text: String,
    /// The address of the relay that sees a NAT in place of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hidden_from: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<Remedy>,
}

/// What a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Id {
    Relay,
    Udp,
    Range,
    Nat,
    Hairpin,
    Mtu,
    Lifetime,
    Mapping,
    Nat64,
    Clock,
    Host,
}

/// How good or bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    Warn,
    Fail,
    Unknown,
}

/// The NAT in the way of a transport and family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nat {
    pub(crate) mapping: Mapping,
    pub(crate) filtering: Filtering,
    pub(crate) preserved: Option<bool>,
    pub(crate) allocation: Allocation,
    pub(crate) kind: Kind,
}

/// Which peers can be reached how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) direct: Vec<PeerClass>,
    /// With these a search for ports over QUIC mostly ends direct; until then they are relayed.
    pub(crate) search: Vec<PeerClass>,
    /// These stay relayed.
    pub(crate) relayed: Vec<PeerClass>,
    /// What the facts do not say.
    pub(crate) unknown: Vec<PeerClass>,
}

impl Verdict {
    /// Whether peers behind most home routers do not become direct by a punch.
    pub(crate) fn is_hard(&self) -> bool {
        let has = |peers: &[PeerClass]| peers.contains(&PeerClass::EimApdf);
        has(&self.search) || has(&self.relayed)
    }
}

p2pnode_protocol::named! {
    /// Peers by what is in front of them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub(crate) enum PeerClass {
        Public => "public",
        FullCone => "full-cone",
        AddressRestricted => "address-restricted",
        EimApdf => "eim-apdf",
        Symmetric => "symmetric",
    }
}

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaches {
    /// Peers behind most home routers directly, as far as is known.
    Directly,
    /// Those over a relay only.
    Relayed,
    /// No relay answers.
    Nobody,
}

impl Report {
    /// What the exit code says.
    pub(crate) fn reaches(&self) -> Reaches {
        let mut relays = self.checks.iter().filter(|check| check.id == Id::Relay);
        let is_there = |check: &Check| matches!(check.status, Status::Ok | Status::Warn);
        if !relays.any(is_there) {
            Reaches::Nobody
        } else if self.verdict.is_hard() {
            Reaches::Relayed
        } else {
            Reaches::Directly
        }
    }
}

pub(super) fn check(
    id: Id,
    status: Status,
    text: impl Into<String>,
    remedy: Option<Remedy>,
) -> Check {
    Check {
        id,
        status,
        transport: None,
        family: None,
        nat: None,
        text: text.into(),
        hidden_from: None,
        remedy,
    }
}

pub(super) fn of_path(path: &PathFacts, check: Check) -> Check {
    Check {
        transport: Some(path.transport),
        family: Some(path.family),
        ..check
    }
}
