//! What a running relay reports of itself when asked: the object that `status --json` prints. Counts only, never a peer id but
//! its own, nor a peer's address.

use std::{collections::BTreeMap, time::Duration};

use libp2p::{Multiaddr, PeerId};
use p2pnode_protocol::{Family, Transport};
use serde::{Deserialize, Serialize};

use crate::{
    config::Limits,
    core::{AccessTotals, Now, RelayState, Translated},
    observe::metrics::Metrics,
};

/// The whole relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Its id.
    pub(crate) peer_id: String,
    /// Its version.
    pub(crate) version: String,
    /// Seconds since it was started.
    pub(crate) uptime_s: u64,
    /// Where it listens.
    pub(crate) listen: Vec<String>,
    /// The addresses that it gives out as its own.
    pub(crate) external: Vec<String>,
    /// Connections that are open.
    pub(crate) connections: u64,
    /// These by `transport/family`; a connection that is neither counts in none.
    pub(crate) connections_by: BTreeMap<String, u64>,
    /// Peers with at least one connection.
    pub(crate) peers: u64,
    /// Reservations held.
    pub(crate) reservations: u64,
    /// These by `transport/family`.
    pub(crate) reservations_by: BTreeMap<String, u64>,
    /// Circuits open.
    pub(crate) circuits: u64,
    /// Circuits that have closed since the start.
    pub(crate) circuits_closed: u64,
    /// Bytes that circuits have carried since the start, both directions together.
    pub(crate) circuit_bytes: u64,
    /// Records in the directory.
    pub(crate) records: u64,
    /// Peers that all have one source address, because a NAT in front of the relay hides theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) translated: Option<TranslatedStatus>,
    /// Peers whose key two hosts use.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) shared_keys: u64,
    /// Resident memory of the process, in bytes.
    pub(crate) memory_bytes: Figure,
    /// Who may use the relay.
    pub(crate) access: AccessStatus,
    /// What was denied since the start, by reason, as in `relay_denied_total`.
    pub(crate) denied: BTreeMap<String, u64>,
    /// The limits in force by their keys below `limits`; durations in seconds, sizes in bytes, 0 for no limit.
    pub(crate) limits: BTreeMap<String, u64>,
    /// Whether the relay was asked to end and takes nothing new.
    pub(crate) draining: bool,
    /// How far that is; `None` if the relay was not asked to end.
    pub(crate) drain: Option<DrainStatus>,
}

/// What hides the addresses of peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TranslatedStatus {
    /// The source address that they have.
    pub(crate) source: String,
    /// How many peers there are.
    pub(crate) peers: u64,
}

impl From<Translated> for TranslatedStatus {
    fn from(translated: Translated) -> Self {
        Self {
            source: translated.source.to_string(),
            peers: count(translated.peers),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What the swarm and the process know of themselves.
pub(crate) struct Host<'a> {
    pub(crate) peer: PeerId,
    pub(crate) uptime: Duration,
    pub(crate) listen: Vec<&'a Multiaddr>,
    pub(crate) external: Vec<&'a Multiaddr>,
    pub(crate) connections: u32,
    pub(crate) peers: usize,
    pub(crate) resident: Option<u64>,
}

impl Status {
    /// Of a relay in this state.
    pub(crate) fn new(
        host: Host<'_>,
        state: &RelayState,
        metrics: &Metrics,
        limits: &Limits,
        now: Now,
    ) -> Self {
        let totals = state.totals();
        let drain = state.drain_left(now.instant).map(|left| DrainStatus {
            circuits_left: count(totals.circuits),
            reservations_left: count(totals.reservations),
            seconds_left: left.as_secs(),
        });
        Self {
            peer_id: host.peer.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: host.uptime.as_secs(),
            listen: sorted(&host.listen),
            external: sorted(&host.external),
            connections: host.connections.into(),
            connections_by: by_leg(state.connection_legs()),
            peers: count(host.peers),
            reservations: count(totals.reservations),
            reservations_by: by_leg(state.reservation_legs()),
            circuits: count(totals.circuits),
            circuits_closed: metrics.circuits_closed(),
            circuit_bytes: metrics.circuit_bytes(),
            records: count(totals.records),
            translated: state.translated().map(TranslatedStatus::from),
            shared_keys: count(totals.shared_keys),
            memory_bytes: host.resident.into(),
            access: AccessStatus::from(state.access_totals(now.wall)),
            denied: metrics.denials(),
            limits: self::limits(limits),
            draining: drain.is_some(),
            drain,
        }
    }
}

fn by_leg(legs: impl Iterator<Item = (Transport, Family)>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (transport, family) in legs {
        *counts.entry(format!("{transport}/{family}")).or_default() += 1;
    }
    counts
}

/// The swarm has them in any order, and the status is to stay as it is from one look to the next.
fn sorted(addresses: &[&Multiaddr]) -> Vec<String> {
    let mut texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

/// Who may use the relay, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessStatus {
    /// Whether any peer may.
    pub(crate) open: bool,
    /// Peers that `access.allow` names.
    pub(crate) allow: u64,
    /// Whether join tokens are taken.
    pub(crate) tokens: bool,
    /// Tokens that are revoked.
    pub(crate) revoked: u64,
    /// Connected peers that a token admits.
    pub(crate) by_token: u64,
    /// Connected peers that are not admitted; their connections are closed within seconds.
    pub(crate) waiting: u64,
}

impl From<AccessTotals> for AccessStatus {
    fn from(totals: AccessTotals) -> Self {
        Self {
            open: totals.open,
            allow: count(totals.allowed),
            tokens: totals.tokens,
            revoked: count(totals.revoked),
            by_token: count(totals.by_token),
            waiting: count(totals.waiting),
        }
    }
}

/// The end of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrainStatus {
    /// Circuits that are still open.
    pub(crate) circuits_left: u64,
    /// Reservations that peers still believe to hold.
    pub(crate) reservations_left: u64,
    /// Seconds until the relay ends if no circuit ends before.
    pub(crate) seconds_left: u64,
}

/// A figure that may be unknown, which is then said: it is not nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Figure {
    /// It is this.
    Is(u64),
    /// Nobody counts it here.
    Not(Unknown),
}

