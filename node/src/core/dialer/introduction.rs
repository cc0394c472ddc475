//! Introductions: relays that are asked for one along with the circuit, and the punches that come of them.

use crate::punch::IntroductionResponse;

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
    pub(super) const fn asked(&mut self) {
        self.requests += 1;
    }

    pub(super) fn answered(&mut self, start: IntroductionResponse) {
        self.requests = self.requests.saturating_sub(1);
        self.is_punched |= start == IntroductionResponse::Punches;
    }

    pub(super) fn attempted(&mut self) {
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
