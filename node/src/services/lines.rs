//! What commands print: listeners, sessions and services, as `--json` has them.

use std::net::SocketAddr;

use libp2p::PeerId;
use p2pnode_services::{
    config::Service,
    core::{session::End, sessions::Role},
    wire::{Offer, Refusal, ResetReason},
};
use p2pnode_transports::Transport;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::core::{json, peers::PathKind};

/// One line of `serve`, `forward` and `connect`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Report {
    /// Clients can connect.
    Listening {
        /// Where.
        listen: String,
        /// What they reach.
        to: String,
    },
    /// The service is offered.
    Serving {
        /// The node that offers it: others ask for it as SERVICE@PEER.
        #[serde(with = "json::text")]
        peer_id: PeerId,
        /// Its name.
        service: String,
        /// Where its connections go.
        target: String,
    },
    /// Something happened to a session.
    Session(Box<SessionReport>),
}

/// A session at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SessionReport {
    /// What happened.
    pub(crate) state: State,
    /// The first digits of its id.
    pub(crate) session: String,
    /// `forward` opened it, `service` accepted it.
    pub(crate) role: String,
    /// The service.
    pub(crate) service: String,
    /// The other side.
    #[serde(with = "json::text")]
    pub(crate) peer: PeerId,
    /// The client, as its forward sees it.
    pub(crate) client: Option<SocketAddr>,
    /// The kind of path that carries it.
    pub(crate) kind: Option<PathKind>,
    /// The transport of the first hop.
    pub(crate) transport: Option<Transport>,
    /// Bytes from the peer that the local socket has.
    pub(crate) bytes_in: u64,
    /// Bytes that the local socket gave.
    pub(crate) bytes_out: u64,
    /// Why it ended, unless both sides ended it.
    pub(crate) reason: Option<String>,
}

/// What happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It carries data.
    Opened,
    /// It is on another path, and was carried up to then.
    Moved,
    /// It goes on after a pause.
    Resumed,
    /// It has ended.
    Closed,
    /// The peer refused it, or this node has no memory for it.
    Refused,
}

/// A report on its way to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// The report.
    pub(crate) report: Report,
    /// How the session has ended, if it has.
    pub(crate) ended: Option<Ended>,
}

/// How a session has ended, for the exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ended {
    /// Both sides ended it.
    Completed,
    /// The peer could not be reached.
    Unreachable,
    /// The peer is there, and refused it.
    Refused,
    /// Otherwise.
    Failed,
}

impl Report {
    /// The service is offered.
    pub(crate) fn serving(service: &Service, peer_id: PeerId) -> Self {
        Self::Serving {
            peer_id,
            service: service.name.to_string(),
            target: service.target.to_string(),
        }
    }
}

impl From<Report> for Line {
    fn from(report: Report) -> Self {
        Self {
            report,
            ended: None,
        }
    }
}

/// Where reports go. A reader that is a whole channel behind loses some.
pub(crate) type Sink = mpsc::Sender<Line>;

/// Reports that may wait for their reader.
const REPORTS: usize = 1024;

/// A service that a peer offers to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: String,
    /// `tcp`, `udp` or `unix`.
    pub(crate) kind: String,
    /// The protocol of a raw stream that leads to it as well.
    pub(crate) protocol: Option<String>,
}

/// Why a peer's services are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListError {
    /// It cannot be reached.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer.
    #[error("the peer did not answer: {0}")]
    NoAnswer(String),
}

/// Why a session ended; `None` if both sides ended it.
pub(super) fn reason(end: End) -> Option<&'static str> {
    Some(match end {
        End::Completed => return None,
        End::Reset(reason) => of_reset(reason),
        End::ResetByPeer(reason) => match reason {
            ResetReason::LocalReset => "the connection at the peer was reset",
            ResetReason::TargetRefused => "the peer's target refused the connection",
            ResetReason::TargetTimeout => "the peer's target did not answer",
            ResetReason::TargetUnreachable => "the peer's target cannot be reached",
            ResetReason::Violation => "the peer reports a fault in the protocol",
            ResetReason::NotAllowed => "the peer no longer allows this node",
            ResetReason::ServiceGone => "the service or the forward of the peer is gone",
            ResetReason::Stopping => "the peer stops",
            ResetReason::Idle => "no datagram came for the idle time of the peer",
            ResetReason::Other => "the peer reset it",
        },
        End::Refused(refusal) => match refusal {
            Refusal::Unavailable => "the peer has no such service for this node",
            Refusal::Busy => {
                "the peer has too many sessions of this node, or of all, too many were opened lately, or its local sockets hold as many files as they may"
            }
            Refusal::UnknownSession => "the peer does not know the session",
            Refusal::TakesDatagrams => {
                "the service takes datagrams; bring it here with `p2pnode forward SERVICE@PEER --listen udp://ADDR`"
            }
            Refusal::TakesStreams => {
                "the service takes no datagrams; bring it here with a forward that listens on tcp:// or unix://"
            }
            Refusal::Stale | Refusal::Malformed | Refusal::Other => "the peer refused it",
        },
        End::NoAnswer => "the peer cannot be reached",
        End::Unanswered => "the peer, or its target, did not answer in time",
        End::Expired => "there was no path for too long",
        End::PeerRestarted => "the peer was restarted",
        End::PathLost => "the connection that carried it has ended",
        End::ExpiredAtPeer => "there was no path for longer than the peer waits",
        End::NoMemory => {
            "this node has as many sessions as sessions.memory admits: close what `p2pnode status --sessions` shows and nobody uses, or raise it"
        }
    })
}

fn of_reset(reason: ResetReason) -> &'static str {
    match reason {
        ResetReason::LocalReset => "the local connection was reset",
        ResetReason::TargetRefused => "the target refused the connection",
        ResetReason::TargetTimeout => "the target did not answer",
        ResetReason::TargetUnreachable => "the target cannot be reached",
        ResetReason::Violation => "the peer broke the protocol",
        ResetReason::NotAllowed => "the peer is no longer allowed",
        ResetReason::ServiceGone => "the service or the forward is gone",
        ResetReason::Stopping => "the node stops",
        ResetReason::Idle => "no datagram came for the idle time",
        ResetReason::Other => "it was reset",
    }
}

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Forward => "forward",
        Role::Service => "service",
    }
}

impl State {
    /// As it is printed.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Moved => "moved",
            Self::Resumed => "resumed",
            Self::Closed => "closed",
            Self::Refused => "refused",
        }
    }
}

impl From<Offer> for Listed {
    fn from(offer: Offer) -> Self {
        Self {
            name: offer.name.to_string(),
            kind: offer.kind.as_str().to_owned(),
            protocol: offer.protocol.map(|protocol| protocol.to_string()),
        }
    }
}

/// A channel for the reports of a command.
pub(crate) fn reports() -> (Sink, mpsc::Receiver<Line>) {
    mpsc::channel(REPORTS)
}
