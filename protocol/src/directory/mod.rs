//! The directory: under which addresses a peer can be called, told by the peer itself, kept by relays, asked by dialers.
//!
//! On the wire it is Kademlia ([`PROTOCOL`]) with the signed peer records of libp2p as values: relays serve, nodes are clients.
//! Of Kademlia it takes the questions and the answers and not the walk: relays that know one another copy each record to all of
//! them, so that a node asks the relays to which it is connected anyway, and dials nobody for an answer.

mod behaviour;
mod registration;

use std::time::Duration;

use libp2p::StreamProtocol;

pub use behaviour::{Behaviour, Event, Offer, QueryId};
pub use registration::{Found, Refused, Registration, ViaRelay, publishable};

/// The protocol's name. It is private: no other Kademlia network is to be met.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/kad/1");

/// How long a relay keeps a record that is not renewed. What is left of it travels with copies, so they expire together.
pub const TTL: Duration = Duration::from_secs(30 * 60);

/// How often a peer renews its record: two renewals may be lost.
pub const RENEWAL: Duration = Duration::from_secs(10 * 60);

/// How long other relays may still keep a record that a relay takes back. The protocol carries whole seconds and has no word for
/// none; this is time enough to tell all of them.
pub const TAKEN_BACK: Duration = Duration::from_secs(10);

/// The most bytes of a record: its addresses, a key and a signature.
pub const MAX_BYTES: usize = 4 * 1024;

/// The most addresses in a record: a few relays, each with both transports and both families, inside and outside.
pub const MAX_ADDRS: usize = 24;
