//! What a running node tells of itself when asked: the objects that `status --json` and `why --json` print. Plain texts and
//! numbers, so that what one process writes to the control socket another reads.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    core::peers::{Hop, Path, to_millis},
    punch::{Outcome, Record},
};

/// The whole node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub peer_id: String,
    /// Where others may dial in.
    pub listen: Vec<String>,
    /// The range that its packets leave from.
    pub port_range: String,
    /// The punch port of each `transport/family`.
    pub punch_ports: BTreeMap<String, u16>,
    /// The configured relays, in their order.
    pub relays: Vec<RelayStatus>,
    /// The connected peers, relays aside.
    pub peers: Vec<PeerStatus>,
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Its id.
    pub relay: String,
    /// Whether a connection to it is open.
    pub connected: bool,
    /// Whether it holds a reservation for this node.
    pub reserved: bool,
    /// The IP families in which it holds one: callers over it are met in these.
    #[serde(default)]
    pub reserved_families: Vec<String>,
    /// Why it does not admit this node, and what to do, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Seconds until the reservation ends, where that is known.
    pub expires_s: Option<u64>,
    /// The connections to it.
    pub paths: Vec<PathStatus>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its id.
    pub peer: String,
    /// The chosen path.
    pub path: PathStatus,
    /// All that are open, best first.
    pub paths: Vec<PathStatus>,
    /// The last attempt at a punch.
    pub last_punch: Option<PunchStatus>,
    /// Seconds until the next attempt, where one is planned.
    pub next_punch_s: Option<u64>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// `direct` or `relayed`.
    pub kind: String,
    /// The relay, if there is one.
    pub relay: Option<String>,
    /// `dialed`, `accepted` or `punched`.
    pub how: String,
    /// Its legs, from here to the peer.
    pub hops: Vec<HopStatus>,
    /// Round trip time from end to end.
    pub rtt_ms: Option<f64>,
    /// Seconds since it was established.
    pub since_s: u64,
}

/// One leg.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HopStatus {
    /// `quic`, `tcp` or `unknown`.
    pub transport: String,
    /// `ip4`, `ip6` or `unknown`.
    pub family: String,
    /// The socket at the near end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// The socket at the far end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Round trip time of the leg alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Who told of it, if not this node's own sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_by: Option<String>,
}

/// One attempt at a punch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PunchStatus {
    /// Number of the attempt in its series, from 1.
    pub attempt: u32,
    /// `initiator` or `responder`.
    pub role: String,
    /// `dcutr` or `introduction`.
    pub by: String,
    /// The local sockets that it used.
    pub locals: Vec<String>,
    /// What was offered.
    pub sent: Vec<String>,
    /// What the peer offered, and what became of each.
    pub received: Vec<CandidateStatus>,
    /// Round trip time over the circuit, as the initiator measured it.
    pub rtt_ms: Option<f64>,
    /// `direct`, or what became of it.
    pub outcome: String,
    /// Why it is not direct.
    pub reason: Option<String>,
}

/// One candidate of a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateStatus {
    /// The address.
    pub addr: String,
    /// What became of it.
    pub outcome: String,
}

/// Why a peer's path is what it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The peer.
    pub peer: String,
    /// Each open path with its score, best first.
    pub candidates: Vec<Scored>,
    /// The axis that put the first before the second; `None` if there is only one.
    pub decided_by: Option<String>,
    /// The last attempt at a punch.
    pub last_punch: Option<PunchStatus>,
}

/// A path and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The path.
    pub path: PathStatus,
    /// The axes of its score in the order of their importance; smaller is better.
    pub score: Vec<(String, String)>,
}

impl PathStatus {
    /// What is told of `path`.
    pub fn new(path: &Path, rtt: Option<Duration>, since: Duration) -> Self {
        Self {
            kind: path.kind.to_string(),
            relay: path.relay.map(|relay| relay.to_string()),
            how: path.how.to_string(),
            hops: path.hops.iter().map(HopStatus::from).collect(),
            rtt_ms: rtt.map(to_millis),
            since_s: since.as_secs(),
        }
    }
}

impl From<&Hop> for HopStatus {
    fn from(hop: &Hop) -> Self {
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        Self {
            transport: or_unknown(hop.transport.map(|transport| transport.to_string())),
            family: or_unknown(hop.family.map(|family| family.to_string())),
            local: hop.local.map(|local| local.to_string()),
            remote: hop.remote.map(|remote| remote.to_string()),
            rtt_ms: hop.rtt.map(to_millis),
            reported_by: hop.reported_by.map(|_| "relay".to_owned()),
        }
    }
}

impl From<&Record> for PunchStatus {
    fn from(record: &Record) -> Self {
        let reason = match &record.outcome {
            Outcome::Direct { .. } => None,
            Outcome::Failed(reason) => Some(reason.to_string()),
        };
        Self {
            attempt: record.attempt,
            role: record.role.as_str().to_owned(),
            by: record.by().as_str().to_owned(),
            locals: record.locals.iter().map(ToString::to_string).collect(),
            sent: record.sent.iter().map(ToString::to_string).collect(),
            received: record
                .received
                .iter()
                .map(|candidate| CandidateStatus {
                    addr: candidate.addr.to_string(),
                    outcome: candidate.outcome.as_str().to_owned(),
                })
                .collect(),
            rtt_ms: record.rtt.map(to_millis),
            outcome: record.outcome.as_str().to_owned(),
            reason,
        }
    }
}
