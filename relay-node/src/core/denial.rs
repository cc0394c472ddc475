//! Why the relay refuses something: one label for metrics and status, and one error for connections.

use std::fmt;

use p2pnode_protocol::Transport;

use crate::core::{admission::Refused, source::Source};

/// Why the relay denied something. Each is a value of the label `reason` of `relay_denied_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenialReason {
    /// `access.allow` does not name the peer.
    Access,
    /// The peer has presented no join token, and needs one.
    NoToken,
    /// What a peer has presented is no token, or it has presented too many.
    TokenMalformed,
    /// A token of another relay, or for another peer.
    TokenForeign,
    /// A token that has expired.
    TokenExpired,
    /// A token that was revoked.
    TokenRevoked,
    /// The process takes as much memory as it may.
    Memory,
    /// Too many connections, in all or of the peer, or too many handshakes at once, in all or over one transport.
    ConnectionLimit,
    /// Too many connections or handshakes at once from the peer's IPv4 address or IPv6 /64.
    SourceConnectionLimit,
    /// Too many reservations, in all or of the peer.
    ReservationLimit,
    /// Too many reservations from the peer's IPv4 address or IPv6 /64.
    SourceReservationLimit,
    /// Too many circuits, in all or of the peer.
    CircuitLimit,
    /// Too many requests at once on one connection.
    HandshakeLimit,
    /// A peer asks to be introduced too often, or is asked for too often.
    IntroductionLimit,
    /// A circuit to a peer that has no reservation here.
    NoReservation,
    /// A circuit to a peer that has a reservation and did not take the circuit.
    DestinationFailed,
    /// The relay drains.
    Draining,
    /// A record of the directory that is invalid, or that is not its peer's to offer.
    Record,
    /// Too many records in the directory.
    RecordLimit,
    /// A request that is malformed.
    Malformed,
}

impl DenialReason {
    /// The value of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::NoToken => "no_token",
            Self::TokenMalformed => "token_malformed",
            Self::TokenForeign => "token_foreign",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::Memory => "memory",
            Self::ConnectionLimit => "connection_limit",
            Self::SourceConnectionLimit => "source_connection_limit",
            Self::ReservationLimit => "reservation_limit",
            Self::SourceReservationLimit => "source_reservation_limit",
            Self::CircuitLimit => "circuit_limit",
            Self::HandshakeLimit => "handshake_limit",
            Self::IntroductionLimit => "introduction_limit",
            Self::NoReservation => "no_reservation",
            Self::DestinationFailed => "destination_failed",
            Self::Draining => "draining",
            Self::Record => "record",
            Self::RecordLimit => "record_limit",
            Self::Malformed => "malformed",
        }
    }
}

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
    /// All handshakes that `limits.pending_connections` admits are under way.
    Handshakes,
    /// The transport has its part of the handshakes.
    TransportHandshakes(Transport),
    /// Half of the handshakes are taken, and the source has its part over that transport.
    SourceHandshakes(Transport, Source),
    /// All connections that `limits.connections` admits are open.
    Connections,
    /// The peer has all connections that `limits.connections_per_peer` admits.
    PeerConnections,
    /// The source has as many connections as it may have.
    SourceConnections(Source),
}

impl Denied {
    /// How the relay counts it.
    #[must_use]
    pub fn reason(self) -> DenialReason {
        match self {
            Self::NotAdmitted(refused) => refused.reason(),
            Self::Memory { .. } => DenialReason::Memory,
            Self::Handshakes
            | Self::TransportHandshakes(_)
            | Self::Connections
            | Self::PeerConnections => DenialReason::ConnectionLimit,
            Self::SourceHandshakes(..) | Self::SourceConnections(_) => {
                DenialReason::SourceConnectionLimit
            }
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAdmitted(_) => {
                f.write_str("access.allow does not name the peer, and access.tokens is off")
            }
            Self::Memory { resident, limit } => write!(
                f,
                "{resident} bytes are resident, and limits.memory is {limit}"
            ),
            Self::Handshakes => {
                f.write_str("as many handshakes are under way as limits.pending_connections admits")
            }
            Self::TransportHandshakes(transport) => write!(
                f,
                "{} has three quarters of the handshakes that limits.pending_connections admits",
                name(*transport)
            ),
            Self::SourceHandshakes(transport, source) => write!(
                f,
                "half of the handshakes that limits.pending_connections admits are taken, and {source} has a quarter over {}",
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
