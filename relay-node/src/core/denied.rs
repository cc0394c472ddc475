//! Why the relay refuses a connection.

use std::fmt;

use p2pnode_protocol::{Source, Transport};

use crate::core::{admission::Refused, denial::DenialReason};

/// Why a connection is refused, before its handshake or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The access rules reject the peer.
    NotAdmitted(Refused),
    /// The process takes as much memory as it may.
    Memory {
        /// Bytes that are resident.
        resident: u64,
        /// `limits.memory`.
        limit: u64,
    },
    /// All handshakes that `limits.pending_connections` admits over that transport are under way, and the source has no fewer than
    /// others.
    Handshakes(Transport, Source),
    /// All connections that `limits.connections` admits are open.
    Connections,
    /// The peer has all connections that `limits.connections_per_peer` admits.
    PeerConnections,
    /// The source has as many connections as it may have.
    SourceConnections(Source),
    /// Peers of the source were disconnected again and again because they asked without end.
    Flood(Source),
}

impl Denied {
    /// How the relay counts it.
    #[must_use]
    pub fn reason(self) -> DenialReason {
        match self {
            Self::Flood(_) => DenialReason::Flood,
            Self::NotAdmitted(refused) => refused.reason(),
            Self::Memory { .. } => DenialReason::Memory,
            Self::Connections | Self::PeerConnections => DenialReason::ConnectionLimit,
            Self::Handshakes(..) | Self::SourceConnections(_) => {
                DenialReason::SourceConnectionLimit
            }
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flood(source) => write!(f, "peers of {source} ask without end"),
            Self::NotAdmitted(_) => {
                f.write_str("access.allow does not name the peer, and access.tokens is off")
            }
            Self::Memory { resident, limit } => write!(
                f,
                "{resident} bytes are resident, and limits.memory is {limit}"
            ),
            Self::Handshakes(transport, source) => write!(
                f,
                "as many handshakes are under way over {} as limits.pending_connections admits, and {source} has no fewer than others",
                name(*transport)
            ),
            Self::Connections => {
                f.write_str("as many connections are open as limits.connections admits")
            }
            Self::PeerConnections => f.write_str(
                "the peer has as many connections as limits.connections_per_peer admits",
            ),
            Self::SourceConnections(source) => {
                let key = match source {
                    Source::Ip4(_) => "limits.connections_per_ip4",
                    Source::Net6(_) => "limits.connections_per_ip6_net",
                };
                write!(f, "{source} has as many connections as {key} admits")
            }
        }
    }
}

impl std::error::Error for Denied {}

fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "QUIC",
        Transport::Tcp => "TCP",
    }
}
