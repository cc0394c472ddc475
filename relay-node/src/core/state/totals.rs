//! How much there is of what, for metrics and the status.

use std::time::{Duration, Instant, SystemTime};

use libp2p::swarm::ConnectionId;
use p2pnode_protocol::{Family, Transport};

use super::RelayState;

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Reservations held, by connection.
    pub reservations: usize,
    /// Circuits open.
    pub circuits: usize,
    /// Records kept.
    pub records: usize,
    /// Peers that are all seen at one address, because a NAT stands in front of the relay.
    pub translated_peers: usize,
    /// Keys that are in use on two hosts.
    pub shared_keys: usize,
}

/// Who may use the relay, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessTotals {
    /// Whether any peer may.
    pub open: bool,
    /// Peers that `access.allow` names.
    pub allowed: usize,
    /// Whether join tokens are taken.
    pub tokens: bool,
    /// Tokens that are revoked.
    pub revoked: usize,
    /// Connected peers that a token admits.
    pub by_token: usize,
    /// Connected peers that are not admitted.
    pub waiting: usize,
}

impl RelayState {
    /// How much there is.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            reservations: self.policy.reservations(),
            circuits: self.policy.circuits(),
            records: self.records.len(),
            translated_peers: self.translated().map_or(0, |of| of.peers),
            shared_keys: self.twins.shared(),
        }
    }

    /// Who may use the relay.
    #[must_use]
    pub fn access_totals(&self, wall: SystemTime) -> AccessTotals {
        let rules = self.admission.rules();
        AccessTotals {
            open: rules.are_open(),
            allowed: rules.allowed(),
            tokens: rules.take_tokens(),
            revoked: rules.revoked(),
            by_token: self.admission.by_token(wall),
            waiting: self.admission.waiting(wall),
        }
    }

    /// How long the drain still takes if nothing ends before; `None` if the relay was not asked to end.
    #[must_use]
    pub fn drain_left(&self, now: Instant) -> Option<Duration> {
        self.drain.as_ref().map(|drain| drain.left(now))
    }

    /// How the open connections travel, one entry for each of which it is known.
    pub fn connection_legs(&self) -> impl Iterator<Item = (Transport, Family)> {
        self.legs(self.connections.ids())
    }

    /// How the connections travel that hold reservations.
    pub fn reservation_legs(&self) -> impl Iterator<Item = (Transport, Family)> {
        self.legs(self.policy.held())
    }

    fn legs(
        &self,
        connections: impl Iterator<Item = ConnectionId>,
    ) -> impl Iterator<Item = (Transport, Family)> {
        let legs = connections.filter_map(|connection| self.connections.leg(connection));
        legs.map(|leg| (leg.transport, leg.family))
    }
}
