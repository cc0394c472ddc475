//! The pings of a dial: one at once when the dial is content with its path, and one per second from then on.

use std::time::{Duration, Instant};

use crate::core::peers::PathKind;

/// From one ping to the next: `--count` counts in seconds.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// From a ping whose stream broke to the next.
const AGAIN: Duration = Duration::from_millis(50);

/// How many pings were answered, and when the next is due.
#[derive(Debug)]
pub(super) struct Pings {
    wanted: u32,
    answered: u32,
    state: State,
    /// While no path leads to the peer: when the next ping is missed, and the kind of the last path.
    cut: Option<(Instant, PathKind)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As soon as the dial is content.
    Ready,
    /// Not before then.
    After(Instant),
    /// Sent then; its answer or its failure is awaited.
    Sent(Instant),
}

/// What became of a ping that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PingFailure {
    /// The path was another one when the answer came, or its connection closed: nothing is known of the path that is best
    /// now.
    Stale,
    /// Its connection was lost.
    Lost,
    /// No answer came.
    Missed,
    /// Its stream broke. Most often the connection is ending, and another one is best in a moment.
    Broken,
    /// The peer answered that it does not support ping. The path returns no better answer.
    Unsupported,
}

impl Pings {
    /// `wanted` pings; one even if that is 0.
    pub(super) fn new(wanted: u32) -> Self {
        Self {
            wanted: wanted.max(1),
            answered: 0,
            state: State::Ready,
            cut: None,
        }
    }

    /// Whether every wanted ping was answered.
    pub(super) fn are_done(&self) -> bool {
        self.answered >= self.wanted
    }

    /// Whether one was answered.
    pub(super) const fn have_begun(&self) -> bool {
        self.answered > 0
    }

    /// The path is another one than the last ping went over: one more proves it.
    pub(super) const fn prove(&mut self) {
        if self.answered >= self.wanted {
            self.wanted = self.answered + 1;
            self.state = State::Ready;
        }
    }

    /// The number of the ping that is under way, if one is.
    pub(super) const fn under_way(&self) -> Option<u32> {
        match self.state {
            State::Sent(_) => Some(self.answered + 1),
            State::Ready | State::After(_) => None,
        }
    }

    /// The last path is gone, which was of this kind: from now on each ping is missed that falls due.
    pub(super) fn handle_cut(&mut self, kind: PathKind, now: Instant) {
        if self.have_begun() && !self.are_done() {
            let due = self.deadline().unwrap_or(now + INTERVAL);
            self.cut = Some((due.max(now), kind));
        }
    }

    /// There is a path.
    pub(super) const fn handle_path(&mut self) {
        self.cut = None;
    }

    /// Whether a ping has fallen due while no path leads to the peer. Returns its number, and the kind of the last path.
    pub(super) fn take_missed(&mut self, now: Instant) -> Option<(u32, PathKind)> {
        let (due, kind) = self.cut.take_if(|(due, _)| *due <= now)?;
        self.cut = Some((due + INTERVAL, kind));
        Some((self.answered + 1, kind))
    }

    /// When the next ping is missed, if no path leads to the peer.
    pub(super) fn misses_at(&self) -> Option<Instant> {
        self.cut.map(|(due, _)| due)
    }

    /// Whether a ping is to be sent now; if so it counts as sent.
    pub(super) fn send(&mut self, now: Instant) -> bool {
        let due = match self.state {
            State::Ready => true,
            State::After(at) => at <= now,
            State::Sent(_) => false,
        };
        let send = due && !self.are_done();
        if send {
            self.state = State::Sent(now);
        }
        send
    }

    /// When the next one is due, if none is under way.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::After(at) if !self.are_done() => Some(at),
            State::Ready | State::After(_) | State::Sent(_) => None,
        }
    }

    /// A ping was answered. Returns its number.
    pub(super) fn answered(&mut self) -> u32 {
        self.answered += 1;
        self.wait(INTERVAL);
        self.answered
    }

    /// A ping was not answered.
    pub(super) fn failed(&mut self, failure: PingFailure) {
        match failure {
            PingFailure::Stale | PingFailure::Lost => self.state = State::Ready,
            PingFailure::Missed => self.wait(INTERVAL),
            PingFailure::Broken => self.wait(AGAIN),
            PingFailure::Unsupported => {
                self.answered = self.wanted;
                self.state = State::Ready;
            }
        }
    }

    /// Until then, counted from the last ping.
    fn wait(&mut self, time: Duration) {
        self.state = match self.state {
            State::Sent(at) => State::After(at + time),
            other @ (State::Ready | State::After(_)) => other,
        };
    }
}
