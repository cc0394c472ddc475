//! Introductions: relays that are asked for one along with the circuit, and the punches that come of them.

use super::{Action, Dialer, Until};
use crate::core::{event::Event, state::PunchStart};

/// Those of one dial.
#[derive(Debug, Default)]
pub(super) struct Introductions {
    /// Relays that were asked and have not answered.
    requests: usize,
    /// Whether a punch runs that came of one.
    is_punched: bool,
    /// The attempts at a punch that did.
    attempts: u32,
}

impl Introductions {
    fn answered(&mut self, start: PunchStart) {
        self.requests = self.requests.saturating_sub(1);
        self.is_punched |= start == PunchStart::Begun;
    }

    fn attempted(&mut self) {
        self.is_punched = false;
        self.attempts += 1;
    }

    /// How many attempts came of one.
    pub(super) const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether something may still come of one.
    pub(super) const fn is_under_way(&self) -> bool {
        self.requests > 0 || self.is_punched
    }

    /// Whether a punch has come of one.
    pub(super) const fn was_punched(&self) -> bool {
        self.is_punched || self.attempts > 0
    }

    /// The dial begins again. What is under way goes on.
    pub(super) const fn again(&mut self) {
        self.attempts = 0;
    }
}

impl Dialer {
    /// Whether an introduction would be of use.
    pub fn wants_introduction(&self) -> bool {
        self.path.is_none() && self.punches && self.request.until == Until::Direct
    }

    /// A relay is being asked for an introduction.
    pub fn await_introduction(&mut self) {
        self.introductions.requests += 1;
    }

    /// The relay has answered, or will not. [`Dialer::handle_introduced_attempt`] reports the end of a punch that has begun.
    pub fn handle_introduction_reply(&mut self, start: PunchStart) {
        self.introductions.answered(start);
    }

    /// An attempt that came of an introduction is over.
    pub fn handle_introduced_attempt(&mut self, attempt: Event) {
        self.introductions.attempted();
        self.attempts += 1;
        self.actions.push_back(Action::Report(attempt));
    }
}
