//! Admission in the swarm.

pub(crate) mod behaviour;
pub(crate) mod gated;
