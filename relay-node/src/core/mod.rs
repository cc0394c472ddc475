//! The decisions of a relay, without IO: who is admitted, what is reserved, and which circuits run.

pub(crate) mod admission;
pub(crate) mod circuits;
pub(crate) mod connections;
pub(crate) mod drain;
pub(crate) mod handshakes;
pub(crate) mod introductions;
pub(crate) mod limiter;
pub(crate) mod limits;
pub(crate) mod peer_relays;
pub(crate) mod policy;
pub(crate) mod replication;
pub(crate) mod reservations;
pub(crate) mod source;
