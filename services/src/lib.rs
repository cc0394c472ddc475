//! Services of one node at another: sessions that outlive their paths, and UDP flows.
//!
//! A session carries one client connection over streams of `/p2pnode/service/1`, one at a time. It waits when its stream breaks,
//! and goes on where both sides stopped when a new one is there.
//!
//! - [`wire`]: the frames of a stream and the QUIC datagrams of flows.
//! - [`identity`]: how a target learns who calls.
//! - [`config`]: the values that a configuration consists of.
//! - [`core`]: the machines. They do no IO; time and randomness are arguments.
//!
//! Why it is so: decisions 0700 to 0710 in `docs/decisions`.

pub mod config;
pub mod core;
pub mod identity;
#[cfg(test)]
mod simulation;
pub mod wire;
