//! Peers that this node dialed and has lost: when to dial them again, and over which relay.
//!
//! Pure: the time and a jitter between 0 and 1 are arguments. Only the side that dialed first dials again: that side knows relays
//! that lead to the other side. The other side may know none that leads back. The punch machine decides about the punch that
//! follows.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_daemon::backoff::backoff;

use crate::core::dialer::CIRCUIT_WAIT;

/// The first wait after every way has failed once.
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// The longest wait between two rounds.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A connection that lives this long ends the search that led to it. A connection that is lost earlier does not end the search.
/// So a peer that takes connections and drops them is dialed ever less often, and finally not at all.
const STABLE: Duration = Duration::from_secs(60);

/// How long a lost peer is dialed. A peer that is away for longer counts as gone until a new dial.
const GIVE_UP: Duration = Duration::from_secs(300);

/// The most peers that are remembered; those that are dialed beyond are not dialed again by themselves.
const MAX_PEERS: usize = 4096;

/// What the node is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Dial the peer through this relay.
    DialCircuit {
        /// The peer.
        peer: PeerId,
        /// The relay.
        relay: PeerId,
    },
    /// Dial the peer at the addresses that its dial was given.
    DialDirect {
        /// The peer.
        peer: PeerId,
        /// Its addresses.
        addrs: Vec<Multiaddr>,
    },
    /// Nothing: the peer was dialed for long enough.
    GiveUp {
        /// The peer.
        peer: PeerId,
    },
}

/// The peers to dial again when they are lost.
#[derive(Debug, Default)]
pub(crate) struct Reconnector {
    peers: BTreeMap<PeerId, Peer>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Peer {
    addrs: Vec<Multiaddr>,
    /// The one that led to the peer last is the first.
    relays: Vec<PeerId>,
    /// The search after the last loss, also after it was found.
    search: Option<Search>,
}

/// The dials after a loss.
#[derive(Debug)]
struct Search {
    /// When it is given up.
    until: Instant,
    /// Rounds in which every way has failed.
    rounds: u32,
    /// When the next dial is due.
    at: Instant,
    /// Whether the addresses were dialed in this round.
    addrs_dialed: bool,
    /// The relays that were asked in this round.
    asked: Vec<PeerId>,
    /// Whether nothing can be done before a relay is ready.
    stuck: bool,
    /// When the peer was found.
    found: Option<Instant>,
}

impl Reconnector {
    /// A dial has reached the peer: it is wanted from now on. `relays` are those that may lead to it.
    pub(crate) fn want(
        &mut self,
        peer: PeerId,
        addrs: Vec<Multiaddr>,
        relays: impl IntoIterator<Item = PeerId>,
        last: Option<PeerId>,
    ) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            tracing::debug!(%peer, "not dialed again when it is lost: {MAX_PEERS} others are");
            return;
        }
        let wanted = self.peers.entry(peer).or_insert(Peer {
            addrs: Vec::new(),
            relays: Vec::new(),
            search: None,
        });
        wanted.addrs = addrs;
        wanted.search = None;
        for relay in relays {
            if !wanted.relays.contains(&relay) {
                wanted.relays.push(relay);
            }
        }
        wanted.prefer(last);
    }

    /// Whether the peer is to be dialed again when it is lost.
    pub(crate) fn is_wanted(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// The peer is not dialed again: it has closed the last connection, this node has, or a new dial takes over.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// A connection to the peer is open, over that relay if over any.
    pub(crate) fn handle_connected(&mut self, peer: &PeerId, relay: Option<PeerId>, now: Instant) {
        if let Some(peer) = self.peers.get_mut(peer) {
            if let Some(search) = &mut peer.search {
                search.found.get_or_insert(now);
            }
            peer.prefer(relay);
        }
    }

    /// The last connection to the peer was lost: neither side had closed it.
    pub(crate) fn handle_lost(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        let Some(peer) = self.peers.get_mut(peer) else {
            return;
        };
        match &mut peer.search {
            Some(search) if search.found.is_none_or(|found| now < found + STABLE) => {
                search.found = None;
                search.next_round(now, jitter);
            }
            search => *search = Some(Search::new(now)),
        }
    }

    /// The circuit that was asked for last could not be made: the next relay is asked at once.
    pub(crate) fn handle_failed(&mut self, peer: &PeerId, relay: &PeerId, now: Instant) {
        if let Some(search) = self
            .peers
            .get_mut(peer)
            .and_then(|peer| peer.search.as_mut())
            && search.asked.last() == Some(relay)
        {
            search.at = search.at.min(now);
        }
    }

    /// The next thing to do, until there is none.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Dials the lost peers whose turn it is. `is_ready` returns whether circuits can be asked of a relay.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        is_ready: impl Fn(&PeerId) -> bool,
        mut jitter: impl FnMut() -> f64,
    ) {
        let actions = &mut self.actions;
        self.peers.retain(|id, peer| {
            while peer
                .search
                .as_ref()
                .is_some_and(|search| search.is_due(now))
            {
                let Some(action) = peer.next(*id, now, &is_ready, &mut jitter) else {
                    break;
                };
                let is_over = matches!(action, Action::GiveUp { .. });
                actions.push_back(action);
                if is_over {
                    return false;
                }
            }
            true
        });
    }

    /// When [`Reconnector::handle_timeout`] may have something to do, if nothing else happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let searches = self.peers.values().filter_map(|peer| peer.search.as_ref());
        searches
            .filter(|search| search.found.is_none())
            .map(|search| {
                if search.stuck {
                    search.until
                } else {
                    search.at.min(search.until)
                }
            })
            .min()
    }
}

