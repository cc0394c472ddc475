//! The IO of a node: the swarm, its behaviours, and the event loop that owns it.

pub(crate) mod admission;
mod autonat;
pub(crate) mod behaviour;
pub(crate) mod build;
pub(crate) mod circuit_rtt;
pub(crate) mod circuits;
pub(crate) mod dial_error;
pub(crate) mod event_loop;
pub(crate) mod handle;
pub(crate) mod hop;
pub(crate) mod interfaces;
pub(crate) mod introduction;
pub(crate) mod join;
pub(crate) mod mappings;
mod memory;
pub(crate) mod netcheck;
pub(crate) mod node;
pub(crate) mod port_search;
pub(crate) mod services;
pub(crate) mod streams;
pub(crate) mod token_file;
pub(crate) mod transport;
