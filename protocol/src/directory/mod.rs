//! The directory: peers register their addresses at relays, and dialers look them up.
//!
//! On the wire the directory is Kademlia ([`PROTOCOL`]) with the signed peer records of libp2p as values: relays serve, nodes are
//! clients. The directory uses Kademlia's queries and answers, and not its walk. Relays that know one another copy each record to
//! all of them. So a node asks only the relays to which it is connected, and dials no peer for an answer.

mod behaviour;
mod event;
mod registration;

use std::time::Duration;

use libp2p::StreamProtocol;

pub use behaviour::{Behaviour, QueryId};
pub use event::{Event, Offer, Put};
pub use registration::{Found, Refused, Registration, ViaRelay, publishable};

/// The protocol's name. The name is private, so that the directory never meets another Kademlia network.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/kad/1");

/// How long a relay keeps a record that is not renewed. A copy carries the remaining time, so all copies expire together.
pub const TTL: Duration = Duration::from_secs(30 * 60);

/// How often a peer renews its record: two renewals may be lost.
pub const RENEWAL: Duration = Duration::from_secs(10 * 60);

/// How long other relays may still keep a record that a relay takes back. The protocol carries whole seconds and cannot express
/// zero. This time is enough to send the change to all relays.
pub const TAKEN_BACK: Duration = Duration::from_secs(10);

/// The most bytes of a record: its addresses, a key and a signature.
pub const MAX_BYTES: usize = 4 * 1024;

/// The most addresses in a record: a few relays, each with both transports and both families, inside and outside.
pub const MAX_ADDRS: usize = 24;
