//! A [circuit relay v2] for `p2pnode` peers. It holds reservations, carries circuits until the peers have a direct connection,
//! and sends each peer the address from which the relay sees it.
//!
//! | Folder | What it is for |
//! |---|---|
//! | `command` | the command line: reads the configuration and the key, and runs what was asked for |
//! | `swarm` | the IO: libp2p's swarm, its behaviours, and the event loop that translates between it and the core |
//! | `observe` | logs, metrics, status, readiness, output: it only looks |
//! | [`core`] | the decisions, without IO: [`core::RelayState`] |
//! | [`config`] | the resolved configuration |
//!
//! [circuit relay v2]: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md

pub mod command;
pub mod config;
pub mod core;

mod observe;
mod quic_scheduler;
mod swarm;

pub use crate::{
    config::{
        Config,
        reload::{Load, Reloads},
    },
    observe::output::Format,
    swarm::{listen::Error as ListenError, run, run_reloading},
};
