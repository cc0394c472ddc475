//! The services, forwards and sessions in the reports of a node.

use std::net::{IpAddr, SocketAddr};

use libp2p::PeerId;
use p2pnode_transports::Transport;
use serde::{Deserialize, Serialize};

use crate::core::{json, peers::PathKind};

/// The source address that stands for a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressStatus {
    /// The peer.
    #[serde(with = "json::text")]
    pub peer: PeerId,
    /// Its address.
    pub address: IpAddr,
}

/// A service of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Where its connections go.
    pub target: String,
    /// The sessions that are open.
    pub sessions: usize,
    /// Bytes from peers that the target has.
    pub bytes_in: u64,
    /// Bytes that the target gave.
    pub bytes_out: u64,
}

/// A forward of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// Where clients connect.
    pub listen: String,
    /// What they reach.
    pub to: String,
    /// The peer that the next client gets: the first one to which there is a path.
    #[serde(with = "json::text_or_null")]
    pub peer: Option<PeerId>,
    /// The clients that it serves.
    pub sessions: usize,
}

/// A session that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The first digits of its id.
    pub session: String,
    /// `forward` opened it, `service` accepted it.
    pub role: String,
    /// The service.
    pub service: String,
    /// The other side.
    #[serde(with = "json::text")]
    pub peer: PeerId,
    /// The client, as its forward sees it.
    pub client: Option<SocketAddr>,
    /// The kind of path that carries it; `None` while it waits for one.
    pub kind: Option<PathKind>,
    /// The transport of the first hop.
    pub transport: Option<Transport>,
    /// Bytes from the peer that the local socket has.
    pub bytes_in: u64,
    /// Bytes that the local socket gave.
    pub bytes_out: u64,
}
