//! What p2pnode peers and relays send each other: addresses, messages and their codecs.

pub mod addr;
pub mod autonat;
pub mod behaviour;
pub mod bucket;
pub mod circuit;
pub mod dcutr;
pub mod directory;
pub mod dns64;
pub mod dns_update;
pub mod draining;
pub mod exchange;
mod family;
pub mod frame;
pub mod guarded;
pub mod hop;
pub mod introduction;
pub mod join;
pub mod mapping;
mod named;
pub mod pending_futures;
pub mod ping;
pub mod port_search;
pub mod preference;
pub mod probe;
mod quote;
mod scope;
mod source;
pub mod stun;
mod transport;
pub mod upgrade;
mod writes;

pub use family::Family;
pub use quote::{escape, escape_json, from_remote, quote, to_json};
pub use scope::{Reach, Scope};
pub use source::{Network, Source};
pub use transport::Transport;
