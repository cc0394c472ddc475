//! Mappings that nobody is asked for: traffic from the port to a relay keeps what the NAT gives, and the relay says what that is.
//!
//! This is the last resort of `auto`: no router has answered, or the one that does has refused a port. Whether anybody gets in
//! through such a mapping depends on the NAT's filtering. A check from outside shows it, as it does for every other mapping.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Mappings, REFUSED,
    interface::{HELD, Inside, Method},
    search::Search,
    waiting::Wait,
};

/// A router that refuses, or that was not there, is asked again after this long while ports are held.
const AGAIN: Duration = Duration::from_secs(600);

impl Mappings {
    /// A relay has answered to the port itself, and sees it there; `None` if none has answered.
    pub(crate) fn handle_held(&mut self, inside: Inside, seen: Option<SocketAddr>, now: Instant) {
        let is_held = self.search == Search::Found(Method::Hold);
        let lease = self.leases.get(&inside);
        let is_asked =
            lease.is_some_and(|lease| lease.is_asked() && (is_held || lease.is_held(now)));
        match (seen, is_asked) {
            (Some(external), true) => self.granted(inside, external, HELD, Method::Hold, now),
            (None, true) => self.wait(inside, Wait::Relay),
            (_, false) => {}
        }
        self.handle_timeout(now);
    }

    /// No router has answered: ports are held, until one is looked for again.
    pub(super) fn begin_hold(&mut self, now: Instant) {
        if self.methods.contains(&Method::Hold) {
            self.search = Search::Found(Method::Hold);
            self.look_again = (self.methods.len() > 1).then(|| now + AGAIN);
        }
    }

    /// Looks for a router again if that is due.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.look_again.is_some_and(|at| at <= now) {
            self.look_again = None;
            self.search = Search::Idle(Some(now));
        }
    }

    /// How a port is asked for, where the router is asked by `found`.
    pub(super) fn method_of(&self, inside: Inside, found: Method, now: Instant) -> Method {
        let lease = self.leases.get(&inside);
        match lease.is_some_and(|lease| lease.is_held(now)) {
            true => Method::Hold,
            false => found,
        }
    }

    /// A port that this way does not map is held if it may be, and else rests.
    pub(super) fn refuse(&mut self, inside: Inside, now: Instant) {
        let may_hold =
            self.methods.contains(&Method::Hold) && self.search != Search::Found(Method::Hold);
        if let Some(lease) = self.leases.get_mut(&inside) {
            match may_hold && !lease.is_held(now) {
                true => lease.hold(now, now + AGAIN),
                false => lease.rest_until(now + REFUSED),
            }
        }
    }
}
