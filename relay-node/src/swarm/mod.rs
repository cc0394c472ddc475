//! The IO of a relay: the swarm, its behaviours, and the event loop that owns it. It decides nothing.

mod autonat;
mod behaviour;
mod boxed_handler;
mod circuit;
mod event_loop;
mod gate;
mod gated;
mod keep_alive;
pub(crate) mod listen;
mod probe;
pub(crate) mod run;
mod shared_state;
mod stun;

pub use run::{run, run_reloading};
