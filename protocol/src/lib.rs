//! What goes over the wire between p2pnode peers and relays: addresses, messages and their codecs.

pub mod addr;
pub mod directory;
pub mod draining;
pub mod frame;
pub mod hop;
pub mod introduction;
pub mod join;
pub mod ping;
mod quote;
pub mod upgrade;

pub use quote::quote;
