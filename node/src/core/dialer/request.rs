//! What a dial is asked for, and what it asks of the node.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

use super::Candidate;
#[cfg(doc)]
use super::Dialer;
use crate::core::event::Event;

/// When a dial is content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// With a direct connection.
    Direct,
    /// With any connection.
    Connected,
}

/// What to dial, and when to be content.
#[derive(Debug, Clone)]
pub struct Request {
    /// The peer to reach.
    pub peer: PeerId,
    /// Addresses of the peer to try besides circuits.
    pub addrs: Vec<Multiaddr>,
    /// When to be content.
    pub until: Until,
    /// How long to try.
    pub timeout: Duration,
    /// Pings to report over the final path before the result. The result waits for one in any case: a path is only called
    /// what it is once something came back over it.
    pub pings: u32,
}

/// The identity that a dial is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Its id.
    pub id: PeerId,
    /// Whether it ends with the process.
    pub is_throwaway: bool,
}

/// What the node is to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Dial the peer at these addresses.
    DialDirect(Vec<Multiaddr>),
    /// Dial the peer through this relay.
    DialCircuit(PeerId),
    /// Look for the peer in the DNS and on the links of this host. [`Dialer::handle_candidates`] takes what is found,
    /// [`Dialer::handle_searched`] the end.
    Search,
    /// Dial the peer where it may be. [`Dialer::handle_local_failed`] takes a failure.
    DialLocal(Candidate),
    /// Ask this relay, along with the circuit, to introduce this node to the peer: then both punch before the circuit is there.
    /// If the driver asks the relay, the driver calls [`Dialer::await_introduction`] and passes the reply to
    /// [`Dialer::handle_introduction_reply`].
    Introduce(PeerId),
    /// Ask the relays for the peer's record. [`Dialer::handle_found`] takes the answers, [`Dialer::handle_looked_up`] their end.
    LookUp,
    /// Dial the peer through a relay that its record names, at these addresses of the relay.
    DialFound {
        /// The relay.
        relay: PeerId,
        /// Where it is.
        addrs: Vec<Multiaddr>,
    },
    /// The peer does not punch: make its circuit again if that bridges families. If the driver makes it, the driver calls
    /// [`Dialer::await_far_hop`].
    MatchFamilies,
    /// Ping the peer now, over its best path. [`Dialer::handle_ping`] or [`Dialer::handle_ping_failed`] takes the end.
    Ping,
    /// Report this to the reader of the dial. [`Event::Result`] is the last.
    Report(Event),
}
