//! Why a node refuses.

p2pnode_protocol::named! {
    /// Why a connection is refused, or ends early. Each is a value of the label `reason` of `p2pnode_refused_total`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
    pub(crate) enum Refused {
        /// All inbound handshakes are taken, and the source has no fewer than others.
        #[error("as many inbound handshakes are under way as this node takes")]
        Handshakes => "handshake_limit",
        /// The caller has as many circuits in their handshake as it may, or all are taken.
        #[error("as many circuits are in their handshake as this node takes")]
        Circuits => "circuit_limit",
        /// As many punches are dialed as may be.
        #[error("as many punches are dialed as this node may dial at once")]
        Punches => "punch_limit",
        /// The peer has as many connections as it may.
        #[error("the peer has as many connections as one peer may have")]
        PeerConnections => "peer_connection_limit",
        /// The source has as many connections as it may.
        #[error("the peer's network has as many connections as one network may have")]
        SourceConnections => "source_connection_limit",
        /// All connections are taken, and no stranger leaves for this one.
        #[error("as many connections are open as this node takes")]
        Connections => "connection_limit",
        /// A handshake ended for another one.
        #[error("the handshake ended for another one")]
        HandshakeDisplaced => "handshake_displaced",
        /// A connection of a stranger ended for another one.
        #[error("the connection ended for another one")]
        ConnectionDisplaced => "connection_displaced",
        /// The process is above `limits.memory`.
        #[error("the process takes as much memory as limits.memory admits")]
        Memory => "memory",
        /// A stranger had more unread bytes or waiting streams than a stranger may, and is disconnected.
        #[error("a stranger sent more than this node reads from one")]
        Unread => "unread",
        /// A stream was reset because its peer opens too many of its protocol.
        #[error("the peer asks too often")]
        RequestRate => "request_rate",
        /// A connection ends because its peer went on after many such resets.
        #[error("the peer asks without end")]
        Flood => "flood",
        /// A relay introduces more peers than this node punches, or to more sockets of a network.
        #[error("as many introductions are punched as this node punches in a minute")]
        Introductions => "introduction_limit",
    }
}
