//! Why the relay refuses something, as metrics and the status label it.

use p2pnode_protocol::guarded::Verdict;

p2pnode_protocol::named! {
    /// Why the relay denied something. Each is a value of the label `reason` of `relay_denied_total`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum DenialReason {
        /// `access.allow` does not name the peer.
        Access => "access",
        /// The peer has presented no join token, and needs one.
        NoToken => "no_token",
        /// What a peer has presented is no token, or it has presented too many.
        TokenMalformed => "token_malformed",
        /// A token of another relay, or for another peer.
        TokenForeign => "token_foreign",
        /// A token that has expired.
        TokenExpired => "token_expired",
        /// A token that was revoked.
        TokenRevoked => "token_revoked",
        /// The process takes as much memory as it may.
        Memory => "memory",
        /// Too many connections, in all or of the peer, or too many handshakes at once, in all or over one transport.
        ConnectionLimit => "connection_limit",
        /// Too many connections or handshakes at once from the peer's IPv4 address or IPv6 /64.
        SourceConnectionLimit => "source_connection_limit",
        /// A handshake or an unused connection that ended early, because its place was needed for another one.
        Displaced => "displaced",
        /// Too many reservations, in all or of the peer.
        ReservationLimit => "reservation_limit",
        /// Too many reservations from the peer's IPv4 address or IPv6 /64.
        SourceReservationLimit => "source_reservation_limit",
        /// Too many circuits, in all or of the peer.
        CircuitLimit => "circuit_limit",
        /// Too many requests at once on one connection.
        HandshakeLimit => "handshake_limit",
        /// A peer asks to be introduced too often, or is asked for too often.
        IntroductionLimit => "introduction_limit",
        /// A circuit to a peer that has no reservation here.
        NoReservation => "no_reservation",
        /// A circuit to a peer that has a reservation and did not take the circuit.
        DestinationFailed => "destination_failed",
        /// The relay drains.
        Draining => "draining",
        /// A record of the directory that is invalid, or that is not its peer's to offer.
        Record => "record",
        /// Too many records in the directory.
        RecordLimit => "record_limit",
        /// A request that is malformed.
        Malformed => "malformed",
        /// A peer, or all of its source, asks too often.
        RequestRate => "request_rate",
        /// A peer that goes on after many such refusals; it is disconnected.
        Flood => "flood",
        /// A stranger that had more unread bytes or waiting streams than a stranger may; it is disconnected.
        Unread => "unread",
    }
}

impl DenialReason {
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
