//! Admission in the swarm: the core of it decides, and these carry out what it says.

pub(crate) mod behaviour;
pub(crate) mod gated;
pub(crate) mod shared;
