//! The reports of a node: the objects that `status --json` and `why --json` print. The node writes them to the control socket,
//! and the command reads them there as the same types.

mod services;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_protocol::mapping::Protocol;
use p2pnode_transports::{Family, PortRange, Transport};
use serde::{Deserialize, Serialize};

use crate::{
    core::{
        event::{NotDirect, Pause},
        finding::Finding,
        json,
        mappings::{Claim, Method},
        peers::{Axis, DecidedBy, Path, PathKind},
        port_search::SearchReport,
    },
    punch::{AttemptEnd, By, CandidateRecord, Reason, Record, Role},
};

pub(crate) use services::AddressStatus;
pub use services::{ForwardStatus, ServiceStatus, SessionStatus};

/// The whole node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    #[serde(with = "json::text")]
    pub peer_id: PeerId,
    /// Where another host uses its key, if one was met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_also_at: Option<SocketAddr>,
    /// Connections of others that were refused or ended early within the last minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turned_away: Vec<TurnedAwayStatus>,
    /// Where others may dial in.
    pub listen: Vec<Multiaddr>,
    /// The range that its packets leave from.
    #[serde(with = "json::text")]
    pub port_range: PortRange,
    /// The punch port of each transport and family.
    #[serde(with = "json::by_socket_kind")]
    pub punch_ports: BTreeMap<(Transport, Family), u16>,
    /// What routers map to this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<MappingStatus>,
    /// The ports that lead to targets, for clients that are not p2pnode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<ExposeStatus>,
    /// The configured relays, in their order, and then the connected ones that records of peers name.
    pub relays: Vec<RelayStatus>,
    /// The connected peers, without the relays.
    pub peers: Vec<PeerStatus>,
    /// The peers that a dial has reached once, and that have no path now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostStatus>,
    /// The peers that refuse this node and that no dial has reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedStatus>,
    /// The names of `peers:`, and the ids that they stand for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
    /// What this node offers.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// What it brings here.
    #[serde(default)]
    pub forwards: Vec<ForwardStatus>,
    /// The sessions that are open, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Vec<SessionStatus>>,
    /// The source addresses that stand for peers at targets with `identity: address`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressStatus>,
}

/// Connections of others that were refused or ended early for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnedAwayStatus {
    /// Why: a value of the label `reason` of `p2pnode_refused_total`.
    pub reason: String,
    /// How many in the last minute.
    pub count: u64,
    /// Time since the last one.
    #[serde(rename = "last_s", with = "json::seconds")]
    pub last: Duration,
}

impl fmt::Display for TurnedAwayStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, reason, ago) = (self.count, &self.reason, self.last.as_secs());
        let connections = if count == 1 {
            "connection"
        } else {
            "connections"
        };
        write!(
            f,
            "{count} {connections}, the last {ago} s ago: {reason}; see `p2pnode explain {reason}`"
        )
    }
}

/// A port that leads to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposeStatus {
    /// Its name.
    pub name: String,
    /// What clients speak.
    pub protocol: Protocol,
    /// The port of this node; `None` while no port of the range is free.
    pub port: Option<u16>,
    /// Where its connections or datagrams go.
    pub target: String,
}

/// A port that a router maps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingStatus {
    /// What runs over it.
    pub protocol: Protocol,
    /// The port of this node.
    pub port: u16,
    /// The name under which the port is exposed, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How the router was asked.
    pub method: Method,
    /// Where the router says that the port is reached.
    pub external: SocketAddr,
    /// Where a check from outside came in. Only this address is offered to peers.
    pub verified: Option<SocketAddr>,
}

impl MappingStatus {
    /// That of a claim, with its name among the `exposed` ports.
    pub(crate) fn new(claim: &Claim, exposed: &[ExposeStatus]) -> Self {
        let (protocol, port) = (claim.inside.protocol, claim.inside.port);
        let of = |expose: &&ExposeStatus| (expose.protocol, expose.port) == (protocol, Some(port));
        Self {
            protocol,
            port,
            name: exposed.iter().find(of).map(|expose| expose.name.clone()),
            method: claim.method,
            external: claim.external,
            verified: claim.verified,
        }
    }
}

/// One peer that is wanted and has no path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LostStatus {
    /// Its id.
    #[serde(with = "json::text")]
    pub peer: PeerId,
    /// Its name under `peers:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it closes connections before it has answered anything, as a peer does whose `access.allow` does not name this node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refuses: bool,
    /// Time since its last path was lost.
    #[serde(rename = "since_s", with = "json::seconds")]
    pub since: Duration,
    /// Why the search for it pauses, if it does.
    pub paused: Option<Pause>,
    /// Time until it is dialed next, where that is known.
    #[serde(rename = "next_dial_s", with = "json::seconds_or_null")]
    pub next_dial: Option<Duration>,
}

