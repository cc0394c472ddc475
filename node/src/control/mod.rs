//! The control socket: how `status`, `why` and `dial` ask a running node; see [`p2pnode_daemon::control`].
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/status` | a [`Status`](crate::observe::status::Status) |
//! | `GET /v1/why/PEER`, by id or name | a [`Why`](crate::observe::status::Why); 404 if the peer is not connected, 400 if there is none of that name |
//! | `POST /v1/forget/PEER` | whether the peer was wanted, as JSON: it is not dialed again when it is lost |
//! | `POST /v1/dial` with a [`DialRequest`] | one [`Report`] per line, as events happen; the last is the result |
//! | `GET /v1/status/sessions` | the same with the sessions that are open |
//! | `POST /v1/serve` with a [`ServeRequest`] | one [`Line`](crate::services::Line) per line; the service goes with the answer |
//! | `POST /v1/forward` with a [`ForwardRequest`] | the same for a forward |
//! | `POST /v1/map` with a [`MapRequest`] | one [`Exposure`](crate::core::mappings::Exposure) per line; the port goes with the answer |
//! | `POST /v1/services/PEER` | a [`Found`], when it is known |
//! | `GET /v1/netcheck` | a [`Report`](crate::core::netcheck::Report), within 3 s |
//! | `GET /v1/netcheck/lifetime` | the same with the lifetime of mappings, which takes minutes |
//! | `GET /livez`, `/readyz`, `/metrics` | as the admin HTTP server has them |

mod client;
mod server;
mod services;

pub(crate) use client::Client;
pub(crate) use server::{page, start};

use axum::http::StatusCode;
use libp2p::PeerId;
use p2pnode_daemon::control::{Owner, Refusal};
use serde::{Deserialize, Serialize};

use p2pnode_protocol::mapping::Protocol;
use p2pnode_services::config::{Allow, Forward, Identity, Service};

use crate::{
    Handle,
    config::{self, Expose},
    core::event::Event,
    services::{ListError, Listed},
};

/// The name of the process behind the socket, for texts.
const OWNER: Owner = Owner {
    noun: "node",
    run: "p2pnode run",
};

/// A dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DialRequest {
    /// The peer: its id, or its name under `peers:` of the node.
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

/// A service to offer as long as the request lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServeRequest {
    /// Its name.
    pub name: String,
    /// Where its connections go.
    pub target: String,
    /// Peer ids, or `any`.
    pub allow: Vec<String>,
    /// How the target learns who calls.
    pub identity: String,
}

impl From<&Service> for ServeRequest {
    fn from(service: &Service) -> Self {
        let identities = Identity::NAMES.iter();
        let mut named = identities.filter(|(_, identity)| *identity == service.identity);
        Self {
            name: service.name.to_string(),
            target: service.target.to_string(),
            allow: match &service.allow {
                Allow::Any => vec!["any".to_owned()],
                Allow::Peers(peers) => peers.iter().map(ToString::to_string).collect(),
            },
            identity: named.next().map_or("none", |(name, _)| name).to_owned(),
        }
    }
}

/// A forward that exists as long as the request lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForwardRequest {
    /// Where to listen.
    pub listen: String,
    /// What to bring, each with a peer id.
    pub to: Vec<String>,
    /// For one client only.
    pub once: bool,
}

impl ForwardRequest {
    /// Of a forward.
    pub(crate) fn new(forward: &Forward, once: bool) -> Self {
        let to = forward.to.iter();
        Self {
            listen: forward.listen.to_string(),
            to: to.map(|(what, peer)| format!("{what}@{peer}")).collect(),
            once,
        }
    }
}

/// What a command has asked for ends before its request does, so that the last reports of its sessions come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EndRequest {
    /// The forward that listens there.
    Forward(String),
    /// The service of that name.
    Service(String),
}

/// A port that is exposed as long as the request lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MapRequest {
    /// Its name.
    pub name: String,
    /// What clients speak.
    pub protocol: Protocol,
    /// Where connections or datagrams go.
    pub target: String,
    /// Whether the target learns the client's address by a header of the PROXY protocol.
    pub proxy: bool,
}

impl From<&Expose> for MapRequest {
    fn from(expose: &Expose) -> Self {
        Self {
            name: expose.name.to_string(),
            protocol: expose.protocol,
            target: expose.target.to_string(),
            proxy: expose.proxy,
        }
    }
}

impl MapRequest {
    /// What is to be exposed.
    ///
    /// # Errors
    ///
    /// What is wrong, and the remedy.
    pub(crate) fn expose(&self) -> Result<Expose, String> {
        let identity = match self.proxy {
            true => Identity::ProxyV2,
            false => Identity::None,
        };
        let (name, target) = (self.name.parse()?, self.target.parse()?);
        Expose::new(name, self.protocol, target, identity).map_err(|(_, problem)| problem)
    }
}

/// What a peer offers, or why that is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Found {
    /// These.
    Services(Vec<Listed>),
    /// The peer cannot be reached.
    Unreachable(String),
    /// The peer did not answer.
    NoAnswer(String),
}

impl From<Result<Vec<Listed>, ListError>> for Found {
    fn from(found: Result<Vec<Listed>, ListError>) -> Self {
        match found {
            Ok(services) => Self::Services(services),
            Err(ListError::Unreachable(reason)) => Self::Unreachable(reason),
            Err(ListError::NoAnswer(reason)) => Self::NoAnswer(reason),
        }
    }
}

impl From<Found> for Result<Vec<Listed>, ListError> {
    fn from(found: Found) -> Self {
        match found {
            Found::Services(services) => Ok(services),
            Found::Unreachable(reason) => Err(ListError::Unreachable(reason)),
            Found::NoAnswer(reason) => Err(ListError::NoAnswer(reason)),
        }
    }
}

/// One line of the answer to a [`DialRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What happened.
    pub event: Event,
    /// The name of the peer, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

fn parse_peer(text: &str, handle: &Handle) -> Result<PeerId, Refusal> {
    let peer = handle.names().peer(text);
    let peer = peer.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
    let checked = config::check_not_own(peer, handle.peer_id());
    checked.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(peer)
}
