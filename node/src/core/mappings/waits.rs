//! Reports what ports wait for: each reason once, until there is progress.

use std::time::Instant;

use super::{
    Mappings,
    interface::{Checked, Inside},
    lease::Lease,
    search::Search,
    waiting::Wait,
};

impl Mappings {
    /// What a port waits for, each reason once until there is progress.
    pub(crate) fn poll_wait(&mut self) -> Option<(Inside, Wait)> {
        self.waits.pop_front()
    }

    /// There is nobody to ask: no router, or no port to ask it from.
    pub(crate) fn handle_missing(&mut self, wait: Wait) {
        let waiting = self.leases.iter();
        let waiting = waiting.filter(|(_, lease)| lease.external().is_none());
        let waiting: Vec<_> = waiting.map(|(inside, _)| *inside).collect();
        for inside in waiting {
            self.wait(inside, wait);
        }
    }

    pub(super) fn wait(&mut self, inside: Inside, wait: Wait) {
        let reported = self.reported.entry(inside).or_default();
        if reported.waits.insert(wait) {
            self.waits.push_back((inside, wait));
        }
    }

    /// The port has come further.
    pub(super) fn progress(&mut self, inside: Inside) {
        self.reported.remove(&inside);
    }

    /// Whether the router is silent.
    pub(super) fn note_waits(&mut self, now: Instant) {
        // It rests after questions without an answer.
        if matches!(self.search, Search::Idle(Some(at)) if at > now) {
            self.handle_missing(Wait::Router);
        }
    }

    pub(super) fn note_check(&mut self, inside: Inside, outcome: Checked) {
        let is_proved = self
            .leases
            .get(&inside)
            .and_then(Lease::claim)
            .is_some_and(|claim| claim.verified.is_some());
        let Checked::Unknown(why) = outcome else {
            if let Some(reported) = self.reported.get_mut(&inside) {
                reported.is_unchecked = false;
            }
            return;
        };
        let reported = self.reported.entry(inside).or_default();
        let is_second = std::mem::replace(&mut reported.is_unchecked, true);
        if is_second && !is_proved {
            self.wait(inside, Wait::Check(why));
        }
    }
}
