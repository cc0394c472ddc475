//! ROOM

pub(crate) mod behaviour;
pub(crate) mod gated;
pub(crate) mod shared;
