//! Whether another host uses the key of this node. Pure.
//!
//! Two see it. A relay at which both hosts hold a reservation sends notices ([`shared_key`]). A place that a dial finds may answer with
//! this node's own id. That is this node itself if the dial came back: then the node meets itself on an inbound connection at the same
//! moment. If it does not, another host has the key.
//!
//! What was seen fades: see decision 0227.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::shared_key;

/// The two ends of a connection to oneself learn of each other within this time.
const AT_ONCE: Duration = Duration::from_secs(2);

/// How long a place counts that has answered with the own id. Only another dial looks again.
const PLACE_LASTS: Duration = Duration::from_secs(600);

/// How long after a report of another host the next one may be made, whatever a relay sends.
const PAUSE: Duration = Duration::from_secs(300);

/// Another host that uses the key of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OtherHost {
    /// Where it is.
    pub(crate) at: SocketAddr,
    /// The relay that sees it; `None` if a dial of this node has found it.
    pub(crate) relay: Option<PeerId>,
}

/// What was seen of this node's own id elsewhere.
#[derive(Debug, Default)]
pub(crate) struct OwnKey {
    /// Where it has answered, and when that is judged.
    answered: Option<(SocketAddr, Instant)>,
    met_itself: Option<Instant>,
    /// Where another host was found, and until when that counts.
    found: Option<(SocketAddr, Instant)>,
    /// What relays have sent on the connections to them, and until when that counts.
    notices: BTreeMap<ConnectionId, (OtherHost, Instant)>,
    is_reported: bool,
    /// When the next report of another host may be made.
    next_report: Option<Instant>,
}

impl OwnKey {
    /// This node's own id has answered at an address that this host does not have.
    pub(crate) fn handle_answered(&mut self, at: SocketAddr, now: Instant) {
        let came_back = self.met_itself.is_some_and(|met| now < met + AT_ONCE);
        if !came_back {
            self.answered = Some((at, now + AT_ONCE));
        }
    }

    /// An inbound connection was this node's own.
    pub(crate) fn handle_met_itself(&mut self, now: Instant) {
        self.met_itself = Some(now);
        self.answered = None;
    }

    /// A relay of this node sees another host at that place.
    pub(crate) fn handle_notice(
        &mut self,
        relay: PeerId,
        connection: ConnectionId,
        at: SocketAddr,
        now: Instant,
    ) {
        let relay = Some(relay);
        let until = now + shared_key::LASTS;
        self.notices
            .insert(connection, (OtherHost { at, relay }, until));
    }

    /// The connection is closed.
    pub(crate) fn handle_closed(&mut self, connection: ConnectionId) {
        self.notices.remove(&connection);
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let fades = self.notices.values().map(|(_, until)| *until);
        let found = self.found.iter().map(|(_, until)| *until);
        let judged = self.answered.iter().map(|(_, judged)| *judged);
        let is_news = !self.is_reported && self.other_host().is_some();
        let report = self.next_report.filter(|_| is_news);
        fades.chain(found).chain(judged).chain(report).min()
    }

