//! Hole punching: our own [DCUtR](https://github.com/libp2p/specs/blob/master/relay/DCUtR.md), with the wire format of the
//! specification.
//!
//! - [`p2pnode_protocol::dcutr`]: the messages.
//! - `address`, `candidates`: which addresses are offered, and which received ones are dialed.
//! - `vouch`: what relays vouch for about a peer.
//! - `machine`: every decision, pure.
//! - `handler`, `behaviour`: the swarm's side of it.
//! - `record`: the report of each attempt.
//! - `settings`: the part of the configuration, and the interface to the transports.
//!
//! Each handshake makes its candidates from the raw observations of that moment. Without a candidate a circuit is not punched.
//! An introduction by a relay is punched without a handshake. See [`machine`] for the course of a punch, and for the rule
//! which connection survives.

pub(crate) mod address;
mod behaviour;
pub(crate) mod candidates;
#[cfg(any(fuzzing, test))]
#[allow(unreachable_pub, reason = "the fuzz targets are programs of their own")]
pub mod fuzz;
mod handler;
pub(crate) mod machine;
pub(crate) mod record;
mod settings;
pub(crate) mod vouch;

pub(crate) use behaviour::Behaviour;
pub(crate) use behaviour::outcome::outcome as dial_outcome;
pub(crate) use candidates::Observation;
pub(crate) use machine::{Event, FoundPair, Introduced, IntroductionResponse, SIBLINGS};
pub(crate) use record::Record;
pub use record::{AttemptEnd, By, CandidateOutcome, CandidateRecord, Reason, Role};
pub(crate) use settings::{CircuitFacts, Settings};
