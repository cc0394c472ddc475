//! What happens to listeners and sessions, as `--json` prints it.

use std::{net::SocketAddr, time::Duration};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_services::{
    config::Service,
    core::{session::End, sessions::Role},
    wire::{Offer, Refusal, ResetReason},
};
use p2pnode_transports::Transport;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    Hub,
    running::{On, Running},
};
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
    /// The peer refused it.
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
pub(super) const REPORTS: usize = 1024;

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
            ResetReason::Other => "the peer reset it",
        },
        End::Refused(refusal) => match refusal {
            Refusal::Unavailable => "the peer has no such service for this node",
            Refusal::Busy => {
                "the peer has too many sessions of this node, or of all, or too many were opened lately"
            }
            Refusal::UnknownSession => "the peer does not know the session",
            Refusal::Stale | Refusal::Malformed | Refusal::Other => "the peer refused it",
        },
        End::NoAnswer => "the peer cannot be reached",
        End::Expired => "there was no path for too long",
        End::PeerRestarted => "the peer was restarted",
        End::ExpiredAtPeer => "there was no path for longer than the peer waits",
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
        ResetReason::Other => "it was reset",
    }
}

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Forward => "forward",
        Role::Service => "service",
    }
}

/// What has happened to a session.
pub(super) struct Change<'a> {
    pub(super) state: State,
    /// Whether it was open before.
    pub(super) was_open: bool,
    /// What carries it from now on, if that is another connection.
    pub(super) to: Option<On>,
    pub(super) pause: Option<Duration>,
    pub(super) end: Option<End>,
    /// The peer could not be reached to open it.
    pub(super) is_unreachable: bool,
    /// More about why it ended.
    pub(super) detail: Option<&'a str>,
}

impl Change<'_> {
    fn ended(&self) -> Option<Ended> {
        Some(match self.end? {
            End::Completed => Ended::Completed,
            End::Refused(_) => Ended::Refused,
            End::NoAnswer => Ended::Unreachable,
            End::Reset(ResetReason::TargetUnreachable) if self.is_unreachable => Ended::Unreachable,
            End::Reset(_)
            | End::ResetByPeer(_)
            | End::Expired
            | End::PeerRestarted
            | End::ExpiredAtPeer => Ended::Failed,
        })
    }

    fn reason(&self) -> Option<String> {
        let why = match self.is_unreachable {
            true => "the peer cannot be reached",
            false => reason(self.end?)?,
        };
        Some(match self.detail {
            Some(detail) => format!("{why}: {detail}"),
            None => why.to_owned(),
        })
    }
}

impl Hub {
    /// What is known of a connection that carries sessions.
    pub(super) fn on(&self, connection: ConnectionId) -> Option<On> {
        let state = self.state();
        let known = state.paths.connection(connection)?;
        Some(On {
            connection,
            kind: known.kind,
            transport: known.transport,
        })
    }

    /// Something has happened to a session.
    pub(super) fn report(&self, running: &Running, change: Change<'_>) {
        let from = match change.to {
            Some(to) => running.moves(to),
            None => running.is_on(),
        };
        self.count(running, &change, from);
        let why = change.end.and_then(|_| change.reason());
        let report = session_report(running, change.state, why);
        log(&report);
        if let Some(sink) = &running.sink {
            // A reader that is a whole channel behind, or gone, loses it.
            let _ = sink.try_send(Line {
                report: Report::Session(Box::new(report)),
                ended: change.ended(),
            });
        }
    }

    fn count(&self, running: &Running, change: &Change<'_>, from: Option<On>) {
        let (metrics, role) = (self.metrics(), role(running.key.role));
        let service = running.service.as_str();
        let kind = |on: Option<On>| on.map(|on| on.kind);
        let (from, now) = (kind(from), kind(running.is_on()));
        match (change.was_open, running.is_open()) {
            (false, true) => metrics.opening(role, service, "opened"),
            (false, false) if change.state == State::Refused => {
                metrics.opening(role, service, "refused");
            }
            (false, false) => metrics.opening(role, service, "failed"),
            (true, _) => {}
        }
        if change.was_open {
            metrics.off(role, service, from);
        }
        if running.is_open() {
            metrics.on(role, service, now);
        }
        match (change.state, change.end) {
            (State::Moved | State::Resumed, _) => {
                metrics.moved(from, now, change.state.name(), change.pause);
            }
            (State::Closed, Some(End::Expired)) => metrics.moved(from, None, "lost", None),
            (State::Opened | State::Closed | State::Refused, _) => {}
        }
    }
}

fn session_report(running: &Running, state: State, reason: Option<String>) -> SessionReport {
    let on = running.is_on();
    SessionReport {
        state,
        session: running.key.session.to_string(),
        role: role(running.key.role).to_owned(),
        service: running.service.to_string(),
        peer: running.key.peer,
        client: running.client,
        kind: on.map(|on| on.kind),
        transport: on.and_then(|on| on.transport),
        bytes_in: running.bytes().0,
        bytes_out: running.bytes().1,
        reason,
    }
}

fn log(report: &SessionReport) {
    let SessionReport {
        session,
        role,
        service,
        peer,
        ..
    } = report;
    let kind = report.kind.map(|kind| kind.to_string()).unwrap_or_default();
    match (report.state, &report.reason) {
        (_, Some(reason)) => {
            tracing::info!(%peer, session, role, service, reason, state = report.state.name(), "a session ended");
        }
        (State::Moved | State::Resumed, None) => {
            tracing::info!(%peer, session, role, service, kind, state = report.state.name(), "a session is on another path");
        }
        (State::Opened | State::Closed | State::Refused, None) => {
            tracing::debug!(%peer, session, role, service, kind, state = report.state.name(), "session");
        }
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
