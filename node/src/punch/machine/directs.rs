//! The direct connections of one peer, and which of them lives.

use std::time::{Duration, Instant};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_transports::{Family, Transport};

use super::{Established, Timing};

/// Connections that are younger come of the same dial.
pub(crate) const SIBLINGS: Duration = Duration::from_secs(2);

/// The direct connections of one peer that this node has not asked to close.
#[derive(Debug, Default)]
pub(super) struct Directs {
    live: Vec<Direct>,
    /// When the peer became direct.
    since: Option<Instant>,
    /// When it last got a second connection.
    surplus_since: Option<Instant>,
    newest: Option<Instant>,
}

#[derive(Debug)]
struct Direct {
    connection: ConnectionId,
    since: Instant,
    /// Another one has taken its place.
    is_left: bool,
    /// A stream is on it that cannot move.
    is_used: bool,
    dialed: bool,
    /// `None` if the address names no socket.
    via: Option<(Transport, Family)>,
}

/// The families that the two sides prefer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Preference {
    /// The side that dialed.
    pub(super) dialer: Option<Family>,
    /// The other side.
    pub(super) listener: Option<Family>,
}

/// The place of a connection among those of one peer, smaller first. The fields stand in the order of their importance; equals
/// rank by age. Both sides rank alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Another one has taken its place.
    is_left: bool,
    /// It is not of the family that the dialer prefers.
    against_dialer: bool,
    /// It is not of the family that the listener prefers.
    against_listener: bool,
    /// Its address names no socket.
    is_unknown: bool,
    /// TCP, after QUIC.
    is_tcp: bool,
}

impl Rank {
    fn new(direct: &Direct, preference: Preference) -> Self {
        let via = direct.via;
        let against = |side: Option<Family>| {
            side.is_some_and(|preferred| via.is_none_or(|(_, family)| family != preferred))
        };
        Self {
            is_left: direct.is_left,
            against_dialer: against(preference.dialer),
            against_listener: against(preference.listener),
            is_tcp: via.is_some_and(|(transport, _)| transport == Transport::Tcp),
            is_unknown: via.is_none(),
        }
    }
}

impl Directs {
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Adds a connection; `true` if it is the first.
    pub(super) fn add(&mut self, established: Established, now: Instant) -> bool {
        self.live.push(Direct {
            connection: established.connection,
            since: now,
            is_left: false,
            is_used: false,
            dialed: established.dialed,
            via: established
                .remote
                .map(|candidate| (candidate.transport, candidate.family())),
        });
        self.newest = Some(now);
        if self.live.len() == 2 {
            self.surplus_since = Some(now);
        }
        self.since.get_or_insert(now);
        self.live.len() == 1
    }

    /// The path has moved: a connection that is there now takes the place of the older ones.
    pub(super) fn leave_older(&mut self, now: Instant) {
        for direct in &mut self.live {
            direct.is_left |= direct.since + SIBLINGS < now;
        }
    }

    /// Streams that cannot move are on these connections: they are no surplus.
    pub(super) fn set_used(&mut self, used: &[ConnectionId], now: Instant) {
        let mut is_free = false;
        for direct in &mut self.live {
            let is_used = used.contains(&direct.connection);
            is_free |= direct.is_used && !is_used;
            direct.is_used = is_used;
        }
        if is_free && self.live.len() > 1 {
            self.surplus_since = Some(now);
        }
    }

    /// Removes a connection; `true` if it was the last.
    pub(super) fn remove(&mut self, connection: ConnectionId) -> bool {
        let before = self.live.len();
        self.live.retain(|direct| direct.connection != connection);
        if self.live.len() < 2 {
            self.surplus_since = None;
        }
        if self.live.is_empty() {
            self.since = None;
        }
        before != 0 && self.live.is_empty()
    }

    /// Whether there are connections from both sides: the mark of two dials that crossed.
    pub(super) fn is_crossed(&self) -> bool {
        self.live.iter().any(|d| d.dialed) && self.live.iter().any(|d| !d.dialed)
    }

    /// When a surplus is to be closed: late, as long as it is not known what the peer prefers.
    pub(super) fn surplus_due(
        &self,
        decides: bool,
        is_known: bool,
        timing: &Timing,
    ) -> Option<Instant> {
        let since = self.surplus_since?;
        let newest = self.newest.unwrap_or(since);
        let limit = since + timing.surplus_limit;
        Some(match (decides, is_known) {
            (true, true) => limit.min(newest + timing.surplus_quiet),
            (true, false) => limit,
            (false, _) => since + timing.surplus_fallback,
        })
    }

