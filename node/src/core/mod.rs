//! The decisions of a node, without IO: which relays, which dials, which path, and what is next.
//!
//! [`state::NodeState`] owns the machines and everything that connects them. Each machine takes what happens by `handle_*`, with
//! the time as an argument. `poll_action` returns what is to be done, and `poll_event` what is to be reported. `poll_timeout`
//! returns when the caller has to call `handle_timeout`.

pub(crate) mod addresses;
pub(crate) mod admission;
pub(crate) mod dialer;
pub(crate) mod endings;
pub(crate) mod event;
pub(crate) mod fault;
pub(crate) mod finding;
pub(crate) mod found_relays;
pub(crate) mod inquiries;
pub(crate) mod introductions;
pub(crate) mod joins;
pub(crate) mod json;
pub(crate) mod keeper;
pub(crate) mod liveness;
pub(crate) mod mappings;
pub(crate) mod neighbours;
pub(crate) mod netcheck;
pub(crate) mod own_key;
pub(crate) mod peers;
pub(crate) mod port_search;
pub(crate) mod reconnect;
mod refusal;
mod refusals;
pub(crate) mod registrar;
pub(crate) mod relays;
pub(crate) mod search_report;
pub(crate) mod sights;
pub(crate) mod state;
pub(crate) mod tokens;
