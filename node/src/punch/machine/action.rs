//! The inputs, actions and events of the machine.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::Remote;

use crate::punch::{
    address::Candidate,
    record::{Reason, Record, Role},
};

/// Which end of a circuit this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It was dialed: the initiator of the handshake.
    Listener,
    /// It dialed: the responder.
    Dialer,
}

/// Names a dial that the machine asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DialId(pub(crate) u64);

/// A direct connection, as it is established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Established {
    /// The connection.
    pub(crate) connection: ConnectionId,
    /// Whether this node dialed it.
    pub(crate) dialed: bool,
    /// Where it goes, if the address names a socket.
    pub(crate) remote: Option<Candidate>,
}

/// An introduction: a relay sent this node the addresses of a peer, and the peer those of this node, at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Introduced {
    /// The relay.
    pub relay: PeerId,
    /// The peer.
    pub peer: PeerId,
    /// Whether this node asked for the introduction; otherwise the peer asked for it.
    pub asked: bool,
    /// The peer's addresses.
    pub addrs: Vec<Multiaddr>,
    /// This node's addresses, as the relay sent them to the peer.
    pub own_addrs: Vec<Multiaddr>,
}

/// A pair of sockets between which packets go both ways, from a search for ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundPair {
    /// The peer.
    pub peer: PeerId,
    /// The peer's socket.
    pub remote: SocketAddr,
    /// This node's, as its relay sees the punch socket.
    pub own: SocketAddr,
    /// Whether this side dials in the role of the dialer.
    pub role: Role,
    /// Whether the path of a direct peer moves there.
    pub moves: bool,
}

/// What follows from an introduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntroductionResponse {
    /// The peer is punched; [`Event::Attempt`] follows.
    Punches,
    /// Nothing: the peer is left to DCUtR.
    Ignored,
    /// The same, because too many were introduced lately.
    Refused,
}

/// Why a handshake over a circuit did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    /// The peer does not take the protocol.
    Unsupported,
    /// Time is up.
    Timeout,
    /// The stream broke, or what came over it is not the protocol.
    Broken,
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Open a stream on the circuit and send CONNECT.
    Connect {
        /// The peer.
        peer: PeerId,
        /// The circuit.
        circuit: ConnectionId,
        /// What CONNECT lists.
        addrs: Vec<Multiaddr>,
        /// What is known of the circuit's round trip time.
        rtt: Option<Duration>,
    },
    /// Answer the CONNECT that was received on the circuit.
    Reply {
        /// The peer.
        peer: PeerId,
        /// The circuit.
        circuit: ConnectionId,
        /// What the answer lists.
        addrs: Vec<Multiaddr>,
        /// The round trip time that this node goes by: it dials half of it after the answer.
        rtt: Option<Duration>,
    },
    /// Drop the handshake that runs on the circuit.
    Drop {
        /// The peer.
        peer: PeerId,
        /// The circuit.
        circuit: ConnectionId,
        /// Whose part this node has in it.
        role: Role,
    },
    /// Dial all of these at once.
    Dial {
        /// The peer.
        peer: PeerId,
        /// The name of the dial.
        dial: DialId,
        /// The addresses.
        addrs: Vec<Multiaddr>,
        /// The initiator dials in the role of a listener, the responder in that of a dialer. The last dial of a responder may have the
        /// other role.
        role: Role,
    },
    /// Connections that come from these addresses belong to the punch of this peer, until [`Action::Forget`].
    Expect {
        /// The peer.
        peer: PeerId,
        /// The addresses at which relays vouch for the peer.
        addrs: Vec<Multiaddr>,
        /// The others. Each gets one first packet, which is not repeated until something comes back.
        unvouched: Vec<Multiaddr>,
        /// What is known of the peer.
        remote: Remote,
    },
    /// Nothing is expected of this peer any more.
    Forget {
        /// The peer.
        peer: PeerId,
    },
    /// Close a connection.
    Close {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
    },
    /// Whether punching needs the circuit.
    KeepAlive {
        /// The peer.
        peer: PeerId,
        /// The circuit.
        circuit: ConnectionId,
        /// Whether it does.
        keep: bool,
    },
}

/// What the machine reports.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// An attempt has ended.
    Attempt(Box<Record>),
    /// A peer has become direct.
    Direct {
        /// The peer.
        peer: PeerId,
        /// The first direct connection.
        connection_id: ConnectionId,
        /// How many attempts the series took; 0 if it came about without punching.
        attempts: u32,
    },
    /// A series has ended without a direct connection.
    GaveUp {
        /// The peer.
        peer: PeerId,
        /// Why the last attempt failed.
        reason: Reason,
        /// How many attempts the series had.
        attempts: u32,
        /// When this node tries again by itself; `None` if that is up to the peer, or pointless.
        retry_in: Option<Duration>,
    },
    /// A peer has listed these addresses over a circuit.
    Listed {
        /// The peer.
        peer: PeerId,
        /// The addresses.
        ips: Vec<IpAddr>,
    },
    /// A peer lists public addresses at which no relay has been known to see it: ask the relays of its circuits.
    /// [`handle_vouched`](super::Machine::handle_vouched) follows if one does.
    Unvouched {
        /// The peer.
        peer: PeerId,
        /// The addresses.
        ips: Vec<IpAddr>,
    },
}
