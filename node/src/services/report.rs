//! What happens to sessions, for commands, the log and metrics.

use std::time::{Duration, Instant};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_services::{
    config::ServiceName,
    core::{session::End, sessions::Role},
    wire::{Open, Refusal, ResetReason},
};

use super::{
    Hub,
    lines::{Ended, Line, Report, SessionReport, State, reason, role},
    running::{OTHER, On, Running},
};

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
            End::NoAnswer | End::Unanswered => Ended::Unreachable,
            End::Reset(ResetReason::TargetUnreachable) if self.is_unreachable => Ended::Unreachable,
            End::Reset(_)
            | End::ResetByPeer(_)
            | End::Expired
            | End::PeerRestarted
            | End::ExpiredAtPeer
            | End::PathLost
            | End::NoMemory => Ended::Failed,
        })
    }

    fn why(&self, role: Role) -> Option<&'static str> {
        match (self.end?, role) {
            _ if self.is_unreachable => Some("the peer cannot be reached"),
            // It is this side that has the target.
            (End::ResetByPeer(ResetReason::TargetTimeout), Role::Service) => {
                Some("the caller waited no longer for the target")
            }
            (end, _) => reason(end),
        }
    }

    fn reason(&self, role: Role) -> Option<String> {
        let why = self.why(role)?;
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
        let role = running.key.role;
        let report = session_report(running, change.state, change.reason(role));
        let why = change.why(role);
        log(&report, why.is_some_and(|why| self.is_news(running, why)));
        if let Some(sink) = &running.sink {
            // A reader that is a whole channel behind, or gone, loses it.
            let _ = sink.try_send(Line {
                report: Report::Session(Box::new(report)),
                ended: change.ended(),
            });
        }
    }

    /// A session that this node was to open has no place in its memory.
    pub(super) fn no_memory(&self, running: &Running) {
        let change = Change {
            state: State::Refused,
            was_open: false,
            to: None,
            pause: None,
            end: Some(End::NoMemory),
            is_unreachable: false,
            detail: None,
        };
        self.report(running, change);
    }

    /// Whether nothing of the service has ended that way in the last minute.
    pub(super) fn is_news(&self, running: &Running, why: &'static str) -> bool {
        let kind = (running.key.role, running.what(), why);
        self.state().ends.handle(kind, Instant::now())
    }

    fn count(&self, running: &Running, change: &Change<'_>, from: Option<On>) {
        let (metrics, role) = (self.metrics(), role(running.key.role));
        let service = running.counted();
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
            // A raw stream has no other path to wait for.
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
        service: running.what(),
        peer: running.key.peer,
        client: running.client,
        kind: on.map(|on| on.kind),
        transport: on.and_then(|on| on.transport),
        bytes_in: running.bytes().0,
        bytes_out: running.bytes().1,
        reason,
    }
}

/// The first end of its kind in a minute `is_news`: the log has it, however many others there are.
fn log(report: &SessionReport, is_news: bool) {
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
            let own = (!is_news).then_some(false);
            tracing::info!(own, %peer, session, role, service, reason, state = report.state.name(), "a session ended");
        }
        (State::Moved | State::Resumed, None) => {
            tracing::info!(%peer, session, role, service, kind, state = report.state.name(), "a session is on another path");
        }
        (State::Opened | State::Closed | State::Refused, None) => {
            tracing::debug!(%peer, session, role, service, kind, state = report.state.name(), "session");
        }
    }
}

impl Hub {
    /// A peer was refused a session. The caller learns little of it, so this node says why.
    pub(super) fn refused(&self, peer: PeerId, open: &Open, refusal: Refusal, on: Option<On>) {
        let mut state = self.state();
        let offered = state.offers.get(&open.service).cloned();
        // Other names are a peer's word.
        let named = offered.as_ref().map(|offered| offered.service.name.clone());
        let refused = (peer, named.clone());
        let is_named = state.refusals.handle(refused, Instant::now());
        drop(state);
        let counted = named.as_ref().map_or(OTHER, ServiceName::as_str);
        self.metrics().opening("service", counted, "refused");
        if !is_named {
            return;
        }
        let report = SessionReport {
            state: State::Refused,
            session: open.session.to_string(),
            role: "service".to_owned(),
            service: open.service.to_string(),
            peer,
            client: open.client.map(|(client, _)| client),
            kind: on.map(|on| on.kind),
            transport: on.and_then(|on| on.transport),
            bytes_in: 0,
            bytes_out: 0,
            reason: Some(why(refusal, named.is_some()).to_owned()),
        };
        log(&report, false);
        if let Some(sink) = offered.and_then(|offered| offered.sink.clone()) {
            // A reader that is a whole channel behind, or gone, loses it.
            let _ = sink.try_send(Line::from(Report::Session(Box::new(report))));
        }
    }
}

fn why(refusal: Refusal, is_offered: bool) -> &'static str {
    match refusal {
        Refusal::Unavailable if is_offered => "`allow` of the service does not name the peer",
        Refusal::Unavailable => "this node has no such service",
        Refusal::Busy => {
            "there are as many sessions of the peer, or of all, as may be, too many were opened lately, or local sockets hold as many files as they may"
        }
        Refusal::TakesDatagrams => "the service takes datagrams, and the peer opened a stream",
        Refusal::TakesStreams => "the service takes streams, and the peer sent datagrams",
        Refusal::UnknownSession => "an earlier process of the peer has opened it",
        Refusal::Stale | Refusal::Malformed | Refusal::Other => "the opening makes no sense",
    }
}
