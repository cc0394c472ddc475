//! Mapping, filtering and allocation in the words of [RFC 4787](https://www.rfc-editor.org/rfc/rfc4787), and the NAT's name.

use serde::{Deserialize, Serialize};

use super::PathFacts;

/// How a NAT maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mapping {
    /// Nothing is translated.
    None,
    /// One mapping for all destinations.
    Eim,
    /// One for each destination address.
    Adm,
    /// One for each destination address and port.
    Apdm,
    /// Several: two addresses see two of them, and no second port of an address has answered. [`Self::Adm`] or [`Self::Apdm`].
    #[serde(rename(serialize = "unknown"), skip_deserializing)]
    Several,
    Unknown,
}

/// Whom a NAT or a firewall lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Filtering {
    /// Anybody, without a translation.
    None,
    /// Anybody.
    Eif,
    /// Addresses that were sent to.
    Adf,
    /// Addresses and ports that were sent to.
    Apdf,
    Unknown,
}

/// How a NAT chooses the ports of mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allocation {
    pub(crate) kind: AllocationKind,
    /// The lowest and the highest port of a block.
    pub(crate) from: Option<u16>,
    pub(crate) to: Option<u16>,
    /// From one mapping to the next, of a sequential one.
    pub(crate) step: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AllocationKind {
    Preserved,
    Sequential,
    Block,
    Random,
    Unknown,
}

/// The name of a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    None,
    FullCone,
    AddressRestricted,
    EimApdf,
    EimApdfRewrite,
    Firewall,
    Symmetric,
    Unknown,
}

/// How far ports may lie apart that come from one block: the largest that carriers give a customer.
const BLOCK: u16 = 4096;

/// Fewer mappings than this show no pattern.
const PATTERN: usize = 4;

/// Ports that follow each other come closer than this.
const STEP: u16 = 16;

impl Mapping {
    pub(crate) fn of(path: &PathFacts) -> Self {
        let seen: Vec<_> = path
            .shown()
            .filter_map(|seen| Some((*seen, seen.mapped?)))
            .collect();
        if seen.is_empty() {
            return Self::Unknown;
        }
        if seen.iter().all(|(of, mapped)| Some(*mapped) == of.local) {
            return Self::None;
        }
        let pairs = || {
            let after = |at: usize| seen[at + 1..].iter();
            (0..seen.len()).flat_map(move |at| after(at).map(move |other| (at, other)))
        };
        // Of two ports of an address, and of two addresses: whether both saw the same.
        let (mut by_port, mut by_address) = (None, None);
        for (at, (of, mapped)) in pairs() {
            let (one_of, one) = seen[at];
            if one_of.local != of.local {
                continue;
            }
            let is_same = one == *mapped;
            let by = if one_of.by.ip() == of.by.ip() {
                &mut by_port
            } else {
                &mut by_address
            };
            *by = Some(by.unwrap_or(true) && is_same);
        }
        match (by_port, by_address) {
            (Some(false), _) => Self::Apdm,
            (Some(true), Some(false)) => Self::Adm,
            (_, Some(true)) => Self::Eim,
            (None, Some(false)) => Self::Several,
            (Some(true) | None, None) => Self::Unknown,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Eim => "eim",
            Self::Adm => "adm",
            Self::Apdm => "apdm",
            Self::Several | Self::Unknown => "unknown",
        }
    }

    /// Whether a peer finds the mapping that a relay has seen; `None` if that is not known.
    pub(crate) const fn is_stable(self) -> Option<bool> {
        match self {
            Self::None | Self::Eim => Some(true),
            Self::Adm | Self::Apdm | Self::Several => Some(false),
            Self::Unknown => None,
        }
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Eim => "endpoint-independent",
            Self::Adm => "address-dependent",
            Self::Apdm => "address-and-port-dependent",
            Self::Several => "dependent on the destination",
            Self::Unknown => "unknown",
        }
    }
}

