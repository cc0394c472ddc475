//! The label sets. Every value is a constant of the program, except the number of a relay. So no label can hold what a remote or
//! a user has sent.

use std::fmt::{self, Write as _};

use p2pnode_transports::{Family, Transport};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::{
    core::{
        admission::Refused,
        netcheck::Check,
        peers::{Path, PathCause, PathKind},
        port_search::SearchOutcome,
    },
    punch::{AttemptEnd, CandidateOutcome, Reason, Record, Role},
};

/// A value, as its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Label<T> {
    /// It.
    Is(T),
    /// It is not known.
    Unknown,
    /// There is none.
    None,
}

impl<T> Label<T> {
    pub(super) fn known(value: Option<T>) -> Self {
        value.map_or(Self::Unknown, Self::Is)
    }

    pub(super) fn any(value: Option<T>) -> Self {
        value.map_or(Self::None, Self::Is)
    }
}

impl<T: fmt::Display> EncodeLabelValue for Label<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Is(value) => write!(encoder, "{value}"),
            Self::Unknown => encoder.write_str("unknown"),
            Self::None => encoder.write_str("none"),
        }
    }
}

/// How a search for ports ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SearchLabels {
    pub(super) outcome: Label<SearchOutcome>,
}

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ProbeLabels {
    pub(super) what: &'static str,
}

/// The NAT of a transport and family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct NatLabels {
    transport: Label<Transport>,
    family: Label<Family>,
    mapping: &'static str,
    filtering: &'static str,
}

impl NatLabels {
    pub(super) fn of(check: &Check) -> Option<Self> {
        let nat = check.nat?;
        Some(Self {
            transport: Label::Is(check.transport?),
            family: Label::Is(check.family?),
            mapping: nat.mapping.name(),
            filtering: nat.filtering.name(),
        })
    }
}

/// What became of an address that was dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DialOutcome {
    /// It made the connection.
    Connected,
    /// Another peer answered.
    WrongPeer,
    /// This node refused the connection.
    Denied,
    /// The dial was ended.
    Aborted,
    /// No transport dials it.
    Unsupported,
    /// No port of the range was left.
    Exhausted,
    /// The peer holds no reservation on the relay.
    NoReservation,
    /// The relay refused the circuit.
    Refused,
    /// The socket failed.
    Socket(CandidateOutcome),
}

impl fmt::Display for DialOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::WrongPeer => "wrong_peer",
            Self::Denied => "denied",
            Self::Aborted => "aborted",
            Self::Unsupported => "unsupported",
            Self::Exhausted => "exhausted",
            Self::NoReservation => "no_reservation",
            Self::Refused => "refused",
            Self::Socket(outcome) => return outcome.fmt(f),
        })
    }
}

/// The best path of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PathLabels {
    path: Label<PathKind>,
    transport: Label<Transport>,
    family: Label<Family>,
}

/// A relay by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RelayLabels {
    pub(super) relay: u64,
}

/// A limit that refused or ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusedLabels {
    pub(super) reason: &'static str,
}

impl From<Refused> for RefusedLabels {
    fn from(refused: Refused) -> Self {
        Self {
            reason: refused.as_str(),
        }
    }
}

/// An attempt at a hole punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PunchLabels {
    role: Label<Role>,
    transport: Label<Transport>,
    family: Label<Family>,
    attempt: &'static str,
    outcome: Label<AttemptEnd>,
    reason: Label<Reason>,
}

/// An address that was dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DialLabels {
    transport: Label<Carrier>,
    family: Label<Family>,
    outcome: Label<DialOutcome>,
}

/// What carries a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Carrier {
    Socket(Transport),
    Circuit,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(transport) => transport.fmt(f),
            Self::Circuit => f.write_str("circuit"),
        }
    }
}

/// A change of a peer's best path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ChangeLabels {
    from: Label<PathKind>,
    to: Label<PathKind>,
    reason: Label<PathCause>,
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
                    path: Label::Is(path),
                    transport: Label::known(of),
                    family: Label::known(ip),
                })
            })
        })
    }

    /// Transport and family are those of the first hop.
    pub(super) fn of(path: &Path) -> Self {
        let hop = path.hops.first();
        Self {
            path: Label::Is(path.kind),
            transport: Label::known(hop.and_then(|hop| hop.transport)),
            family: Label::known(hop.and_then(|hop| hop.family)),
        }
    }
}

impl PunchLabels {
    pub(super) fn new(record: &Record) -> Self {
        Self {
            role: Label::Is(record.role),
            transport: Label::known(record.via.map(|(transport, _)| transport)),
            family: Label::known(record.via.map(|(_, family)| family)),
            attempt: match record.attempt {
                0 | 1 => "1",
                2 => "2",
                // A series has three: whatever a peer makes of that, there is no fourth value.
                _ => "3",
            },
            outcome: Label::Is(record.outcome.ended()),
            reason: Label::any(record.outcome.reason()),
        }
    }
}

impl DialLabels {
    /// A dial over the connection to a relay: it opens no socket, so it has no family.
    pub(super) const fn circuit(outcome: DialOutcome) -> Self {
        Self {
            transport: Label::Is(Carrier::Circuit),
            family: Label::None,
            outcome: Label::Is(outcome),
        }
    }

    /// A dial from a socket of its own.
    pub(super) fn socket(
        transport: Option<Transport>,
        family: Option<Family>,
        outcome: DialOutcome,
    ) -> Self {
        Self {
            transport: Label::known(transport.map(Carrier::Socket)),
            family: Label::known(family),
            outcome: Label::Is(outcome),
        }
    }
}

impl ChangeLabels {
    pub(super) fn new(from: Option<PathKind>, to: Option<PathKind>, cause: PathCause) -> Self {
        Self {
            from: Label::any(from),
            to: Label::any(to),
            reason: Label::Is(cause),
        }
    }
}
