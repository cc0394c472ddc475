//! What p2pnode peers and relays send each other: addresses, messages and their codecs.

pub mod addr;
pub mod circuit;
pub mod dcutr;
pub mod directory;
pub mod draining;
pub mod exchange;
pub mod frame;
pub mod hop;
pub mod introduction;
pub mod join;
pub mod pending_futures;
pub mod ping;
mod quote;
pub mod upgrade;

pub use quote::quote;