impl LostStatus {
    /// What becomes of the peer.
    pub(crate) fn fate(&self) -> String {
        let refuses = match self.refuses {
            true => {
                "it refuses this node, because its access.allow does not name it or it is full; "
            }
            false => "",
        };
        let next = |next: Duration| format!("dialed again in {} s", next.as_secs());
        let next = self
            .next_dial
            .map_or_else(|| "being dialed".to_owned(), next);
        let next = match self.paused {
            Some(Pause::NoRelay) => "paused, no relay is reachable".to_owned(),
            Some(Pause::NoAnswer) => format!("paused, no answer; {next}"),
            None => next,
        };
        format!("{refuses}{next}")
    }
}

impl fmt::Display for LostStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.peer)?,
            None => write!(f, "{}", self.peer)?,
        }
        write!(f, ", lost {} s ago: {}", self.since.as_secs(), self.fate())
    }
}

/// One peer that refuses this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// Its id.
    #[serde(with = "json::text")]
    pub peer: PeerId,
    /// Its name under `peers:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Time since the dial that it refused.
    #[serde(rename = "since_s", with = "json::seconds")]
    pub since: Duration,
    /// Why it refuses, as far as it is known, and what to do.
    pub reason: String,
}

impl fmt::Display for RefusedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.peer)?,
            None => write!(f, "{}", self.peer)?,
        }
        write!(
            f,
            ", dialed {} s ago: {}",
            self.since.as_secs(),
            self.reason
        )
    }
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Its id.
    #[serde(with = "json::text")]
    pub relay: PeerId,
    /// Its name under `peers:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether the record of a peer names it, and not the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
    /// Whether a connection to it is open.
    pub connected: bool,
    /// Whether it holds a reservation for this node.
    pub reserved: bool,
    /// The IP families in which it holds one: callers reach this node over it in these.
    #[serde(default)]
    pub reserved_families: Vec<Family>,
    /// Why it does not admit this node, and what to do, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it gave no reservation, or ended it, if it holds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreserved: Option<String>,
    /// Time until the reservation ends, where that is known.
    #[serde(rename = "expires_s", with = "json::seconds_or_null")]
    pub expires: Option<Duration>,
    /// The address that it sees in place of this node's, because a NAT in front of the relay hides that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_at: Option<IpAddr>,
    /// The connections to it.
    pub paths: Vec<PathStatus>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its id.
    #[serde(with = "json::text")]
    pub peer: PeerId,
    /// Its name under `peers:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The chosen path.
    pub path: PathStatus,
    /// All open paths, best first.
    pub paths: Vec<PathStatus>,
    /// The last attempt at a punch.
    pub last_punch: Option<PunchStatus>,
    /// Time until the next attempt, where one is planned.
    #[serde(rename = "next_punch_s", with = "json::seconds_or_null")]
    pub next_punch: Option<Duration>,
    /// Why the path is not direct, once the node has given up for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// Its path.
    #[serde(flatten)]
    pub path: Path,
    /// Round trip time from end to end.
    #[serde(rename = "rtt_ms", with = "json::fine_millis_or_null")]
    pub rtt: Option<Duration>,
    /// Time since it was established.
    #[serde(rename = "since_s", with = "json::seconds")]
    pub since: Duration,
}

/// One attempt at a punch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PunchStatus {
    /// Number of the attempt in its series, from 1.
    pub attempt: u32,
    /// This node's side of the handshake.
    pub role: Role,
    /// What made the two sides dial each other.
    pub by: By,
    /// The local sockets that it used.
    pub locals: Vec<SocketAddr>,
    /// What was offered.
    pub sent: Vec<Multiaddr>,
    /// What the peer offered, and what became of each.
    pub received: Vec<CandidateRecord>,
    /// Round trip time over the circuit, as the initiator measured it.
    #[serde(rename = "rtt_ms", with = "json::fine_millis_or_null")]
    pub rtt: Option<Duration>,
    /// How it ended.
    pub outcome: AttemptEnd,
    /// Why it did not end direct.
    pub reason: Option<Reason>,
}

/// Why a peer's path is what it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The peer.
    #[serde(with = "json::text")]
    pub peer: PeerId,
    /// Its name under `peers:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Each open path with its score, best first.
    pub candidates: Vec<Scored>,
    /// What puts the first before the second; `None` if there is only one.
    pub decided_by: Option<DecidedBy>,
    /// The last attempt at a punch.
    pub last_punch: Option<PunchStatus>,
    /// How the last search for ports has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_search: Option<SearchReport>,
    /// Why the path is not direct, once the node has given up for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The sessions with it that are open.
    #[serde(default)]
    pub sessions: Vec<SessionStatus>,
    /// What stands in the way of a direct path, as far as a look at the network shows it. The command adds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// What routers map to this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<MappingStatus>,
}

impl Why {
    /// Why the peer stays relayed, if it does and a punch has failed.
    pub(crate) fn stays_relayed(&self) -> Option<NotDirect> {
        let best = self.candidates.first()?;
        let reason = self.last_punch.as_ref()?.reason?;
        (best.path.path.kind == PathKind::Relayed).then_some(NotDirect::Punch(reason))
    }
}

/// A path and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The path.
    pub path: PathStatus,
    /// The axes of its score in the order of their importance, each with its value for people; smaller is better.
    pub score: Vec<(Axis, String)>,
}

