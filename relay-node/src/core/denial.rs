//! Why the relay refuses something, as metrics and the status label it.

use p2pnode_protocol::guarded::Verdict;

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
    /// A handshake or an unused connection that ended early, because its place was needed for another one.
    Displaced,
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
    /// A peer, or all of its source, asks too often.
    RequestRate,
    /// A peer that goes on after many such refusals; it is disconnected.
    Flood,
    /// A stranger that had more unread bytes or waiting streams than a stranger may; it is disconnected.
    Unread,
}

impl DenialReason {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 24] = [
        Self::Access,
        Self::NoToken,
        Self::TokenMalformed,
        Self::TokenForeign,
        Self::TokenExpired,
        Self::TokenRevoked,
        Self::Memory,
        Self::ConnectionLimit,
        Self::SourceConnectionLimit,
        Self::Displaced,
        Self::ReservationLimit,
        Self::SourceReservationLimit,
        Self::CircuitLimit,
        Self::HandshakeLimit,
        Self::IntroductionLimit,
        Self::NoReservation,
        Self::DestinationFailed,
        Self::Draining,
        Self::Record,
        Self::RecordLimit,
        Self::Malformed,
        Self::RequestRate,
        Self::Flood,
        Self::Unread,
    ];

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
            Self::Displaced => "displaced",
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
            Self::RequestRate => "request_rate",
            Self::Flood => "flood",
            Self::Unread => "unread",
        }
    }

    /// Of what is not served.
    #[must_use]
    pub fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Serve => None,
            Verdict::Refuse => Some(Self::RequestRate),
            Verdict::Close => Some(Self::Flood),
        }
    }
}
