//! When to ask for the peer's record.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// From an answer that led nowhere to the next question; doubled each time. A peer that comes up registers within a second.
const AGAIN_MIN: Duration = Duration::from_millis(500);

/// The longest of these.
const AGAIN_MAX: Duration = Duration::from_secs(4);

/// The questions of one dial.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// The relays that were connected when one was asked, and so were asked.
    asked: BTreeSet<PeerId>,
    under_way: usize,
    fruitless: u32,
    /// When to ask again.
    again_at: Option<Instant>,
    found: bool,
}

impl Lookup {
    /// A relay is connected. Whether it is to be asked.
    pub(super) fn begin(&mut self, relay: PeerId) -> bool {
        let begins = self.asked.insert(relay);
        if begins {
            self.ask();
        }
        begins
    }

    /// An answer has come, that leads somewhere or not.
    pub(super) fn found(&mut self, leads: bool) {
        self.found |= leads;
    }

    /// The answers to one question have ended.
    pub(super) fn over(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way > 0 {
            return;
        }
        // The dial tries what was found for a while before it asks again whether the peer has moved.
        let wait = match std::mem::take(&mut self.found) {
            true => AGAIN_MAX,
            false => (AGAIN_MIN * 2_u32.saturating_pow(self.fruitless)).min(AGAIN_MAX),
        };
        self.fruitless = self.fruitless.saturating_add(1);
        self.again_at = Some(now + wait);
    }

    /// Whether to ask again now.
    pub(super) fn again(&mut self, now: Instant) -> bool {
        let is_due = self.again_at.is_some_and(|at| at <= now);
        if is_due {
            self.ask();
        }
        is_due
    }

    /// When to ask again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again_at
    }

    /// Whether an answer may still come.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way > 0
    }

    fn ask(&mut self) {
        self.under_way += 1;
        self.again_at = None;
    }
}
