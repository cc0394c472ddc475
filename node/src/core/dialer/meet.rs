//! Introductions: relays that are asked for one along with the circuit, and the punches that come of them.

use super::{Action, Dialer, Until};
use crate::core::event::Event;

/// Those of one dial.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    /// Relays that were asked and have not answered.
    wishes: usize,
    /// Whether a punch runs that came of one.
    is_punched: bool,
    /// The attempts at a punch that did.
    attempts: u32,
}

impl Meeting {
    fn answered(&mut self, is_punched: bool) {
        self.wishes = self.wishes.saturating_sub(1);
        self.is_punched |= is_punched;
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
        self.wishes > 0 || self.is_punched
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
    pub fn wants_to_meet(&self) -> bool {
        self.path.is_none() && self.punches && self.request.until == Until::Direct
    }

    /// A relay is being asked for an introduction.
    pub fn await_meeting(&mut self) {
        self.meeting.wishes += 1;
    }

    /// The relay has answered, or will not; and whether the peer is punched because of it, of which
    /// [`Dialer::handle_introduced_attempt`] tells the end.
    pub fn handle_met(&mut self, is_punched: bool) {
        self.meeting.answered(is_punched);
    }

    /// An attempt that came of an introduction is over.
    pub fn handle_introduced_attempt(&mut self, attempt: Event) {
        self.meeting.attempted();
        self.attempts += 1;
        self.actions.push_back(Action::Tell(attempt));
    }
}
