//! Two processes and a stranger under virtual time, over streams that break, with applications at both ends.
//!
//! At each step the world checks what holds whatever happens. The bytes of an application follow from the session and the
//! offset, so what arrives proves itself.

mod host;
mod tests;
mod world;

pub(crate) use host::access;
pub(crate) use world::World;
