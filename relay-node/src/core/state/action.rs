//! What the swarm is to do.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::{introduction::Notice, mapping::Protocol, probe::Nonce, shared_key};
use p2pnode_transports::Class;

use crate::core::circuits::CircuitId;

/// One call that the adapter makes. Actions are carried out in the order in which [`super::RelayState::poll_action`] returns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Dial another relay at these addresses. Report the outcome with [`super::RelayState::handle_established`] or
    /// [`super::RelayState::handle_dial_failed`].
    Dial {
        /// The relay.
        relay: PeerId,
        /// Its configured addresses.
        addrs: Vec<Multiaddr>,
    },
    /// Close one connection.
    Close(ConnectionId),
    /// Close all connections of a peer.
    Disconnect(PeerId),
    /// From now on the connections of a peer have the budget of this class. Every peer begins as a stranger.
    Classify {
        /// The peer.
        peer: PeerId,
        /// Its class.
        class: Class,
    },
    /// Keep the peer's connections open, or leave them to the idle timeout.
    KeepAlive {
        /// The peer.
        peer: PeerId,
        /// For how long.
        keep: Keep,
    },
    /// Offer HOP on every connection, or no longer.
    OfferHop(Hop),
    /// Advertise an external address.
    AddExternalAddress(Multiaddr),
    /// Advertise it no longer.
    RemoveExternalAddress(Multiaddr),
    /// End a circuit whose connection is gone. Report its end with [`super::RelayState::handle_circuit_ended`].
    AbortCircuit(CircuitId),
    /// Send an introduction. Report with [`super::RelayState::handle_introduction_sent`] whether the peer took it.
    Introduce {
        /// The peer that is asked for.
        peer: PeerId,
        /// The connection on which it holds its reservation.
        connection: ConnectionId,
        /// What it is sent.
        notice: Notice,
    },
    /// Report to a peer that another host uses its key.
    ReportSharedKey {
        /// The peer.
        peer: PeerId,
        /// The connection on which it is reported.
        connection: ConnectionId,
        /// Where the other host is.
        notice: shared_key::Notice,
    },
    /// Send a nonce to this address, from a port that nothing else has used.
    Probe {
        /// The address, at which a peer is seen.
        to: SocketAddr,
        /// Over which protocol.
        protocol: Protocol,
        /// The nonce.
        nonce: Nonce,
    },
    /// Answer lookups of `peer` with this record.
    StoreRecord(Stored),
    /// Answer lookups of the peer with nothing.
    RemoveRecord(PeerId),
    /// Send a record to another relay. Report with [`super::RelayState::handle_record_copied`] whether it arrived.
    CopyRecord {
        /// The relay.
        relay: PeerId,
        /// The record.
        record: Stored,
    },
    /// Announce to all peers, those that are connected and those that connect later, that the relay drains.
    AnnounceDrain {
        /// The time over which the return of the peers is to be spread.
        over: Duration,
    },
    /// The drain is over: close all connections and stop.
    Stop,
}

/// How long connections stay on which nothing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// As long as they are alive.
    Always,
    /// Until the idle timeout.
    WhileUsed,
}

/// Whether the relay serves peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// It takes reservations: it has an address to name in them.
    Offered,
    /// It has none.
    Withheld,
}

/// A record as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The peer that signed it.
    pub peer: PeerId,
    /// Its signed envelope.
    pub value: Vec<u8>,
    /// When it expires. A copy travels with what is left of that.
    pub expires: Instant,
}