impl Peer {
    fn prefer(&mut self, relay: Option<PeerId>) {
        let Some(relay) = relay else { return };
        self.relays.retain(|other| *other != relay);
        self.relays.insert(0, relay);
    }

    fn next(
        &mut self,
        id: PeerId,
        now: Instant,
        is_ready: impl Fn(&PeerId) -> bool,
        jitter: impl FnOnce() -> f64,
    ) -> Option<Action> {
        let search = self.search.as_mut()?;
        if search.until <= now {
            return Some(Action::GiveUp { peer: id });
        }
        if !search.addrs_dialed {
            search.addrs_dialed = true;
            if !self.addrs.is_empty() {
                return Some(Action::DialDirect {
                    peer: id,
                    addrs: self.addrs.clone(),
                });
            }
        }
        let next = self
            .relays
            .iter()
            .find(|relay| !search.asked.contains(relay) && is_ready(relay));
        search.stuck = next.is_none() && search.asked.is_empty() && self.addrs.is_empty();
        if let Some(relay) = next {
            search.asked.push(*relay);
            search.at = now + CIRCUIT_WAIT;
            return Some(Action::DialCircuit {
                peer: id,
                relay: *relay,
            });
        }
        if search.stuck {
            return None;
        }
        search.next_round(now, jitter());
        None
    }
}

