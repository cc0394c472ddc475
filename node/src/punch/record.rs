//! The record of each attempt.

use std::{net::SocketAddr, time::Duration};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::{Family, Transport};
use serde::{Deserialize, Serialize};

/// One attempt to get direct with a peer, from the first message to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The peer.
    pub peer: PeerId,
    /// The relayed connection over which the handshake ran; `None` where there was none.
    pub circuit: Option<ConnectionId>,
    /// Whether a search for ports has found the pair of sockets that was dialed.
    pub found: bool,
    /// Which side of the handshake this node was, or would have been.
    pub role: Role,
    /// Number of the attempt, from 1, within its series of at most three.
    pub attempt: u32,
    /// The local sockets that the punch used, as far as they are known.
    pub locals: Vec<SocketAddr>,
    /// What this node offered.
    pub sent: Vec<Multiaddr>,
    /// What the peer offered and what became of each.
    pub received: Vec<CandidateRecord>,
    /// How many of the received addresses were unreadable or too many.
    pub skipped: usize,
    /// Round trip time over the circuit, if there is one; only the initiator measures it.
    pub rtt: Option<Duration>,
    /// From the start of the attempt to its end.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// Transport and family: of the direct connection, or else of what was dialed, if that was of one kind.
    pub via: Option<(Transport, Family)>,
}

impl Record {
    /// What made the two sides dial each other.
    pub fn by(&self) -> By {
        match self.circuit {
            Some(_) => By::Dcutr,
            None if self.found => By::Search,
            None => By::Introduction,
        }
    }
}

/// What made the two sides of an attempt dial each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A handshake over a circuit.
    Dcutr,
    /// A relay that introduced them.
    Introduction,
    /// A search for ports that has found a pair of sockets.
    Search,
}

/// One address of the peer in an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateRecord {
    /// The address.
    pub addr: Multiaddr,
    /// What became of it.
    pub outcome: CandidateOutcome,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The peer is direct over this connection.
    Direct {
        /// The connection.
        connection: ConnectionId,
        /// Whether this node's dial made it; otherwise the peer's did.
        dialed: bool,
    },
    /// The peer is still relayed.
    Failed(Reason),
}

impl Outcome {
    /// The outcome without the details.
    pub fn ended(&self) -> AttemptEnd {
        match self {
            Self::Direct { .. } => AttemptEnd::Direct,
            Self::Failed(_) => AttemptEnd::Failed,
        }
    }

    /// Why it failed, if it did.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Direct { .. } => None,
            Self::Failed(reason) => Some(*reason),
        }
    }
}

/// How an attempt ended, without the details: what output and metrics name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptEnd {
    /// With a direct connection.
    Direct,
    /// Without one.
    Failed,
}

/// The side of a DCUtR handshake. Where a relay introduced the two, the one that was asked for has the initiator's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Opened the stream, measured the round trip, dials half of it after SYNC, in the role of a listener.
    Initiator,
    /// Answered, dials on SYNC.
    Responder,
}

p2pnode_protocol::named! {
    /// What became of one address.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum CandidateOutcome {
        /// The filters of this node, or its place in the network, forbid it.
        Filtered,
        /// Not dialed in this attempt.
        NotDialed,
        /// Not dialed: no relay has seen the peer there, and the peer has sent too little for so many packets.
        OverBudget,
        /// Dialed, and no answer yet.
        Pending,
        /// The connection came about here.
        Connected,
        /// The remote, or a firewall on the way, refused.
        Refused,
        /// No answer in time.
        Timeout,
        /// This host has no route, or no socket left, for it.
        Unreachable,
        /// Both sides took the dialer's role of the TCP connection.
        BothDialed,
        /// It failed in another way: another peer answered, or the handshake failed, or this node refused the connection.
        Failed,
    }
}

p2pnode_protocol::named! {
    /// Why a peer is not direct.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Reason {
        /// Punching is off by configuration.
        Disabled,
        /// This node has no address to offer.
        NoCandidates,
        /// The peer offered none.
        NoRemoteCandidates,
        /// The peer does not support `/libp2p/dcutr`: it refuses a handshake, or begins none and does not list the protocol.
        RemoteUnsupported,
        /// The peer, whose part it was, began no handshake.
        RemoteSilent,
        /// The handshake over the circuit broke off or broke the protocol.
        HandshakeFailed,
        /// The handshake over the circuit took too long.
        HandshakeTimeout,
        /// Every address of the peer was filtered, or no relay has seen the peer there and the peer has sent too little for a packet.
        Filtered,
        /// No packet came back.
        Timeout,
        /// Every address refused.
        Refused,
        /// No address has a route from here.
        Unreachable,
        /// Both sides are behind NATs that map by destination.
        SymmetricBoth,
        /// Dialed and failed in ways that no other reason names.
        DialFailed,
        /// Another attempt with the same peer took its place.
        Superseded,
        /// The relayed connection closed before both sides dialed.
        CircuitLost,
    }
}

impl Reason {
    /// Whether the networks, or what relays see of them, may be why. A peer that does not punch is not a matter of the network.
    pub(crate) const fn is_of_network(self) -> bool {
        match self {
            Self::NoCandidates
            | Self::NoRemoteCandidates
            | Self::RemoteSilent
            | Self::Filtered
            | Self::Timeout
            | Self::Refused
            | Self::Unreachable
            | Self::SymmetricBoth
            | Self::DialFailed => true,
            Self::Disabled
            | Self::RemoteUnsupported
            | Self::HandshakeFailed
            | Self::HandshakeTimeout
            | Self::Superseded
            | Self::CircuitLost => false,
        }
    }
}

/// The names are those of the JSON.
macro_rules! display_as_serialized {
    ($($name:ty),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.serialize(f)
            }
        }
    )*};
}

display_as_serialized!(By, CandidateOutcome, AttemptEnd, Reason, Role);
