//! The IO of a relay: the swarm, its behaviours, and the event loop that owns it.

pub mod admission;

pub(crate) mod behaviour;
pub(crate) mod boxed_handler;
pub mod circuit;
pub(crate) mod connection_sources;
pub(crate) mod event_loop;
pub(crate) mod external;
pub(crate) mod hop;
pub(crate) mod introduction;
pub(crate) mod keep_alive;
pub(crate) mod listen;
pub(crate) mod memory;