impl Search {
    fn new(now: Instant) -> Self {
        Self {
            until: now + GIVE_UP,
            rounds: 0,
            at: now,
            addrs_dialed: false,
            asked: Vec::new(),
            stuck: false,
            found: None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.found.is_none() && (self.at <= now || self.until <= now)
    }

    fn next_round(&mut self, now: Instant, jitter: f64) {
        self.rounds += 1;
        self.at = now + backoff(BACKOFF_MIN, BACKOFF_MAX, self.rounds, jitter);
        self.asked.clear();
        self.addrs_dialed = false;
        self.stuck = false;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn circuit(peer: PeerId, relay: PeerId) -> Option<Action> {
        Some(Action::DialCircuit { peer, relay })
    }

    fn poll(
        reconnector: &mut Reconnector,
        now: Instant,
        is_ready: impl Fn(&PeerId) -> bool,
        jitter: f64,
    ) -> Option<Action> {
        reconnector.handle_timeout(now, is_ready, || jitter);
        reconnector.poll_action()
    }

    struct Known {
        reconnector: Reconnector,
        peer: PeerId,
        relays: [PeerId; 2],
        now: Instant,
    }

    /// A peer that was reached over the second of two relays.
    fn known() -> Known {
        let (peer, relays) = (PeerId::random(), [PeerId::random(), PeerId::random()]);
        let mut reconnector = Reconnector::default();
        reconnector.want(peer, Vec::new(), relays, Some(relays[1]));
        Known {
            reconnector,
            peer,
            relays,
            now: Instant::now(),
        }
    }

    #[test]
    fn a_lost_peer_is_dialed_at_once_over_the_relay_that_led_to_it_last_and_then_over_the_next() {
        let Known {
            mut reconnector,
            peer,
            relays: [a, b],
            now,
        } = known();
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
        reconnector.handle_lost(&peer, now, 0.0);
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), circuit(peer, b));
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
        reconnector.handle_failed(&peer, &b, now);
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), circuit(peer, a));
        reconnector.handle_failed(&peer, &a, now);
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
        let again = reconnector.poll_timeout().unwrap();
        assert_eq!(again - now, BACKOFF_MIN);
        assert_eq!(
            poll(&mut reconnector, again, |_| true, 0.0),
            circuit(peer, b)
        );
    }

    #[test]
    fn a_circuit_that_takes_too_long_does_not_keep_the_next_relay_waiting() {
        let Known {
            mut reconnector,
            peer,
            relays: [a, b],
            now,
        } = known();
        reconnector.handle_lost(&peer, now, 0.0);
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), circuit(peer, b));
        let later = reconnector.poll_timeout().unwrap();
        assert_eq!(later - now, CIRCUIT_WAIT);
        assert_eq!(
            poll(&mut reconnector, later, |_| true, 0.0),
            circuit(peer, a)
        );
        // The late failure of the first is no news.
        reconnector.handle_failed(&peer, &b, later);
        assert_eq!(poll(&mut reconnector, later, |_| true, 0.0), None);
    }

    #[test]
    fn without_a_relay_that_is_ready_the_first_that_becomes_so_is_asked() {
        let Known {
            mut reconnector,
            peer,
            relays: [a, _],
            now,
        } = known();
        reconnector.handle_lost(&peer, now, 0.0);
        assert_eq!(poll(&mut reconnector, now, |_| false, 0.0), None);
        assert_eq!(
            reconnector.poll_timeout(),
            Some(now + GIVE_UP),
            "no timer spins meanwhile"
        );
        let later = now + Duration::from_secs(7);
        assert_eq!(
            poll(&mut reconnector, later, |relay| *relay == a, 0.0),
            circuit(peer, a)
        );
    }

    #[test]
    fn a_peer_that_is_back_is_not_dialed_and_neither_is_one_that_nobody_wants() {
        let Known {
            mut reconnector,
            peer,
            now,
            ..
        } = known();
        reconnector.handle_lost(&peer, now, 0.0);
        reconnector.handle_connected(&peer, None, now);
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
        assert_eq!(reconnector.poll_timeout(), None);
        reconnector.handle_lost(&peer, now, 0.0);
        reconnector.forget(&peer);
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
        reconnector.handle_lost(&PeerId::random(), now, 0.0);
        assert_eq!(reconnector.poll_timeout(), None);
    }

    #[test]
    fn a_peer_that_is_lost_again_soon_after_it_was_found_is_dialed_later_and_later() {
        let Known {
            mut reconnector,
            peer,
            mut now,
            ..
        } = known();
        let start = now;
        reconnector.handle_lost(&peer, now, 0.0);
        let mut waits = Vec::new();
        for _ in 0..4 {
            assert!(poll(&mut reconnector, now, |_| true, 0.0).is_some());
            reconnector.handle_connected(&peer, None, now);
            assert_eq!(reconnector.poll_timeout(), None);
            reconnector.handle_lost(&peer, now, 0.0);
            assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
            let at = reconnector.poll_timeout().unwrap();
            waits.push(at - now);
            now = at;
        }
        assert_eq!(waits, [1, 2, 4, 8].map(|factor| BACKOFF_MIN * factor));
        // One that was kept for a while is dialed at once again.
        assert!(poll(&mut reconnector, now, |_| true, 0.0).is_some());
        reconnector.handle_connected(&peer, None, now);
        now += STABLE;
        reconnector.handle_lost(&peer, now, 0.0);
        assert!(poll(&mut reconnector, now, |_| true, 0.0).is_some());
        assert!(now < start + GIVE_UP);
    }

    #[test]
    fn the_relay_that_led_to_the_peer_last_comes_first() {
        let Known {
            mut reconnector,
            peer,
            relays: [a, _],
            now,
        } = known();
        reconnector.handle_connected(&peer, Some(a), now);
        reconnector.handle_lost(&peer, now, 0.0);
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), circuit(peer, a));
    }

    #[test]
    fn given_addresses_are_dialed_in_each_round_also_without_any_relay() {
        let (mut reconnector, peer, now) =
            (Reconnector::default(), PeerId::random(), Instant::now());
        let addrs: Vec<Multiaddr> = vec!["/ip4/198.51.100.7/tcp/443".parse().unwrap()];
        reconnector.want(peer, addrs.clone(), [], None);
        reconnector.handle_lost(&peer, now, 0.0);
        let direct = Some(Action::DialDirect { peer, addrs });
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), direct);
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
        let again = reconnector.poll_timeout().unwrap();
        assert_eq!(poll(&mut reconnector, again, |_| true, 0.0), direct);
    }

    #[test]
    fn a_peer_that_stays_away_is_given_up_and_dialed_ever_less_often_before() {
        let Known {
            mut reconnector,
            peer,
            relays,
            now: start,
        } = known();
        reconnector.handle_lost(&peer, start, 0.0);
        let (mut now, mut dials) = (start, 0);
        let gone = loop {
            match poll(&mut reconnector, now, |_| true, 0.5) {
                Some(Action::DialCircuit { relay, .. }) => {
                    dials += 1;
                    reconnector.handle_failed(&peer, &relay, now);
                }
                Some(Action::GiveUp { .. }) => break now,
                Some(Action::DialDirect { .. }) => panic!("no address was given"),
                None => now = reconnector.poll_timeout().unwrap(),
            }
        };
        assert!(gone - start >= GIVE_UP && gone - start < GIVE_UP + BACKOFF_MAX);
        assert!(dials < 30 * relays.len(), "{dials} dials");
        assert_eq!(reconnector.poll_timeout(), None);
    }

    proptest! {
        #[test]
        fn waits_are_within_their_bounds(rounds in any::<u32>(), jitter in -1.0..2.0_f64) {
            let wait = backoff(BACKOFF_MIN, BACKOFF_MAX, rounds, jitter);
            prop_assert!(wait >= BACKOFF_MIN / 2 && wait <= BACKOFF_MAX);
        }
    }
}
