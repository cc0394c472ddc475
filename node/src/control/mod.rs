//! The control socket: how `status`, `why` and `dial` ask a running node; see [`p2pnode_daemon::control`].
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/status` | a [`Status`](crate::observe::status::Status) |
//! | `GET /v1/why/PEER` | a [`Why`](crate::observe::status::Why); 404 if the peer is not connected |
//! | `POST /v1/forget/PEER` | whether the peer was wanted, as JSON: it is not dialed again when it is lost |
//! | `POST /v1/dial` with a [`DialRequest`] | one [`Report`] per line, as events happen; the last is the result |
//! | `GET /v1/netcheck` | a [`Report`](crate::core::netcheck::Report), within 3 s |
//! | `GET /livez`, `/readyz`, `/metrics` | as the admin HTTP server has them |

mod client;
mod server;

pub(crate) use client::Client;
pub(crate) use server::start;

use p2pnode_daemon::control::Owner;
use serde::{Deserialize, Serialize};

use crate::core::event::Event;

/// The name of the process behind the socket, for texts.
const OWNER: Owner = Owner {
    noun: "node",
    run: "p2pnode run",
};

/// A dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DialRequest {
    /// The peer's id.
    pub peer: String,
    /// Addresses of the peer to try alongside circuits.
    pub addrs: Vec<String>,
    /// Whether a relayed connection is enough.
    pub any_connection: bool,
    /// How long to try, in milliseconds.
    pub timeout_ms: u64,
    /// Pings to report over the final path.
    pub pings: u32,
}

/// One line of the answer to a [`DialRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What happened.
    pub event: Event,
}