impl Figure {
    /// The number, if it is known.
    pub(crate) const fn known(self) -> Option<u64> {
        match self {
            Self::Is(figure) => Some(figure),
            Self::Not(Unknown::Unknown) => None,
        }
    }
}

/// The word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unknown {
    /// `unknown`
    Unknown,
}

impl From<Option<u64>> for Figure {
    fn from(figure: Option<u64>) -> Self {
        figure.map_or(Self::Not(Unknown::Unknown), Self::Is)
    }
}

/// The limits by their keys.
pub(crate) fn limits(limits: &Limits) -> BTreeMap<String, u64> {
    let Limits {
        reservations,
        reservations_per_peer,
        reservations_per_source,
        reservation_duration,
        circuits,
        circuits_per_peer,
        circuit_duration,
        circuit_bytes,
        bytes_per_second_per_peer,
        connections,
        connections_per_peer,
        connections_per_source,
        pending_connections,
        records,
        memory,
    } = *limits;
    let seconds = |duration: Duration| duration.as_secs();
    [
        ("reservations", count(reservations)),
        ("reservations_per_peer", count(reservations_per_peer)),
        ("reservations_per_ip4", count(reservations_per_source.ip4)),
        (
            "reservations_per_ip6_net",
            count(reservations_per_source.ip6_net),
        ),
        ("reservation_duration", seconds(reservation_duration)),
        ("circuits", count(circuits)),
        ("circuits_per_peer", count(circuits_per_peer)),
        ("circuit_duration", seconds(circuit_duration)),
        ("circuit_bytes", circuit_bytes),
        ("bytes_per_second_per_peer", bytes_per_second_per_peer),
        ("connections", connections.into()),
        ("connections_per_peer", connections_per_peer.into()),
        ("connections_per_ip4", count(connections_per_source.ip4)),
        (
            "connections_per_ip6_net",
            count(connections_per_source.ip6_net),
        ),
        ("pending_connections", pending_connections.into()),
        ("records", count(records)),
        ("memory", memory),
    ]
    .map(|(key, limit)| (key.to_owned(), limit))
    .into()
}

/// A count as a figure of the status.
pub(crate) fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_unknown_says_so_and_is_read_again() {
        for (figure, json) in [(Some(7), "7"), (None, r#""unknown""#)] {
            let figure = Figure::from(figure);
            let written = serde_json::to_string(&figure).expect("a figure");
            assert_eq!(written, json);
            assert_eq!(serde_json::from_str::<Figure>(json).ok(), Some(figure));
        }
    }

    #[test]
    fn limits_are_called_as_their_keys() {
        let known = limits(&Limits::UNLIMITED);
        assert!(known.values().all(|limit| *limit == 0), "{known:?}");
        let schema = p2pnode_daemon::config::schema(&crate::config::PROGRAM, |reader| {
            crate::Config::read(reader)
        });
        for key in known.keys() {
            let pointer = format!("/properties/limits/properties/{key}");
            assert!(schema.pointer(&pointer).is_some(), "{key}");
        }
        let keys = schema.pointer("/properties/limits/properties");
        let keys = keys
            .and_then(|keys| keys.as_object())
            .map(|keys| keys.len());
        assert_eq!(keys, Some(known.len()));
    }
}
