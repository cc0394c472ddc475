//! What a dial is asked for, and what it asks of the event loop.

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

/// What the event loop is to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Dial the peer at these addresses.
    DialDirect(Vec<Multiaddr>),
    /// Dial the peer through this relay.
    DialCircuit(PeerId),
    /// Look for the peer in the DNS and on the links of this host, and tell what is found with [`Dialer::handle_candidates`] and
    /// the end with [`Dialer::handle_searched`].
    Search,
    /// Dial the peer where it may be, and tell a failure with [`Dialer::handle_local_failed`].
    DialLocal(Candidate),
    /// Ask this relay, along with the circuit, to introduce this node to the peer: then both punch before the circuit is there.
    /// Where it is asked, say so with [`Dialer::await_meeting`] and tell the end with [`Dialer::handle_met`].
    Meet(PeerId),
    /// Ask the relays for the peer's record, and tell the answers with [`Dialer::handle_found`] and their end with
    /// [`Dialer::handle_looked_up`].
    LookUp,
    /// Dial the peer through a relay that its record names, at these addresses of the relay.
    DialFound {
        /// The relay.
        relay: PeerId,
        /// Where it is.
        addrs: Vec<Multiaddr>,
    },
    /// Ping the peer now, over its best path, and tell what came of it with [`Dialer::handle_ping`] or
    /// [`Dialer::handle_ping_failed`].
    Ping,
    /// Tell this to whoever asked for the dial. [`Event::Result`] is the last.
    Tell(Event),
}
