//! Checks from outside: which claims are due, and what the outcomes mean.
//!
//! A relay sends a nonce from a port that this node has never contacted. Three nonces in a row that do not arrive withdraw the
//! mapping. One that was proved before may have ended with the router. The router is asked again, and the mapping is checked once
//! more before it is released.

use std::{net::SocketAddr, time::Instant};

use super::{
    Mappings,
    interface::{Action, Checked, Claim, Event, Inside, Lost, Method, RouterFacts},
    lease::{Lease, Verdict},
    waiting::Wait,
};

impl Mappings {
    /// What the router claims, and which of that is proved.
    pub(crate) fn claims(&self) -> impl Iterator<Item = Claim> {
        self.leases.values().filter_map(Lease::claim)
    }

    /// What the router has shown.
    pub(crate) const fn router(&self) -> &RouterFacts {
        &self.router
    }

    /// The check of a claim has ended.
    pub(crate) fn handle_checked(
        &mut self,
        inside: Inside,
        external: SocketAddr,
        outcome: Checked,
        now: Instant,
    ) {
        let lease = self.leases.get_mut(&inside);
        let Some(lease) = lease.filter(|lease| lease.external() == Some(external)) else {
            return;
        };
        let verdict = lease.checked(outcome, now);
        let granted = lease.claim();
        self.note_check(inside, outcome);
        match verdict {
            Verdict::Same => {}
            Verdict::Proved(at) => {
                self.router.forget(inside);
                self.progress(inside);
                self.events.push_back(Event::Proved { inside, at });
            }
            Verdict::Doubted => self.events.push_back(Event::Doubted { inside }),
            Verdict::Wrong => {
                if let Some(granted) = granted {
                    self.wait(inside, Wait::Open(granted.method));
                    if granted.method != Method::Hold {
                        self.router.found_dead(granted);
                    }
                }
                self.release(inside);
                self.lose(inside, Lost::Unverified);
                self.refuse(inside, now);
            }
        }
        self.handle_timeout(now);
    }

    pub(super) fn check_due(&mut self, now: Instant) {
        for (inside, lease) in &mut self.leases {
            if let Some((external, relay)) = lease.check(now) {
                self.actions.push_back(Action::Check {
                    inside: *inside,
                    external,
                    relay,
                });
            }
        }
    }
}
