//! The other relays: which are connected, which to dial and when.
//!
//! Either of two relays dials the other; a second connection does no harm, and none is dialed while there is one.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_daemon::backoff::backoff;

/// First wait after a connection was lost or could not be made.
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// The longest one: a relay that comes back has the records of the others within it.
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// The configured relays.
#[derive(Debug)]
pub(crate) struct PeerRelays {
    relays: BTreeMap<PeerId, PeerRelay>,
    dials: VecDeque<Dial>,
    events: VecDeque<PeerRelayEvent>,
}

/// A relay that is to be dialed at these addresses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    pub(crate) relay: PeerId,
    pub(crate) addrs: Vec<Multiaddr>,
}

/// What has become of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PeerRelayEvent {
    /// A connection with it was established. Not only the first counts: a relay that was killed and is back has a connection left
    /// that is not known to be dead.
    Connected(PeerId),
    /// Its last connection was closed.
    Lost(PeerId),
    /// A dial has failed, and that many in a row.
    Unreachable(PeerId, u32),
}

/// Which side made a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// This relay.
    Dialed,
    /// The other side.
    Accepted,
}

#[derive(Debug)]
struct PeerRelay {
    addrs: Vec<Multiaddr>,
    open: HashSet<ConnectionId>,
    state: State,
    /// Dials in a row that failed.
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// To be dialed then, if nothing is open.
    Down(Instant),
    /// Dialed, without an outcome yet.
    Dialing,
}

impl PeerRelays {
    /// The relays at these addresses, none of them connected.
    pub(crate) fn new(relays: impl IntoIterator<Item = (PeerId, Multiaddr)>, now: Instant) -> Self {
        let mut known = BTreeMap::new();
        for (relay, addr) in relays {
            let relay = known.entry(relay).or_insert_with(|| PeerRelay {
                addrs: Vec::new(),
                open: HashSet::new(),
                state: State::Down(now),
                failures: 0,
            });
            relay.addrs.push(addr);
        }
        Self {
            relays: known,
            dials: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Whether this is one of them.
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.relays.contains_key(peer)
    }

    /// Those that are connected.
    pub(crate) fn connected(&self) -> impl Iterator<Item = PeerId> + '_ {
        let open = self
            .relays
            .iter()
            .filter(|(_, relay)| !relay.open.is_empty());
        open.map(|(peer, _)| *peer)
    }

    /// A connection was established.
    pub(crate) fn handle_established(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        side: Side,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get_mut(&peer) else {
            return;
        };
        relay.failures = 0;
        if side == Side::Dialed {
            relay.state = State::Down(now);
        }
        relay.open.insert(connection);
        self.events.push_back(PeerRelayEvent::Connected(peer));
    }

    /// A connection was closed. `jitter` is between 0 and 1.
    pub(crate) fn handle_closed(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        now: Instant,
        jitter: f64,
    ) {
        let Some(relay) = self.relays.get_mut(&peer) else {
            return;
        };
        if !relay.open.remove(&connection) || !relay.open.is_empty() {
            return;
        }
        if let State::Down(retry_at) = &mut relay.state {
            *retry_at = now + backoff(BACKOFF_MIN, BACKOFF_MAX, 0, jitter);
        }
        self.events.push_back(PeerRelayEvent::Lost(peer));
    }

    /// A dial failed. `jitter` is between 0 and 1.
    pub(crate) fn handle_dial_failed(&mut self, peer: PeerId, now: Instant, jitter: f64) {
        let Some(relay) = self.relays.get_mut(&peer) else {
            return;
        };
        if relay.state != State::Dialing {
            return;
        }
        relay.state = State::Down(now + backoff(BACKOFF_MIN, BACKOFF_MAX, relay.failures, jitter));
        relay.failures = relay.failures.saturating_add(1);
        let event = PeerRelayEvent::Unreachable(peer, relay.failures);
        self.events.push_back(event);
    }

