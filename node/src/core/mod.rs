//! The decisions of a node, without IO: which relays, which dials, which path, and what is next.

pub mod dialer;
pub mod event;
pub(crate) mod found_relays;
pub(crate) mod inquiries;
pub(crate) mod introductions;
pub(crate) mod json;
pub mod liveness;
pub mod peers;
pub mod reconnect;
pub(crate) mod registrar;
pub mod relays;
pub(crate) mod tokens;
