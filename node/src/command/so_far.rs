//! What a dial has reached when a signal ends it.

use std::time::Duration;

use crate::core::{
    event::{Event, NotDirect, Outcome, PingTotals, Reached},
    peers::{Path, PathKind},
    port_search::SearchReport,
};

/// The paths of the dialed peer, from the events of the dial.
#[derive(Debug, Default)]
pub(crate) struct SoFar {
    relayed: Option<Path>,
    direct: Option<(Path, Duration)>,
    was_connected: bool,
    attempts: u32,
    pings: PingTotals,
    last_search: Option<SearchReport>,
}

impl SoFar {
    /// An event of the dial.
    pub(crate) fn handle(&mut self, event: &Event) {
        match event {
            Event::Connected { t, path, .. } => {
                self.was_connected = true;
                match path.kind {
                    PathKind::Relayed => self.relayed = Some(path.clone()),
                    PathKind::Direct => self.direct = Some((path.clone(), *t)),
                }
            }
            Event::Disconnected { kind, .. } => {
                match kind {
                    PathKind::Relayed => self.relayed = None,
                    PathKind::Direct => self.direct = None,
                }
                // As the dial counts them.
                if self.direct.is_none() && (self.relayed.is_none() || *kind == PathKind::Direct) {
                    self.attempts = 0;
                }
            }
            Event::Search { report, .. } => self.last_search = Some(*report),
            Event::PingMissed { .. } => self.pings.missed += 1,
            Event::Ping { .. } => self.pings.answered += 1,
            Event::Punch { .. } => self.attempts += event.attempts(),
            Event::Started { .. }
            | Event::Mapping { .. }
            | Event::Listening { .. }
            | Event::Reserved { .. }
            | Event::ReservationLost { .. }
            | Event::RelayUnreachable { .. }
            | Event::PortRests { .. }
            | Event::KeyShared { .. }
            | Event::KeyAlone { .. }
            | Event::RelayRefused { .. }
            | Event::Dialing { .. }
            | Event::SearchPaused { .. }
            | Event::SearchResumed { .. }
            | Event::Result(_) => {}
        }
    }

    /// Whether the peer was connected at any time.
    pub(crate) const fn was_connected(&self) -> bool {
        self.was_connected
    }

    /// Whether the path is direct now.
    pub(crate) const fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// How the last search for ports has ended.
    pub(crate) const fn last_search(&self) -> Option<&SearchReport> {
        self.last_search.as_ref()
    }

    /// The result if the dial ends after this time for this reason.
    pub(crate) fn ended(self, reason: String, t: Duration) -> Outcome {
        let reason = NotDirect::Unreachable(reason);
        let (outcome, path, time_to_direct, reason) = match (self.direct, self.relayed) {
            (Some((path, at)), _) => (Reached::Direct, Some(path), Some(at), None),
            (None, Some(path)) => (Reached::Relayed, Some(path), None, Some(reason)),
            (None, None) => (Reached::Unreachable, None, None, Some(reason)),
        };
        Outcome {
            outcome,
            t,
            time_to_direct,
            attempts: self.attempts,
            path,
            reason,
            found_by: None,
            finding: None,
            pings: self.pings,
        }
    }
}
