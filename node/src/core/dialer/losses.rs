//! Paths that a dial loses: how long it waits before it begins again, and when their end is the peer's answer.
//!
//! Without a wait, a peer that closes what it accepts makes the dial begin again in each round trip.

use std::time::{Duration, Instant};

/// A path that lives this long was good: its end proves nothing about the next path.
const STABLE: Duration = Duration::from_secs(10);

/// The first backoff after a path that was not good. It doubles with each, after the first one, which may be chance.
const WAIT_MIN: Duration = Duration::from_millis(250);

/// The longest backoff.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// How many connections in a row a peer closes right after their handshakes before that is a refusal. A single one may be the end
/// of the peer's program.
pub(crate) const REFUSALS: u32 = 2;

/// How many paths in a row the peer closes soon before the dial ends.
const CLOSED: u32 = 5;

/// What the end of a connection says about the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// The peer closed it before it answered anything: so does a peer that does not admit this node.
    Refused,
    /// The peer closed it.
    Closed,
    /// Nothing: it broke, or this node closed it.
    Lost,
}

/// The paths that one dial has lost in a row.
#[derive(Debug, Default)]
pub(super) struct Losses {
    since: Option<Instant>,
    lost: u32,
    closed: u32,
    refused: u32,
    reason: String,
    again_at: Option<Instant>,
}

impl Losses {
    /// There is a path.
    pub(super) fn connected(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.again_at = None;
    }

    /// The last path is gone.
    pub(super) fn lost(&mut self, farewell: Farewell, reason: String, now: Instant) {
        if self.since.take().is_none_or(|since| since + STABLE <= now) {
            *self = Self::default();
        }
        let wait = match self.lost {
            0 => Duration::ZERO,
            n => (WAIT_MIN * 2_u32.saturating_pow(n - 1)).min(WAIT_MAX),
        };
        self.lost += 1;
        self.closed += u32::from(farewell != Farewell::Lost);
        self.refused = match farewell {
            Farewell::Refused => self.refused + 1,
            Farewell::Closed | Farewell::Lost => 0,
        };
        self.reason = reason;
        self.again_at = Some(now + wait);
    }

    /// Whether to begin again now; then the wait is over.
    pub(super) fn begins_again(&mut self, now: Instant) -> bool {
        self.again_at.take_if(|at| *at <= now).is_some()
    }

    /// Until when the dial waits.
    pub(super) const fn waits_until(&self) -> Option<Instant> {
        self.again_at
    }

    /// How many connections in a row the peer has refused, if that ends the dial.
    pub(super) fn refusals(&self) -> Option<u32> {
        (self.refused >= REFUSALS).then_some(self.refused)
    }

    /// Why the dial is over, if the peer has taken paths and closed them.
    pub(super) fn closed(&self) -> Option<String> {
        (self.closed >= CLOSED).then(|| {
            format!(
                "closed by peer: {} times in a row ({})",
                self.closed, self.reason
            )
        })
    }

    /// What the dial has lost, if it has no path.
    pub(super) fn failure(&self) -> Option<String> {
        (self.lost > 0).then(|| format!("the path was lost: {}", self.reason))
    }
}