impl From<&Record> for PunchStatus {
    fn from(record: &Record) -> Self {
        Self {
            attempt: record.attempt,
            role: record.role,
            by: record.by(),
            locals: record.locals.clone(),
            sent: record.sent.clone(),
            received: record.received.clone(),
            rtt: record.rtt,
            outcome: record.outcome.ended(),
            reason: record.outcome.reason(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::core::event::Event;

    const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

    /// What is read is written again as it was, byte for byte.
    fn returns<T: Serialize + for<'de> Deserialize<'de>>(json: &str) {
        let json = json.replace('$', PEER);
        let value: T = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
    }

    const DIRECT: &str = r#""kind":"direct","relay":null,"how":"punched","hops":[{"transport":"quic","family":"ip4","local":"10.0.1.2:40017","remote":"198.51.100.7:51234","rtt_ms":12.1}]"#;
    const RELAYED: &str = r#""kind":"relayed","relay":"$","how":"dialed","hops":[{"transport":"tcp","family":"ip6"},{"transport":"unknown","family":"unknown","reported_by":"relay"}]"#;
    const PUNCH: &str = r#"{"attempt":2,"role":"responder","by":"introduction","locals":["10.0.1.2:40017"],"sent":["/ip4/198.51.100.7/udp/1/quic-v1"],"received":[{"addr":"/ip4/198.51.100.8/tcp/2","outcome":"not_dialed"}],"rtt_ms":null,"outcome":"failed","reason":"symmetric_both"}"#;

    #[test]
    fn a_status_is_read_as_it_was_written() {
        returns::<Status>(&format!(
            r#"{{"peer_id":"$","listen":["/ip4/0.0.0.0/tcp/443"],"port_range":"40000-40050","punch_ports":{{"quic/ip4":40017,"tcp/ip6":40018}},"relays":[{{"relay":"$","connected":true,"reserved":true,"reserved_families":["ip4","ip6"],"refused":"no token","expires_s":null,"paths":[{{{DIRECT},"rtt_ms":0.4,"since_s":7}}]}}],"peers":[{{"peer":"$","path":{{{RELAYED},"rtt_ms":null,"since_s":9}},"paths":[{{{DIRECT},"rtt_ms":12.1,"since_s":3}}],"last_punch":{PUNCH},"next_punch_s":28}}],"lost":[{{"peer":"$","since_s":370,"paused":"no_relay","next_dial_s":null}}],"services":[],"forwards":[]}}"#
        ));
    }

    #[test]
    fn a_why_is_read_as_it_was_written() {
        for decided_by in ["null", "\"kept\"", "\"crossed\"", "\"age\""] {
            returns::<Why>(&format!(
                r#"{{"peer":"$","candidates":[{{"path":{{{DIRECT},"rtt_ms":1.0,"since_s":1}},"score":[["kind","direct"],["crossed","no"],["family","rank 0"],["rtt","0 ms"],["age","1 s"]]}}],"decided_by":{decided_by},"last_punch":null,"sessions":[]}}"#
            ));
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        for event in [
            r#"{"event":"started","peer_id":"$","port_range":"40000-40000"}"#.to_owned(),
            r#"{"event":"dialing","t_ms":0,"peer":"$"}"#.to_owned(),
            format!(r#"{{"event":"connected","t_ms":61,"peer":"$","path":{{{RELAYED}}}}}"#),
            format!(r#"{{"event":"connected","t_ms":61,"peer":"$","path":{{{DIRECT}}},"found_by":"mdns"}}"#),
            r#"{"event":"punch","t_ms":1,"peer":"$","attempt":1,"role":"initiator","by":"dcutr","sent":[],"received":[],"outcome":"direct"}"#.to_owned(),
            r#"{"event":"punch","t_ms":1,"peer":"$","attempt":1,"role":"initiator","by":"dcutr","sent":[],"received":[],"outcome":"failed","reason":"timeout"}"#.to_owned(),
            r#"{"event":"ping_missed","seq":2,"missed":1,"kind":"relayed"}"#.to_owned(),
            r#"{"event":"search_paused","t_ms":9,"peer":"$","reason":"no_answer"}"#.to_owned(),
            r#"{"event":"search_resumed","t_ms":9,"peer":"$"}"#.to_owned(),
            r#"{"event":"ping","seq":1,"rtt_ms":12.3,"kind":"direct"}"#.to_owned(),
            format!(r#"{{"event":"result","outcome":"direct","t_ms":151,"time_to_direct_ms":151,"attempts":1,"path":{{{DIRECT}}},"reason":null,"found_by":"registered"}}"#),
            r#"{"event":"result","outcome":"relayed","t_ms":1,"time_to_direct_ms":null,"attempts":3,"path":null,"reason":"remote_unsupported","found_by":null}"#.to_owned(),
            r#"{"event":"result","outcome":"unreachable","t_ms":1,"time_to_direct_ms":null,"attempts":0,"path":null,"reason":"timeout: no answer","found_by":null}"#.to_owned(),
        ] {
            returns::<Event>(&event);
        }
    }
}
