//! Hole punching: [DCUtR](https://github.com/libp2p/specs/blob/master/relay/DCUtR.md) of our own, on the wire the same as
//! everyone's.
//!
//! - [`p2pnode_protocol::dcutr`]: the messages.
//! - `address`, `candidates`: which addresses are offered, and which received ones are dialed.
//! - `machine`: every decision, pure.
//! - `handler`, `behaviour`: the swarm's side of it.
//! - `record`: what is told of each attempt.
//! - `settings`: what the configuration says, and what is needed of the transports.
//!
//! Candidates are made fresh at each handshake, from raw observations; a circuit is not punched before there is one. What a relay
//! tells that introduces two nodes is punched without a handshake. See
//! `machine` for the course of a punch and for which connection lives.

mod address;
mod behaviour;
mod candidates;
#[cfg(fuzzing)]
pub mod fuzz;
mod handler;
mod machine;
mod record;
mod settings;

pub use behaviour::Behaviour;
pub(crate) use behaviour::outcome::outcome as dial_outcome;
pub use candidates::{Observation, Permit};
pub use machine::{Event, Introduced, Timing};
pub use record::{By, CandidateOutcome, CandidateRecord, Outcome, Reason, Record, Role};
pub use settings::{Advertise, Ports, PunchPorts, Settings};
