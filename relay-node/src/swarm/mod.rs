//! The IO of a relay: the swarm, its behaviours, and the event loop that owns it. It decides nothing.

mod admission;
mod behaviour;
mod boxed_handler;
mod circuit;
mod event_loop;
mod exchange;
mod gate;
mod hop;
mod introduction;
mod keep_alive;
pub(crate) mod listen;
pub(crate) mod memory;
mod pending_futures;
mod run;
mod shared_state;

pub use run::{run, run_reloading};