    /// Returns what is to be reported: another host, or that there is none any more.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Option<OtherHost>> {
        if let Some((at, _)) = self.answered.take_if(|(_, judged)| *judged <= now) {
            self.found = Some((at, now + PLACE_LASTS));
        }
        self.found.take_if(|(_, until)| *until <= now);
        self.notices.retain(|_, (_, until)| now < *until);
        let other = self.other_host();
        let waits = other.is_some() && self.next_report.is_some_and(|at| now < at);
        if self.is_reported == other.is_some() || waits {
            return None;
        }
        self.is_reported = other.is_some();
        if self.is_reported {
            self.next_report = Some(now + PAUSE);
        }
        Some(other)
    }

    /// Another host that has the key now.
    pub(crate) fn other_host(&self) -> Option<OtherHost> {
        let seen = self.notices.values().map(|(other, _)| *other).next();
        let found = || self.found.map(|(at, _)| OtherHost { at, relay: None });
        seen.or_else(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Duration = Duration::from_secs(15);

    fn place(host: u8) -> SocketAddr {
        ([192, 0, 2, host], 443).into()
    }

    fn found(at: SocketAddr) -> OtherHost {
        OtherHost { at, relay: None }
    }

    #[test]
    fn the_own_id_at_another_host_is_reported_once_and_a_dial_that_came_back_is_not() {
        let (at, mut key, mut now) = (place(7), OwnKey::default(), Instant::now());
        // Through the address of a service, before and after the inbound end is seen.
        key.handle_answered(at, now);
        key.handle_met_itself(now + AT_ONCE / 2);
        assert_eq!(
            (key.handle_timeout(now + AT_ONCE), key.poll_timeout()),
            (None, None)
        );
        key.handle_answered(at, now + AT_ONCE);
        assert_eq!(key.poll_timeout(), None);

        now += 4 * AT_ONCE;
        key.handle_answered(at, now);
        assert_eq!(key.handle_timeout(now), None);
        assert_eq!(key.poll_timeout(), Some(now + AT_ONCE));
        now += AT_ONCE;
        assert_eq!(key.handle_timeout(now), Some(Some(found(at))));
        key.handle_answered(at, now);
        now += AT_ONCE;
        assert_eq!(key.handle_timeout(now), None);
        assert_eq!(key.other_host(), Some(found(at)));
        assert_eq!(key.poll_timeout(), Some(now + PLACE_LASTS));
        assert_eq!(key.handle_timeout(now + PLACE_LASTS), Some(None));
        assert_eq!((key.other_host(), key.poll_timeout()), (None, None));
    }

    #[test]
    fn what_a_relay_sees_holds_while_it_repeats_it_and_ends_with_the_connection() {
        let (relay, [one, other]) = (PeerId::random(), [1, 2].map(ConnectionId::new_unchecked));
        let (mut key, start) = (OwnKey::default(), Instant::now());
        let mut now = start;
        let mut reports = Vec::new();
        for _ in 0..100 {
            key.handle_notice(relay, one, place(7), now);
            key.handle_notice(relay, other, place(7), now);
            reports.extend(key.handle_timeout(now));
            now += PING;
        }
        let seen = OtherHost {
            at: place(7),
            relay: Some(relay),
        };
        assert_eq!(reports, [Some(seen)]);
        key.handle_closed(one);
        assert_eq!(key.handle_timeout(now), None);
        assert_eq!(key.other_host(), Some(seen));
        now += shared_key::LASTS;
        assert_eq!(key.handle_timeout(now), Some(None));
        assert_eq!((key.other_host(), key.poll_timeout()), (None, None));

        key.handle_notice(relay, one, place(7), now);
        assert_eq!(key.handle_timeout(now), Some(Some(seen)));
        key.handle_closed(one);
        assert_eq!(key.handle_timeout(now), Some(None));
        key.handle_notice(relay, one, place(7), now);
        assert_eq!(key.handle_timeout(now), None, "the next report waits");
        assert_eq!(key.other_host(), Some(seen));
        assert!(key.poll_timeout() <= Some(now + PAUSE));
    }

    #[test]
    fn a_relay_that_changes_its_mind_causes_two_reports_in_five_minutes() {
        let (relay, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
        let (mut key, start) = (OwnKey::default(), Instant::now());
        let mut reports = Vec::new();
        for second in 0..3000 {
            let now = start + Duration::from_secs(second);
            if second % 2 == 0 {
                key.handle_notice(relay, connection, place(7), now);
            } else {
                key.handle_closed(connection);
            }
            reports.extend(key.handle_timeout(now));
        }
        assert!((2..=20).contains(&reports.len()), "{reports:?}");
        let pairs = reports.chunks(2);
        assert!(pairs.into_iter().all(|pair| pair[0].is_some()));
    }
}
