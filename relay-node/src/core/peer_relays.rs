//! The other relays: which are connected, which to dial and when.
//!
//! Pure: the time and a jitter between 0 and 1 are arguments. Either of two relays dials the other; a second connection does no
//! harm, and none is dialed while there is one.

use std::{
    collections::{BTreeMap, HashSet},
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
pub(crate) struct Partners(BTreeMap<PeerId, Partner>);

#[derive(Debug)]
struct Partner {
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
    Dialing(ConnectionId),
}

impl Partners {
    /// The relays at these addresses, none of them connected.
    pub(crate) fn new(relays: impl IntoIterator<Item = (PeerId, Multiaddr)>, now: Instant) -> Self {
        let mut partners = BTreeMap::new();
        for (relay, addr) in relays {
            let partner = partners.entry(relay).or_insert_with(|| Partner {
                addrs: Vec::new(),
                open: HashSet::new(),
                state: State::Down(now),
                failures: 0,
            });
            partner.addrs.push(addr);
        }
        Self(partners)
    }

    /// Whether this is one of them.
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.0.contains_key(peer)
    }

    /// Those that are connected.
    pub(crate) fn connected(&self) -> impl Iterator<Item = PeerId> + '_ {
        let open = self
            .0
            .iter()
            .filter(|(_, partner)| !partner.open.is_empty());
        open.map(|(peer, _)| *peer)
    }

    /// The next one to dial; its dial is told with [`Partners::dialing`].
    pub(crate) fn poll(&self, now: Instant) -> Option<(PeerId, Vec<Multiaddr>)> {
        let mut due = self.0.iter().filter(|(_, partner)| {
            partner.open.is_empty()
                && matches!(partner.state, State::Down(retry_at) if retry_at <= now)
        });
        due.next()
            .map(|(peer, partner)| (*peer, partner.addrs.clone()))
    }

    /// When [`Partners::poll`] has something next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let down = self.0.values().filter(|partner| partner.open.is_empty());
        down.filter_map(|partner| match partner.state {
            State::Down(retry_at) => Some(retry_at),
            State::Dialing(_) => None,
        })
        .min()
    }

    /// The relay is being dialed under this connection id.
    pub(crate) fn dialing(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(partner) = self.0.get_mut(peer) {
            partner.state = State::Dialing(connection);
        }
    }

    /// A connection was established. Whether it is with one of the relays. Not only its first counts: a relay that was killed
    /// and is back has a connection left that is not known to be dead.
    pub(crate) fn handle_established(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        now: Instant,
    ) -> bool {
        let Some(partner) = self.0.get_mut(peer) else {
            return false;
        };
        partner.failures = 0;
        if partner.state == State::Dialing(connection) {
            partner.state = State::Down(now);
        }
        partner.open.insert(connection);
        true
    }

    /// A connection was closed. Whether it was the last with one of the relays.
    pub(crate) fn handle_closed(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        now: Instant,
        jitter: f64,
    ) -> bool {
        let Some(partner) = self.0.get_mut(peer) else {
            return false;
        };
        if !partner.open.remove(&connection) || !partner.open.is_empty() {
            return false;
        }
        if let State::Down(retry_at) = &mut partner.state {
            *retry_at = now + backoff(BACKOFF_MIN, BACKOFF_MAX, 0, jitter);
        }
        true
    }

    /// A dial failed. The relay, and how often in a row, if the dial was for one.
    pub(crate) fn handle_dial_failed(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        jitter: f64,
    ) -> Option<(PeerId, u32)> {
        let mut partners = self.0.iter_mut();
        let (peer, partner) =
            partners.find(|(_, partner)| partner.state == State::Dialing(connection))?;
        partner.state =
            State::Down(now + backoff(BACKOFF_MIN, BACKOFF_MAX, partner.failures, jitter));
        partner.failures = partner.failures.saturating_add(1);
        Some((*peer, partner.failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn one() -> (Partners, PeerId, Instant) {
        let (peer, now) = (PeerId::random(), Instant::now());
        let addrs = [
            "/ip4/203.0.113.7/tcp/443",
            "/ip4/203.0.113.7/udp/443/quic-v1",
        ];
        let relays = addrs.map(|addr| (peer, addr.parse().expect("a multiaddr")));
        (Partners::new(relays, now), peer, now)
    }

    #[test]
    fn a_relay_is_dialed_at_all_its_addresses_until_it_is_connected_and_again_when_it_is_lost() {
        let (mut partners, peer, now) = one();
        let (dialed, addrs) = partners.poll(now).expect("a dial");
        assert_eq!((dialed, addrs.len()), (peer, 2));
        partners.dialing(&peer, id(1));
        assert_eq!(partners.poll(now), None);
        assert_eq!(
            partners.handle_dial_failed(id(1), now, 0.0),
            Some((peer, 1))
        );
        assert_eq!(partners.deadline(), Some(now + BACKOFF_MIN));
        let now = now + BACKOFF_MIN;
        partners.dialing(&partners.poll(now).expect("a dial").0, id(2));
        assert!(partners.handle_established(&peer, id(2), now));
        assert_eq!((partners.poll(now), partners.deadline()), (None, None));
        assert!(partners.handle_closed(&peer, id(2), now, 0.0));
        assert_eq!(partners.deadline(), Some(now + BACKOFF_MIN));
    }

    #[test]
    fn a_relay_that_has_dialed_us_is_not_dialed_and_counts_until_its_last_connection_is_closed() {
        let (mut partners, peer, now) = one();
        assert!(partners.handle_established(&peer, id(1), now));
        assert!(partners.handle_established(&peer, id(2), now));
        assert_eq!(partners.poll(now), None);
        assert!(!partners.handle_closed(&peer, id(1), now, 0.0));
        assert_eq!(partners.connected().collect::<Vec<_>>(), [peer]);
        assert!(partners.handle_closed(&peer, id(2), now, 0.0));
        assert!(partners.connected().next().is_none());
    }

    #[test]
    fn strangers_do_not_count_and_waits_have_a_bound() {
        let (mut partners, peer, mut now) = one();
        let stranger = PeerId::random();
        assert!(!partners.contains(&stranger));
        assert!(!partners.handle_established(&stranger, id(9), now));
        assert!(!partners.handle_closed(&stranger, id(9), now, 0.0));
        assert_eq!(partners.handle_dial_failed(id(9), now, 0.0), None);
        for number in 0..40 {
            partners.dialing(&peer, id(number));
            partners.handle_dial_failed(id(number), now, 0.0);
            let at = partners.deadline().expect("it is dialed again");
            assert!(at - now <= BACKOFF_MAX);
            now = at;
        }
    }
}
