//! A libp2p node that reaches other nodes behind NAT directly, from a configured range of source ports.
//!
//! [`run`] is a node that stays; [`dial()`] is a node that lives as long as one dial. Both are one event loop around pure
//! machines: `relays`, `dialer`, `peers`, `punch`, `hop`, `liveness` and `reconnect`. See `ARCHITECTURE.md`.

mod behaviour;
mod circuit_rtt;
mod circuits;
pub mod cli;
pub mod command;
pub mod config;
pub mod control;
mod dial;
mod dial_error;
pub mod dialer;
mod discovery;
pub mod event;
mod event_loop;
pub mod firewall;
mod found_relays;
mod handle;
mod hop;
mod interfaces;
mod join;
pub mod liveness;
mod meet;
mod metrics;
mod node;
mod observers;
pub mod output;
pub mod peers;
pub mod punch;
mod query;
mod readiness;
pub mod reconnect;
mod registrar;
pub mod relays;
mod run;
pub mod status;
mod streams;
mod swarm;
mod transport;

pub use dial::dial;
#[cfg(fuzzing)]
pub use discovery::datagram as mdns_datagram;
pub use handle::{Handle, Stopped};
pub use run::run;
