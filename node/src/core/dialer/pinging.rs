//! A dial and its pings: what their ends mean for it.

use std::time::{Duration, Instant};

use super::{Action, Dialer, INTERVAL, PingFailure};
use crate::core::{
    event::Event,
    peers::{Path, PathKind},
};

impl Dialer {
    /// A ping of [`Action::Ping`] was answered, and the path it went over is still the best.
    pub(crate) fn handle_ping(&mut self, rtt: Duration, best: Path, now: Instant) {
        let kind = best.kind;
        self.path = Some(best);
        if !self.may_ping() {
            self.pings.failed(PingFailure::Stale);
            return;
        }
        self.pinged = Some(kind);
        self.deadline = now + INTERVAL + self.request.timeout;
        // The next ping leaves after the answer. On a slow path each takes longer than the second that was counted for it.
        self.limit += rtt.saturating_sub(INTERVAL);
        let seq = self.pings.answered();
        if seq <= self.request.pings {
            self.totals.answered += 1;
            self.actions
                .push_back(Action::Report(Event::Ping { seq, rtt, kind }));
        }
    }

    /// A ping of [`Action::Ping`] was not answered, or its failure concerns a path that is no longer the best. `kind` is that of
    /// the path that it went over, where that is known.
    pub(crate) fn handle_ping_failed(&mut self, failure: PingFailure, kind: Option<PathKind>) {
        let is_loss = match failure {
            PingFailure::Lost | PingFailure::Missed | PingFailure::Broken => true,
            PingFailure::Stale | PingFailure::Unsupported => false,
        };
        if is_loss
            && let Some(kind) = kind
            && let Some(seq) = self.pings.under_way()
        {
            self.report_missed(seq, kind, false);
        }
        if failure == PingFailure::Unsupported {
            self.pinged = self.path.as_ref().map(|path| path.kind);
        }
        self.pings.failed(failure);
    }

    /// Reports the pings that fell due while no path leads to the peer.
    pub(super) fn miss_pings(&mut self, now: Instant) {
        while let Some((seq, kind)) = self.pings.take_missed(now) {
            self.report_missed(seq, kind, true);
        }
    }

    fn report_missed(&mut self, seq: u32, kind: PathKind, no_path: bool) {
        if seq > self.request.pings {
            return;
        }
        self.totals.missed += 1;
        self.actions.push_back(Action::Report(Event::PingMissed {
            seq,
            missed: self.totals.missed,
            kind,
            no_path,
        }));
    }

    /// Whether the path is worth a ping: pings that have begun go on over the path that there is.
    pub(super) fn may_ping(&self) -> bool {
        self.is_content() || (self.path.is_some() && self.pings.have_begun())
    }
}
