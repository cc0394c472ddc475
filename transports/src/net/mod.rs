//! Sockets and source ports: the range, the pool of its ports, and who holds them.

pub(crate) mod addr;
pub(crate) mod family;
pub(crate) mod holder;
pub(crate) mod pool;
pub(crate) mod ports;
pub(crate) mod range;
pub(crate) mod socket;