    /// Whether there are connections of both families.
    pub(super) fn has_both_families(&self) -> bool {
        let has = |family| {
            let mut live = self.live.iter().filter_map(|direct| direct.via);
            live.any(|(_, of)| of == family)
        };
        Family::ALL.into_iter().all(has)
    }

    /// Whether this node dialed all connections; `None` if each side dialed some.
    pub(super) fn are_dialed(&self) -> Option<bool> {
        let first = self.live.first()?.dialed;
        let alike = self.live.iter().all(|direct| direct.dialed == first);
        alike.then_some(first)
    }

    /// Takes out all but the best and those in use; of equals the oldest stays.
    pub(super) fn take_surplus(&mut self, preference: Preference) -> Vec<ConnectionId> {
        let best = self
            .live
            .iter()
            .min_by_key(|direct| Rank::new(direct, preference));
        let Some(best) = best.map(|direct| direct.connection) else {
            return Vec::new();
        };
        let (kept, surplus): (Vec<_>, Vec<_>) = self
            .live
            .drain(..)
            .partition(|d| d.connection == best || d.is_used);
        self.live = kept;
        self.surplus_since = None;
        surplus.into_iter().map(|d| d.connection).collect()
    }
}

/// Whether this side closes the surplus: the one with the smaller peer id.
pub(super) fn decides(local: PeerId, remote: PeerId) -> bool {
    local.to_bytes() < remote.to_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::punch::address::Candidate;

    fn established(number: usize, via: (Transport, Family), dialed: bool) -> Established {
        let (transport, family) = via;
        let socket = match family {
            Family::Ip4 => ([192, 0, 2, 1], 40_000).into(),
            Family::Ip6 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 40_000).into(),
        };
        Established {
            connection: ConnectionId::new_unchecked(number),
            dialed,
            remote: Some(Candidate { transport, socket }),
        }
    }

    fn via() -> impl Strategy<Value = (Transport, Family)> {
        let transport = prop_oneof![Just(Transport::Quic), Just(Transport::Tcp)];
        (transport, prop_oneof![Just(Family::Ip4), Just(Family::Ip6)])
    }

    fn family() -> impl Strategy<Value = Option<Family>> {
        prop_oneof![Just(None), Just(Some(Family::Ip4)), Just(Some(Family::Ip6))]
    }

    /// Which of the connections is left, of those that arrive in this order.
    fn survivor(
        vias: &[(Transport, Family)],
        order: &[usize],
        dialed: bool,
        preference: Preference,
    ) -> usize {
        let mut directs = Directs::default();
        let now = Instant::now();
        for (at, number) in order.iter().enumerate() {
            let established = established(*number, vias[*number], dialed);
            directs.add(established, now + Duration::from_millis(at as u64));
        }
        let closed = directs.take_surplus(preference);
        assert_eq!(closed.len() + 1, vias.len());
        let is_left = |number: &usize| !closed.contains(&ConnectionId::new_unchecked(*number));
        (0..vias.len()).find(is_left).expect("one is left")
    }

    proptest! {
        #[test]
        fn the_dialers_preference_then_the_listeners_decides_in_every_order_and_on_both_sides(
            vias in prop::collection::vec(via(), 1..5),
            dialer in family(),
            listener in family(),
            order in Just(()).prop_perturb(|(), mut rng| rng.next_u64()),
        ) {
            let preference = Preference { dialer, listener };
            let mut shuffled: Vec<usize> = (0..vias.len()).collect();
            fastrand::Rng::with_seed(order).shuffle(&mut shuffled);
            let ours = vias[survivor(&vias, &shuffled, true, preference)];
            let reversed: Vec<usize> = shuffled.into_iter().rev().collect();
            let theirs = vias[survivor(&vias, &reversed, false, preference)];
            prop_assert_eq!(ours.0, theirs.0);
            let has = |family| vias.iter().any(|(_, of)| *of == family);
            let wanted = [dialer, listener].into_iter().flatten().find(|family| has(*family));
            // Without a preference the age decides, and each side sees its own order: one side closes.
            if let Some(family) = wanted {
                prop_assert_eq!((ours.1, theirs.1), (family, family));
            }
            if has(Family::Ip4) != has(Family::Ip6) || wanted.is_none() {
                let quic = vias.iter().any(|(transport, _)| *transport == Transport::Quic);
                prop_assert_eq!(ours.0 == Transport::Quic, quic);
            }
        }

        #[test]
        fn of_equals_the_oldest_stays(via in via(), dialer in family(), count in 2..6_usize) {
            let preference = Preference { dialer, listener: None };
            let order: Vec<usize> = (0..count).rev().collect();
            prop_assert_eq!(survivor(&vec![via; count], &order, true, preference), count - 1);
        }
    }
}
