//! The events of a node, for observers. Serialized, one JSON object per event, they are the lines that `--json` prints.

use std::{net::SocketAddr, time::Duration};

use libp2p::{Multiaddr, PeerId};
use p2pnode_protocol::mapping::Protocol;
use serde::{Deserialize, Serialize};

use crate::{
    core::{
        finding::Finding,
        json,
        mappings::{MappingState, Method},
        peers::{Path, PathKind},
        search_report::SearchReport,
    },
    punch::{AttemptEnd, By, Reason, Role},
};

/// The target of log lines of which there is an event as well: a terminal that shows both shows the events.
pub(crate) const LOGGED: &str = "p2pnode::event";

/// An event and, where it has one, the time since the command began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The node is up. `run` only.
    Started {
        /// The node's own id.
        #[serde(with = "json::text")]
        peer_id: PeerId,
        /// The range that its packets leave from.
        #[serde(with = "json::text")]
        port_range: p2pnode_transports::PortRange,
    },
    /// A public listener is bound. `run` only.
    Listening {
        /// Where it listens.
        address: Multiaddr,
    },
    /// A relay holds a reservation for this node. `run` only.
    Reserved {
        /// Time since the start.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The relay.
        #[serde(with = "json::text")]
        relay: PeerId,
    },
    /// A reservation is gone. `run` only.
    ReservationLost {
        /// Time since the start.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The relay.
        #[serde(with = "json::text")]
        relay: PeerId,
        /// What ended it.
        cause: LossCause,
        /// The same for people.
        reason: String,
    },
    /// A router maps a port of this node, or does no longer. `run` only.
    Mapping {
        /// Time since the start.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// What runs over the port.
        protocol: Protocol,
        /// The port of this node.
        port: u16,
        /// How the router was asked.
        method: Method,
        /// What has changed.
        state: MappingState,
        /// The outside address: the router's word, or where a check from outside came in.
        address: SocketAddr,
    },
    /// A relay could not be reached or was lost.
    RelayUnreachable {
        /// Time since the start.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The relay.
        #[serde(with = "json::text")]
        relay: PeerId,
        /// Why.
        reason: String,
    },
    /// Packets from a port of the range to this remote are lost, and those from another port are not. The port is not used there for a
    /// while.
    PortRests {
        /// Time since the start.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The port.
        port: u16,
        /// The remote.
        remote: SocketAddr,
        /// What loses them.
        reason: RestReason,
    },
    /// Another host uses the key of this node. `run` only.
    KeyShared {
        /// Time since the start.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// Where the other host is.
        at: SocketAddr,
        /// The relay that sees it; null if a dial of this node has found it.
        #[serde(with = "json::text_or_null")]
        relay: Option<PeerId>,
    },
    /// No other host is seen with the key any more. `run` only.
    KeyAlone {
        /// Time since the start.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
    },
    /// A relay does not admit this node.
    RelayRefused {
        /// Time since the start.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The relay.
        #[serde(with = "json::text")]
        relay: PeerId,
        /// Why, and what to do.
        reason: String,
    },
    /// A dial begins.
    Dialing {
        /// Time since the dial began.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The peer to reach.
        #[serde(with = "json::text")]
        peer: PeerId,
    },
    /// A connection to the peer is open.
    Connected {
        /// Time since the dial or the node began.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The peer.
        #[serde(with = "json::text")]
        peer: PeerId,
        /// The path of the connection.
        path: Path,
        /// What led to the peer, if a dial did.
        #[serde(skip_serializing_if = "Option::is_none")]
        found_by: Option<FoundBy>,
    },
    /// A connection to the peer was closed.
    Disconnected {
        /// Time since the dial or the node began.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The peer.
        #[serde(with = "json::text")]
        peer: PeerId,
        /// What kind of path it was.
        kind: PathKind,
        /// Why, as far as it is known.
        reason: String,
    },
    /// One attempt at a hole punch is over.
    Punch {
        /// Time since the dial or the node began.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The peer.
        #[serde(with = "json::text")]
        peer: PeerId,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// `initiator` opened the handshake, `responder` answered it. After an introduction, the peer that was asked for is mostly
        /// the initiator.
        role: Role,
        /// What made the two dial each other.
        by: By,
        /// Candidates sent.
        sent: Vec<Multiaddr>,
        /// Candidates received.
        received: Vec<Multiaddr>,
        /// How it ended.
        outcome: AttemptEnd,
        /// Why it did not end direct.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
    /// A search for a pair of ports is over.
    Search {
        /// Time since the dial or the node began.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// With which peer, what was sent, and how it ended.
        #[serde(flatten)]
        report: SearchReport,
    },
    /// A peer that is wanted was not found, and its search pauses. `run` only.
    SearchPaused {
        /// Time since the start.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The peer.
        #[serde(with = "json::text")]
        peer: PeerId,
        /// Why.
        reason: Pause,
    },
    /// A search that was paused goes on. `run` only.
    SearchResumed {
        /// Time since the start.
        #[serde(rename = "t_ms", with = "json::millis")]
        t: Duration,
        /// The peer.
        #[serde(with = "json::text")]
        peer: PeerId,
    },
    /// A ping on the chosen path was not answered, its path ended before, or no path led to the peer when it was due.
    PingMissed {
        /// Number of the ping, from 1.
        seq: u32,
        /// How many pings were missed so far, this one included.
        missed: u32,
        /// The kind of path it went over. Without a path, the kind of the last one.
        kind: PathKind,
        /// Whether no path led to the peer when it was due.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_path: bool,
    },
    /// A ping on the chosen path was answered.
    Ping {
        /// Number of the ping, from 1.
        seq: u32,
        /// Round trip time.
        #[serde(rename = "rtt_ms", with = "json::fine_millis")]
        rtt: Duration,
        /// The kind of path it went over.
        kind: PathKind,
    },
    /// A dial is over.
    Result(Outcome),
}

