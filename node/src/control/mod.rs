//! The control socket: how `status`, `why` and `dial` ask a running node. HTTP over a Unix socket, versioned under `/v1`:
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/status` | a [`Status`](crate::status::Status) |
//! | `GET /v1/why/PEER` | a [`Why`](crate::status::Why); 404 if the peer is not connected |
//! | `POST /v1/dial` with a [`DialRequest`] | one [`Report`] per line, as they come; the last is the result |
//! | `GET /livez`, `/readyz`, `/metrics` | as the admin HTTP server has them |
//!
//! An error is a status of 400 or above and a text of one line. Who may open the socket may command the node: its mode is
//! 0600.

mod client;
mod server;

pub use client::{Client, ClientError, Reports};
pub use server::{Server, ServerError};

use serde::{Deserialize, Serialize};

/// What is to be dialed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DialRequest {
    /// The peer's id.
    pub peer: String,
    /// Addresses of the peer besides circuits.
    pub addrs: Vec<String>,
    /// Whether any connection will do.
    pub any_connection: bool,
    /// How long to try, in milliseconds.
    pub timeout_ms: u64,
    /// Pings to report over the final path.
    pub pings: u32,
}

/// One line of the answer to a [`DialRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The event for programs: what `--json` prints.
    pub event: serde_json::Value,
    /// The event for people: what `dial` prints.
    pub text: String,
    /// What is waited for now; `None`: as before.
    pub phase: Option<String>,
}
