//! A libp2p node that reaches other nodes behind NAT directly, from a configured range of source ports.
//!
//! [`run`] is a node that stays; [`dial()`] is a node that lives as long as one dial. Both are one event loop around pure
//! machines: `relays`, `dialer`, `peers`, `punch`, `hop`, `liveness` and `reconnect`. See `ARCHITECTURE.md`.

pub mod core;
pub mod observe;
pub mod swarm;

pub mod command;
pub mod config;
pub mod control;
mod discovery;
pub mod punch;

pub use crate::command::dial::dial;
pub use crate::command::run::run;
pub use crate::swarm::handle::{Handle, Stopped};
#[cfg(fuzzing)]
pub use discovery::datagram as mdns_datagram;
