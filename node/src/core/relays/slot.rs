//! The place for a reservation on a relay: one in each family of its legs.

use std::time::Instant;

use libp2p::{PeerId, core::transport::ListenerId, swarm::ConnectionId};
use p2pnode_transports::Family;

/// The reservation on a relay in one family.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) peer: PeerId,
    pub(super) family: Family,
    pub(super) reservation: Reservation,
    /// The connection that carries it.
    pub(super) leg: Option<ConnectionId>,
    /// Requests in a row that failed.
    pub(super) failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reservation {
    None { retry_at: Instant },
    Requested(Option<ListenerId>),
    Held(ListenerId),
}

impl Slot {
    /// None is held yet.
    pub(super) const fn new(peer: PeerId, family: Family, now: Instant) -> Self {
        Self {
            peer,
            family,
            reservation: Reservation::None { retry_at: now },
            leg: None,
            failures: 0,
        }
    }
}