impl Filtering {
    pub(crate) fn of(path: &PathFacts, mapping: Mapping) -> Self {
        match (path.from_other_port, path.from_other_address) {
            (_, Some(true)) if mapping == Mapping::None => Self::None,
            (_, Some(true)) => Self::Eif,
            (Some(true), Some(false)) => Self::Adf,
            (Some(false), _) => Self::Apdf,
            (None, Some(false)) | (Some(true) | None, None) => Self::Unknown,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Eif => "eif",
            Self::Adf => "adf",
            Self::Apdf => "apdf",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Eif => "endpoint-independent",
            Self::Adf => "address-dependent",
            Self::Apdf => "address-and-port-dependent",
            Self::Unknown => "unknown",
        }
    }
}

impl Allocation {
    pub(crate) fn of(path: &PathFacts) -> Self {
        let hidden = path.hidden();
        let mapped = |(port, mapped): &(u16, Option<std::net::SocketAddr>)| {
            let mapped = (*mapped).filter(|at| !hidden.contains(&at.ip()))?;
            Some((*port, mapped.port()))
        };
        let ports: Vec<(u16, u16)> = path.sample.iter().filter_map(mapped).collect();
        Self::of_ports(&ports)
    }

    /// That of ports, in the order in which they asked, and what they were mapped to.
    pub(crate) fn of_ports(ports: &[(u16, u16)]) -> Self {
        let of = |kind| Self {
            kind,
            from: None,
            to: None,
            step: None,
        };
        if !ports.is_empty() && ports.iter().all(|(port, mapped)| port == mapped) {
            return of(AllocationKind::Preserved);
        }
        let lowest = ports.iter().map(|(_, mapped)| *mapped).min();
        let highest = ports.iter().map(|(_, mapped)| *mapped).max();
        let (Some(from), Some(to), true) = (lowest, highest, ports.len() >= PATTERN) else {
            return of(AllocationKind::Unknown);
        };
        let steps: Vec<u16> = ports
            .windows(2)
            .map(|pair| pair[1].1.wrapping_sub(pair[0].1))
            .collect();
        if let Some(step) = step(&steps) {
            return Self {
                step: Some(step),
                ..of(AllocationKind::Sequential)
            };
        }
        if to - from < BLOCK {
            return Self {
                from: Some(from),
                to: Some(to),
                ..of(AllocationKind::Block)
            };
        }
        of(AllocationKind::Random)
    }
}

/// By how much ports follow each other that were given one after another. In one of five places, others may have had ports too.
fn step(steps: &[u16]) -> Option<u16> {
    let step = steps
        .iter()
        .copied()
        .min()
        .filter(|step| (1..=STEP).contains(step))?;
    let exact = steps.iter().filter(|other| **other == step).count();
    let is_near = |other: &u16| other.is_multiple_of(step) && *other <= step.saturating_mul(STEP);
    (steps.iter().all(is_near) && exact * 5 >= steps.len() * 4).then_some(step)
}

impl Kind {
    pub(crate) const fn of(
        mapping: Mapping,
        filtering: Filtering,
        preserved: Option<bool>,
    ) -> Self {
        match (mapping, filtering) {
            (Mapping::Adm | Mapping::Apdm | Mapping::Several, _) => Self::Symmetric,
            (Mapping::None, Filtering::None | Filtering::Eif) => Self::None,
            (Mapping::None, Filtering::Adf | Filtering::Apdf) => Self::Firewall,
            (Mapping::Eim, Filtering::None | Filtering::Eif) => Self::FullCone,
            (Mapping::Eim, Filtering::Adf) => Self::AddressRestricted,
            (Mapping::Eim, Filtering::Apdf) => match preserved {
                Some(false) => Self::EimApdfRewrite,
                Some(true) | None => Self::EimApdf,
            },
            (Mapping::Unknown, _) | (Mapping::None | Mapping::Eim, Filtering::Unknown) => {
                Self::Unknown
            }
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::EimApdf => "eim-apdf",
            Self::EimApdfRewrite => "eim-apdf-rewrite",
            Self::Firewall => "firewall",
            Self::Symmetric => "symmetric",
            Self::Unknown => "unknown",
        }
    }
}
