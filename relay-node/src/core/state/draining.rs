//! The relay's end, once it was asked for: nothing new is taken, and what runs has its time.

use super::{Action, Event, RelayState};
use crate::core::{
    clock::Now,
    drain::{Drain, Remains, Step, spread},
};

impl RelayState {
    /// The relay is asked to end. From now on it refuses every request; [`Action::Stop`] comes when what runs has ended, or its time
    /// is over. Asked twice, it ends once.
    pub fn handle_shutdown(&mut self, now: Now) {
        if self.drain.is_some() {
            return;
        }
        self.policy.drain();
        let over = spread(self.connections.peers());
        self.actions.push_back(Action::AnnounceDrain { over });
        let timeout = self.drain_timeout;
        self.events.push_back(Event::Draining { timeout });
        let drain = Drain::new(self.drain_timeout, self.remains(), now.instant);
        self.drain = Some(drain);
        self.settle_drain(now);
    }

    /// Whether the relay was asked to end.
    #[must_use]
    pub fn drains(&self) -> bool {
        self.drain.is_some()
    }

    fn remains(&self) -> Remains {
        Remains {
            circuits: self.policy.circuits(),
            reservations: self.policy.reservations(),
        }
    }

    pub(super) fn settle_drain(&mut self, now: Now) {
        let remains = self.remains();
        let Some(drain) = &mut self.drain else {
            return;
        };
        drain.handle_remains(remains, now.instant);
        while let Some(step) = drain.poll_event() {
            match step {
                Step::Progress(left) => self.events.push_back(Event::DrainProgress { left }),
                Step::Over => self.actions.push_back(Action::Stop),
            }
        }
    }
}
