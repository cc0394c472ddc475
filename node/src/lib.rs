//! A libp2p node that reaches other nodes behind NAT directly, from a configured range of source ports.
//!
//! [`run`] is a node that stays; [`dial()`] is a node that lives as long as one dial. Both are one event loop around pure
//! machines: `relays`, `dialer`, `peers`, `punch`, `hop`, `liveness` and `reconnect`. See `ARCHITECTURE.md`.

#[allow(
    unreachable_pub,
    reason = "within `core`, `pub` means for the other folders of this crate"
)]
mod core;
mod observe;
mod swarm;

mod command;
mod config;
mod control;
mod discovery;
#[cfg(not(fuzzing))]
mod punch;
#[cfg(fuzzing)]
pub mod punch;

#[doc(hidden)]
pub use crate::command::execute;
pub use crate::swarm::handle::{Handle, Stopped};
#[cfg(fuzzing)]
pub use discovery::datagram as mdns_datagram;
