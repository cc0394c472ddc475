//! Why a node refuses.

/// Why a connection is refused, or ends early. Each is a value of the label `reason` of `p2pnode_refused_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Refused {
    /// All inbound handshakes are taken, and the source has no fewer than others.
    #[error("as many inbound handshakes are under way as this node takes")]
    Handshakes,
    /// The caller has as many circuits in their handshake as it may, or all are taken.
    #[error("as many circuits are in their handshake as this node takes")]
    Circuits,
    /// As many punches are dialed as may be.
    #[error("as many punches are dialed as this node may dial at once")]
    Punches,
    /// The peer has as many connections as it may.
    #[error("the peer has as many connections as one peer may have")]
    PeerConnections,
    /// The source has as many connections as it may.
    #[error("the peer's network has as many connections as one network may have")]
    SourceConnections,
    /// All connections are taken, and no stranger leaves for this one.
    #[error("as many connections are open as this node takes")]
    Connections,
    /// A handshake ended for another one.
    #[error("the handshake ended for another one")]
    HandshakeDisplaced,
    /// A connection of a stranger ended for another one.
    #[error("the connection ended for another one")]
    ConnectionDisplaced,
    /// The process is above `limits.memory`.
    #[error("the process takes as much memory as limits.memory admits")]
    Memory,
    /// A stranger had more unread bytes or waiting streams than a stranger may, and is disconnected.
    #[error("a stranger sent more than this node reads from one")]
    Unread,
    /// A stream was reset because its peer opens too many of its protocol.
    #[error("the peer asks too often")]
    RequestRate,
    /// A connection ends because its peer went on after many such resets.
    #[error("the peer asks without end")]
    Flood,
    /// A relay introduces more peers than this node punches, or to more sockets of a network.
    #[error("as many introductions are punched as this node punches in a minute")]
    Introductions,
}

impl Refused {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::Handshakes,
        Self::Circuits,
        Self::Punches,
        Self::PeerConnections,
        Self::SourceConnections,
        Self::Connections,
        Self::HandshakeDisplaced,
        Self::ConnectionDisplaced,
        Self::Memory,
        Self::Unread,
        Self::RequestRate,
        Self::Flood,
        Self::Introductions,
    ];

    /// The value of the label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Handshakes => "handshake_limit",
            Self::Circuits => "circuit_limit",
            Self::Punches => "punch_limit",
            Self::PeerConnections => "peer_connection_limit",
            Self::SourceConnections => "source_connection_limit",
            Self::Connections => "connection_limit",
            Self::HandshakeDisplaced => "handshake_displaced",
            Self::ConnectionDisplaced => "connection_displaced",
            Self::Memory => "memory",
            Self::Unread => "unread",
            Self::RequestRate => "request_rate",
            Self::Flood => "flood",
            Self::Introductions => "introduction_limit",
        }
    }
}