impl Event {
    /// How many attempts at a punch it ends. Of one and that which took its place, the latter counts.
    pub(crate) fn attempts(&self) -> u32 {
        let ended =
            matches!(self, Self::Punch { reason, .. } if *reason != Some(Reason::Superseded));
        ended.into()
    }

    /// The peer that it is about, if it is about one; relays aside.
    pub(crate) const fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Dialing { peer, .. }
            | Self::Connected { peer, .. }
            | Self::Disconnected { peer, .. }
            | Self::Punch { peer, .. }
            | Self::SearchPaused { peer, .. }
            | Self::SearchResumed { peer, .. } => Some(*peer),
            Self::Search { report, .. } => Some(report.peer),
            Self::Started { .. }
            | Self::Listening { .. }
            | Self::Reserved { .. }
            | Self::ReservationLost { .. }
            | Self::Mapping { .. }
            | Self::RelayUnreachable { .. }
            | Self::PortRests { .. }
            | Self::KeyShared { .. }
            | Self::KeyAlone { .. }
            | Self::RelayRefused { .. }
            | Self::Ping { .. }
            | Self::PingMissed { .. }
            | Self::Result(_) => None,
        }
    }
}

/// Why a port rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestReason {
    /// A NAT or a firewall remembers an earlier connection.
    Conntrack,
}

/// How a dial ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was reached.
    pub outcome: Reached,
    /// Time since the dial began.
    #[serde(rename = "t_ms", with = "json::millis")]
    pub t: Duration,
    /// Time until the first direct connection was open.
    #[serde(rename = "time_to_direct_ms", with = "json::millis_or_null")]
    pub time_to_direct: Option<Duration>,
    /// Attempts at a hole punch, since the last path or the last direct path was lost, if one was.
    pub attempts: u32,
    /// The pings that were reported. Serialized if one was missed.
    #[serde(default, skip_serializing_if = "PingTotals::is_whole")]
    pub pings: PingTotals,
    /// The path in use at the end.
    pub path: Option<Path>,
    /// Why it is not direct.
    pub reason: Option<NotDirect>,
    /// What led to the peer first, if it was reached.
    pub found_by: Option<FoundBy>,
    /// What stands in the way of a direct path, as far as a look at the network shows it. The commands add it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
}

/// The pings of a dial that were reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingTotals {
    /// Those that were answered.
    pub answered: u32,
    /// Those that were not.
    pub missed: u32,
}

impl PingTotals {
    /// Whether none was missed.
    pub(crate) const fn is_whole(&self) -> bool {
        self.missed == 0
    }
}

/// Why a dial did not end with a direct path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NotDirect {
    /// The peer stays relayed: how the punch failed.
    Punch(Reason),
    /// The peer is unreachable: how each way to it failed. Or it is relayed, and no punch has failed: how the direct path ended.
    Unreachable(String),
}

p2pnode_protocol::named! {
    /// What has ended a reservation.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum LossCause {
        /// The relay did not answer pings.
        Silent,
        /// The relay has closed the connection.
        Closed,
        /// The connection broke.
        Broken,
        /// This node has closed the connection.
        Ended,
        /// The relay did not renew the reservation.
        Refused,
        /// A clock is wrong: by this host's, the reservation was over when the relay granted it; or a certificate was not valid.
        Clock,
    }
}

p2pnode_protocol::named! {
    /// Why the search for a lost peer pauses.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Pause {
        /// No relay that may lead to the peer can be asked. The search goes on with the first that can.
        NoRelay,
        /// The peer was not found for minutes, and is dialed every few minutes.
        NoAnswer,
    }
}

impl std::fmt::Display for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoRelay => "no_relay",
            Self::NoAnswer => "no_answer",
        })
    }
}

/// What led to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FoundBy {
    /// A connection that was open already.
    Open,
    /// An address that was given or configured.
    Static,
    /// An address of a service in the DNS.
    Dns,
    /// An answer to multicast DNS.
    Mdns,
    /// A relay of this node's, on which the peer holds a reservation, too.
    Relay,
    /// The record that the peer has registered.
    Registered,
}

impl std::fmt::Display for FoundBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open connection",
            Self::Static => "given address",
            Self::Dns => "DNS",
            Self::Mdns => "multicast DNS",
            Self::Relay => "own relay",
            Self::Registered => "registered address",
        })
    }
}

/// What a dial reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reached {
    /// The peer, directly.
    Direct,
    /// The peer, through a relay.
    Relayed,
    /// Nothing.
    Unreachable,
}

impl std::fmt::Display for NotDirect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Punch(reason) => reason.fmt(f),
            Self::Unreachable(reason) => f.pad(reason),
        }
    }
}
