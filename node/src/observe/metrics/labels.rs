//! The label sets. Every value but the number of a relay is a text of the program, so that no label can hold what a remote or a
//! user has sent.

use p2pnode_transports::{Family, Transport};
use prometheus_client::encoding::EncodeLabelSet;

use crate::{
    core::peers::{Path, PathKind},
    punch::Record,
};

/// What is not known.
const UNKNOWN: &str = "unknown";

/// What does not apply.
const NONE: &str = "none";

/// The best path of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PathLabels {
    path: &'static str,
    transport: &'static str,
    family: &'static str,
}

/// A relay by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RelayLabels {
    pub(super) relay: u64,
}

/// An attempt at a hole punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PunchLabels {
    role: &'static str,
    transport: &'static str,
    family: &'static str,
    attempt: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

/// An address that was dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DialLabels {
    pub(super) transport: &'static str,
    pub(super) family: &'static str,
    pub(super) outcome: &'static str,
}

/// A change of a peer's best path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ChangeLabels {
    from: &'static str,
    to: &'static str,
    reason: &'static str,
}

impl PathLabels {
    /// Every label set that there is.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let kinds = [PathKind::Direct, PathKind::Relayed];
        let transports = [Some(Transport::Quic), Some(Transport::Tcp), None];
        let families = [Some(Family::Ip4), Some(Family::Ip6), None];
        kinds.into_iter().flat_map(move |path| {
            transports.into_iter().flat_map(move |of| {
                families.into_iter().map(move |ip| Self {
                    path: kind(Some(path)),
                    transport: transport(of),
                    family: family(ip),
                })
            })
        })
    }

    /// Transport and family are those of the first hop.
    pub(super) fn of(path: &Path) -> Self {
        let hop = path.hops.first();
        Self {
            path: kind(Some(path.kind)),
            transport: transport(hop.and_then(|hop| hop.transport)),
            family: family(hop.and_then(|hop| hop.family)),
        }
    }
}

impl PunchLabels {
    pub(super) fn new(record: &Record) -> Self {
        Self {
            role: record.role.as_str(),
            transport: transport(record.via.map(|(over, _)| over)),
            family: family(record.via.map(|(_, family)| family)),
            attempt: match record.attempt {
                0 | 1 => "1",
                2 => "2",
                // A series has three: whatever a peer makes of that, there is no fourth value.
                _ => "3",
            },
            outcome: record.outcome.as_str(),
            reason: record
                .outcome
                .reason()
                .map_or(NONE, |reason| reason.as_str()),
        }
    }
}

impl DialLabels {
    /// A dial over the connection to a relay: it opens no socket, so it has no family.
    pub(super) const fn circuit(outcome: &'static str) -> Self {
        Self {
            transport: "circuit",
            family: NONE,
            outcome,
        }
    }

    /// A dial from a socket of its own.
    pub(super) fn socket(
        over: Option<Transport>,
        of: Option<Family>,
        outcome: &'static str,
    ) -> Self {
        Self {
            transport: transport(over),
            family: family(of),
            outcome,
        }
    }
}

impl ChangeLabels {
    pub(super) fn new(from: Option<PathKind>, to: Option<PathKind>, reason: &'static str) -> Self {
        Self {
            from: kind(from),
            to: kind(to),
            reason,
        }
    }
}

const fn transport(transport: Option<Transport>) -> &'static str {
    match transport {
        Some(Transport::Quic) => "quic",
        Some(Transport::Tcp) => "tcp",
        None => UNKNOWN,
    }
}

const fn family(family: Option<Family>) -> &'static str {
    match family {
        Some(Family::Ip4) => "ip4",
        Some(Family::Ip6) => "ip6",
        None => UNKNOWN,
    }
}

const fn kind(kind: Option<PathKind>) -> &'static str {
    match kind {
        Some(PathKind::Direct) => "direct",
        Some(PathKind::Relayed) => "relayed",
        None => NONE,
    }
}