    /// Dials the relays whose turn it is.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for (peer, relay) in &mut self.relays {
            if relay.open.is_empty()
                && matches!(relay.state, State::Down(retry_at) if retry_at <= now)
            {
                relay.state = State::Dialing;
                self.dials.push_back(Dial {
                    relay: *peer,
                    addrs: relay.addrs.clone(),
                });
            }
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let down = self.relays.values().filter(|relay| relay.open.is_empty());
        down.filter_map(|relay| match relay.state {
            State::Down(retry_at) => Some(retry_at),
            State::Dialing => None,
        })
        .min()
    }

    /// The next dial.
    pub(crate) fn poll_action(&mut self) -> Option<Dial> {
        self.dials.pop_front()
    }

    /// What came of it.
    pub(crate) fn poll_event(&mut self) -> Option<PeerRelayEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn one() -> (PeerRelays, PeerId, Instant) {
        let (peer, now) = (PeerId::random(), Instant::now());
        let addrs = [
            "/ip4/203.0.113.7/tcp/443",
            "/ip4/203.0.113.7/udp/443/quic-v1",
        ];
        let relays = addrs.map(|addr| (peer, addr.parse().expect("a multiaddr")));
        (PeerRelays::new(relays, now), peer, now)
    }

    fn dial(relays: &mut PeerRelays, now: Instant) -> Option<Dial> {
        relays.handle_timeout(now);
        relays.poll_action()
    }

    #[test]
    fn a_relay_is_dialed_at_all_its_addresses_until_it_is_connected_and_again_when_it_is_lost() {
        let (mut relays, peer, now) = one();
        assert_eq!(relays.poll_timeout(), Some(now));
        let dialed = dial(&mut relays, now).expect("a dial");
        assert_eq!((dialed.relay, dialed.addrs.len()), (peer, 2));
        assert_eq!(dial(&mut relays, now), None);
        relays.handle_dial_failed(peer, now, 0.0);
        assert_eq!(
            relays.poll_event(),
            Some(PeerRelayEvent::Unreachable(peer, 1))
        );
        relays.handle_dial_failed(peer, now, 0.0);
        assert_eq!(relays.poll_event(), None, "one dial fails once");
        assert_eq!(relays.poll_timeout(), Some(now + BACKOFF_MIN));
        let now = now + BACKOFF_MIN;
        assert!(dial(&mut relays, now).is_some());
        relays.handle_established(peer, id(2), Side::Dialed, now);
        assert_eq!(relays.poll_event(), Some(PeerRelayEvent::Connected(peer)));
        assert_eq!(
            (dial(&mut relays, now), relays.poll_timeout()),
            (None, None)
        );
        relays.handle_closed(peer, id(2), now, 0.0);
        assert_eq!(relays.poll_event(), Some(PeerRelayEvent::Lost(peer)));
        assert_eq!(relays.poll_timeout(), Some(now + BACKOFF_MIN));
    }

    #[test]
    fn a_relay_that_has_dialed_us_is_not_dialed_and_counts_until_its_last_connection_is_closed() {
        let (mut relays, peer, now) = one();
        for number in [1, 2] {
            relays.handle_established(peer, id(number), Side::Accepted, now);
            assert_eq!(relays.poll_event(), Some(PeerRelayEvent::Connected(peer)));
        }
        assert_eq!(dial(&mut relays, now), None);
        relays.handle_closed(peer, id(1), now, 0.0);
        assert_eq!(relays.poll_event(), None);
        assert_eq!(relays.connected().collect::<Vec<_>>(), [peer]);
        relays.handle_closed(peer, id(2), now, 0.0);
        assert_eq!(relays.poll_event(), Some(PeerRelayEvent::Lost(peer)));
        assert!(relays.connected().next().is_none());
    }

    #[test]
    fn a_dial_that_is_overtaken_by_a_connection_of_the_other_side_still_has_its_outcome() {
        let (mut relays, peer, now) = one();
        assert!(dial(&mut relays, now).is_some());
        relays.handle_established(peer, id(1), Side::Accepted, now);
        relays.handle_closed(peer, id(1), now, 0.0);
        assert_eq!(relays.poll_timeout(), None, "the dial is still under way");
        relays.handle_dial_failed(peer, now, 0.0);
        assert_eq!(relays.poll_timeout(), Some(now + BACKOFF_MIN));
    }

    #[test]
    fn strangers_do_not_count_and_waits_have_a_bound() {
        let (mut relays, peer, mut now) = one();
        let stranger = PeerId::random();
        assert!(!relays.contains(&stranger));
        relays.handle_established(stranger, id(9), Side::Accepted, now);
        relays.handle_closed(stranger, id(9), now, 0.0);
        relays.handle_dial_failed(stranger, now, 0.0);
        assert_eq!(relays.poll_event(), None);
        for _ in 0..40 {
            assert!(dial(&mut relays, now).is_some());
            relays.handle_dial_failed(peer, now, 0.0);
            let at = relays.poll_timeout().expect("it is dialed again");
            assert!(at - now <= BACKOFF_MAX);
            now = at;
        }
    }
}
