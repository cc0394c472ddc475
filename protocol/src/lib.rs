//! What goes over the wire between p2pnode peers and relays: addresses, messages and their codecs.

pub mod addr;
pub mod directory;
pub mod draining;
mod family;
pub mod frame;
pub mod hop;
pub mod introduction;
pub mod join;
pub mod ping;
mod quote;
mod transport;
pub mod upgrade;

pub use family::Family;
pub use quote::quote;
pub use transport::Transport;
