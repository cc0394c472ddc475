//! A second leg for one that has another port than the punch port.
//!
//! TCP takes another port where the kernel, or a NAT on the way, still has an earlier connection of the punch port. The relay then sees no
//! mapping of the punch port. The first leg carries circuits, so it stays. Another one is dialed from the punch port until that works.

use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;

use super::{
    RelayKeeper,
    leg::{Leg, State},
};

/// When a second leg is dialed first: a port that was only too early for a NAT answers by then.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// When it is dialed again: as long as Linux's conntrack remembers a connection whose data nobody acknowledges
/// (`nf_conntrack_tcp_timeout_unacknowledged`), and a little.
pub(super) const AGAIN: Duration = Duration::from_secs(310);

impl RelayKeeper {
    /// A leg is up, from the punch port of its transport and family or from another port. Returns whether its connection is of no use: it
    /// is a second one that has another port as well.
    pub(crate) fn handle_port(
        &mut self,
        connection: ConnectionId,
        is_punch: bool,
        now: Instant,
    ) -> bool {
        let mut legs = self.legs.iter_mut();
        let Some(leg) = legs.find(|leg| leg.connection() == Some(connection)) else {
            return false;
        };
        if leg.is_second {
            if !is_punch {
                let retry_at = now + AGAIN;
                leg.state = State::Down { retry_at };
            }
            return !is_punch;
        }
        let second = leg.second(now + SOON);
        if is_punch {
            self.drop_idle_second(&second);
        } else if !self.legs.iter().any(|leg| leg.is_second_with(&second)) {
            self.legs.push(second);
        }
        false
    }

    /// The first leg has the punch port, or is down: a second one to the same address is not dialed.
    pub(super) fn drop_idle_second(&mut self, of: &Leg) {
        let is_idle = |leg: &Leg| leg.is_second_with(of) && matches!(leg.state, State::Down { .. });
        // It is behind all that are configured, so their numbers stay.
        self.legs.retain(|leg| !is_idle(leg));
    }
}
