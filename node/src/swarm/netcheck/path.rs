//! What the looks at each transport and family share.

use std::{net::SocketAddr, time::Duration};

use libp2p::PeerId;
use p2pnode_protocol::{
    Reach, Scope,
    stun::{Class, Message, RelayInfo, Transaction},
};
use p2pnode_transports::{Family, Handle, Transport};

use crate::core::netcheck::{Answer, PathFacts};

/// How long the relays have to answer, and how long one has to see other ports.
pub(super) const LEGS: Duration = Duration::from_millis(1_000);
pub(in crate::swarm) const MAPPINGS: Duration = Duration::from_millis(800);

/// How long strangers have to get in, at most: that they do not is known only after it.
pub(super) const STRANGERS: Duration = Duration::from_millis(1_500);

/// Other ports of the range that are looked at. At least as many of the free ones stay free.
pub(super) const SAMPLE: usize = 8;

/// A request is repeated after this, and then after twice as long each time.
pub(in crate::swarm) const AGAIN: Duration = Duration::from_millis(150);

/// Bytes of padding in a request, so that its answer may hold all that a relay has to say.
pub(super) const PADDING: usize = 120;

/// One address of a relay.
#[derive(Debug, Clone, Copy)]
pub(in crate::swarm) struct Target {
    pub(in crate::swarm) relay: PeerId,
    pub(in crate::swarm) transport: Transport,
    pub(in crate::swarm) addr: SocketAddr,
}

/// What the look at one transport and family yields.
pub(super) struct Path {
    pub(super) facts: PathFacts,
    pub(super) legs: Vec<(PeerId, Answer)>,
    pub(super) clock_ahead: Option<i64>,
    /// Whether the partner of the relay answers on its behalf; `None` if there is none.
    pub(super) partner_answers: Option<bool>,
}

impl Path {
    pub(super) const fn new(transport: Transport, family: Family) -> Self {
        Self {
            facts: PathFacts::new(transport, family),
            legs: Vec::new(),
            clock_ahead: None,
            partner_answers: None,
        }
    }
}

/// A request with room for the whole answer.
pub(in crate::swarm) fn request() -> Message {
    Message {
        padding: PADDING,
        info: Some(RelayInfo::default()),
        ..Message::new(
            Class::Request,
            Transaction::new(std::array::from_fn(|_| fastrand::u8(..))),
        )
    }
}

/// Whether a relay's word leads to this partner: a private address only if the relay is at one, too.
pub(super) fn may_ask(partner: SocketAddr, relay: SocketAddr) -> bool {
    let is_private = Scope::of(relay.ip()) == Scope::Private;
    let is_host = Scope::of(relay.ip()) == Scope::Host;
    let reach = Reach {
        private: is_private,
        host: is_host,
    };
    partner.port() != 0 && partner.ip() != relay.ip() && reach.admits(partner.ip())
}

/// Where a port stands in the order in which ports are looked at: not in that of their numbers, so that a NAT that maps one after
/// another is not taken for one whose mappings follow from the port.
pub(super) fn place(port: u16) -> u16 {
    port.wrapping_mul(5) % 8
}

/// How many of the free ports may be looked at.
pub(super) fn sample_size(sockets: &Handle, largest: usize) -> usize {
    largest.min(sockets.pool_counts().free / 4)
}
