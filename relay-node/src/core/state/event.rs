//! What has happened, for logs, metrics and output. Nothing depends on whether anybody looks.

use std::{net::IpAddr, sync::Arc, time::Duration};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::introduction;

use crate::core::{
    admission::{Difference, Refused},
    circuits::{Cut, Traffic},
    denial::DenialReason,
    policy::Volume,
    twins::SharedKey,
};

/// A fact.
#[derive(Debug)]
pub enum Event {
    /// A peer has presented a token, or only itself.
    Joined {
        /// The peer.
        peer: PeerId,
        /// Whether it is admitted.
        outcome: Result<(), Refused>,
    },
    /// A peer was admitted and is not any more. Its connections are being closed.
    AdmissionEnded {
        /// The peer.
        peer: PeerId,
        /// Why.
        refused: Refused,
    },
    /// A connection is being closed whose peer was not admitted in time.
    AdmissionOverdue {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
    },
    /// Other access rules are in force.
    AccessChanged {
        /// What is different.
        difference: Difference,
        /// Whether join tokens are taken.
        tokens: bool,
        /// Whether any peer may use the relay now, and could not before.
        opens: bool,
        /// Peers whose admission ended by this.
        disconnected: usize,
    },
    /// A connection is being closed that answers no ping.
    Unresponsive {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
    },
    /// A connection that nobody uses is being closed, for a newcomer at a full relay.
    Displaced(ConnectionId),
    /// A reservation was granted, or renewed.
    ReservationGranted {
        /// The peer.
        peer: PeerId,
        /// The connection that holds it.
        connection: ConnectionId,
        /// Whether the connection held it before.
        renewed: bool,
    },
    /// A reservation was denied, or a renewal.
    ReservationDenied {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: DenialReason,
    },
    /// A reservation has ended.
    ReservationEnded {
        /// The peer.
        peer: PeerId,
        /// The connection that held it.
        connection: ConnectionId,
        /// How.
        how: ReservationEnd,
    },
    /// A circuit is open.
    CircuitOpened {
        /// The peer that dialed it.
        source: PeerId,
        /// The peer that was dialed.
        destination: PeerId,
    },
    /// A circuit was open and has ended.
    CircuitClosed {
        /// The peer that dialed it.
        source: PeerId,
        /// The peer that was dialed.
        destination: PeerId,
        /// For how long it was open.
        open: Duration,
        /// What it has carried.
        traffic: Arc<Traffic>,
        /// Why it was cut; `None` if both sides have ended it.
        cut: Option<Cut>,
    },
    /// A circuit was denied.
    CircuitDenied {
        /// The peer that dials it.
        source: PeerId,
        /// The peer that is dialed.
        destination: PeerId,
        /// Why.
        reason: DenialReason,
        /// What the destination has to do with it.
        why: Option<String>,
    },
    /// The last connection of a peer is gone over whose circuits bytes went.
    PeerGone {
        /// The peer.
        peer: PeerId,
        /// The bytes.
        carried: Volume,
    },
    /// A peer has asked to be introduced to another.
    Introduced {
        /// Why it was not, if it was not.
        outcome: Result<(), introduction::Refusal>,
    },
    /// An introduction was sent.
    IntroductionSent {
        /// The peer that was asked for.
        peer: PeerId,
        /// Whether the peer took it.
        delivery: Delivery,
    },
    /// A record was offered.
    Record {
        /// Who offered it: its peer, or another relay.
        source: PeerId,
        /// The peer that it is about.
        peer: PeerId,
        /// What became of it.
        outcome: RecordOutcome,
    },
    /// This relay takes back the record of a peer that has left, or that is no longer admitted.
    RecordTakenBack(PeerId),
    /// A record was sent to another relay.
    RecordCopied {
        /// The relay.
        relay: PeerId,
        /// Whether it arrived.
        delivery: Delivery,
    },
    /// A connection with another relay was established, to which all records are copied.
    PeerRelayConnected {
        /// The relay.
        relay: PeerId,
        /// How many records there are.
        records: usize,
    },
    /// The last connection with another relay is gone.
    PeerRelayLost(PeerId),
    /// A dial of another relay has failed.
    PeerRelayUnreachable {
        /// The relay.
        relay: PeerId,
        /// What the dial failed with.
        error: String,
        /// How many dials in a row have failed.
        failures: u32,
    },
    /// The relay takes reservations, or does not, for want of an external address.
    Serving(super::Hop),
    /// The relay advertises an external address.
    ExternalAddress {
        /// The address.
        address: Multiaddr,
        /// Whether the operator gave it.
        configured: bool,
    },
    /// The relay does not advertise it any more.
    ExternalAddressGone(Multiaddr),
    /// All peers are seen at this address, which hides where they are; or not any more.
    Translated(Option<IpAddr>),
    /// One key seems to be in use on two hosts.
    SharedKey(SharedKey),
    /// One host uses the key of a peer again, of which two were reported.
    KeyAlone(PeerId),
    /// The drain has begun.
    Draining {
        /// How long it may take.
        timeout: Duration,
    },
    /// The drain goes on.
    DrainProgress {
        /// What is left of its time.
        left: Duration,
    },
}

/// How a reservation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationEnd {
    /// Its connection was closed.
    Closed,
    /// It was not renewed in time.
    Expired,
    /// The answer that granted it could not be delivered.
    Undelivered,
}

impl ReservationEnd {
    /// As it is logged.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::Undelivered => "not told",
        }
    }
}

/// Whether a message reached its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The peer took it.
    Delivered,
    /// It did not.
    Failed,
}

impl Delivery {
    /// Of a message that arrived, or did not.
    #[must_use]
    pub fn of(arrived: bool) -> Self {
        match arrived {
            true => Self::Delivered,
            false => Self::Failed,
        }
    }
}

/// What became of a record that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOutcome {
    /// It is kept.
    Kept {
        /// Whether it withdraws the peer's addresses.
        withdraws: bool,
    },
    /// The relay through which alone it leads takes it back: it expires soon.
    TakenBack,
    /// It waits until its peer holds a reservation here.
    Waiting,
    /// It is not new.
    Old,
    /// The directory is full.
    Full,
    /// The access rules reject its source.
    NotAdmitted,
    /// Its peer holds no reservation here.
    NoReservation,
}
