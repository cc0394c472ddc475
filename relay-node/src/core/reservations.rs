//! The reservations that are held, by connection: pure, with the time as an argument.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    time::Instant,
};

use libp2p::{PeerId, swarm::ConnectionId};

use p2pnode_protocol::{Network, Source};

use crate::core::source::{decrement_networks, increment_networks};

/// Who holds a reservation on which connection, and until when.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    held: HashMap<ConnectionId, Holder>,
    of_peer: HashMap<PeerId, HashSet<ConnectionId>>,
    of_network: HashMap<Network, usize>,
    ends: BTreeSet<(Instant, ConnectionId)>,
}

#[derive(Debug)]
struct Holder {
    peer: PeerId,
    source: Option<Source>,
    ends: Instant,
}

impl Reservations {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// The connections that hold one.
    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.held.keys().copied()
    }

    /// Whether there is one on this connection.
    pub(crate) fn contains(&self, connection: ConnectionId) -> bool {
        self.held.contains_key(&connection)
    }

    /// The connections on which `peer` holds one.
    pub(crate) fn of_peer(
        &self,
        peer: &PeerId,
    ) -> impl ExactSizeIterator<Item = ConnectionId> + Clone {
        static NONE: std::sync::LazyLock<HashSet<ConnectionId>> =
            std::sync::LazyLock::new(HashSet::new);
        self.of_peer.get(peer).unwrap_or(&NONE).iter().copied()
    }

    /// How many come from each network.
    pub(crate) fn of_networks(&self) -> &HashMap<Network, usize> {
        &self.of_network
    }

    /// `peer` holds one on `connection` until `ends`; if it held one before, that is renewed.
    pub(crate) fn hold(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        source: Option<Source>,
        ends: Instant,
    ) {
        self.release(connection);
        self.of_peer.entry(peer).or_default().insert(connection);
        increment_networks(&mut self.of_network, source);
        self.ends.insert((ends, connection));
        let holder = Holder { peer, source, ends };
        self.held.insert(connection, holder);
    }

    /// The one on `connection` has ended, if there was one: whose it was.
    pub(crate) fn release(&mut self, connection: ConnectionId) -> Option<PeerId> {
        let Holder { peer, source, ends } = self.held.remove(&connection)?;
        self.ends.remove(&(ends, connection));
        if let Entry::Occupied(mut of_peer) = self.of_peer.entry(peer) {
            of_peer.get_mut().remove(&connection);
            if of_peer.get().is_empty() {
                of_peer.remove();
            }
        }
        decrement_networks(&mut self.of_network, source);
        Some(peer)
    }

    /// When the next one ends.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(ends, _)| *ends)
    }

    /// One whose time is up at `now`.
    pub(crate) fn ended(&self, now: Instant) -> Option<ConnectionId> {
        let (ends, connection) = self.ends.first()?;
        (*ends <= now).then_some(*connection)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const HOST: Option<Source> = Some(Source::Ip4(Ipv4Addr::LOCALHOST));

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn a_renewal_is_no_second_reservation_and_moves_its_end() {
        let (mut reservations, peer, now) =
            (Reservations::default(), PeerId::random(), Instant::now());
        let minute = Duration::from_secs(60);
        reservations.hold(id(1), peer, HOST, now + minute);
        reservations.hold(id(1), peer, HOST, now + 2 * minute);
        assert_eq!(reservations.len(), 1);
        assert_eq!(
            reservations.of_networks()[&Network::Ip4(Ipv4Addr::LOCALHOST)],
            1
        );
        assert_eq!(reservations.ended(now + minute), None);
        assert_eq!(reservations.next_end(), Some(now + 2 * minute));
        assert_eq!(reservations.ended(now + 2 * minute), Some(id(1)));
    }

    #[test]
    fn what_is_released_leaves_nothing_behind() {
        let (mut reservations, now) = (Reservations::default(), Instant::now());
        let peers = [PeerId::random(), PeerId::random()];
        for number in 0..10 {
            reservations.hold(id(number), peers[number % 2], HOST, now);
        }
        assert_eq!(reservations.of_peer(&peers[0]).len(), 5);
        for number in 0..10 {
            assert_eq!(reservations.release(id(number)), Some(peers[number % 2]));
            assert_eq!(reservations.release(id(number)), None);
        }
        assert_eq!(reservations.of_peer(&peers[0]).len(), 0);
        let Reservations {
            held,
            of_peer,
            of_network,
            ends,
        } = reservations;
        assert!(held.is_empty() && of_peer.is_empty() && of_network.is_empty() && ends.is_empty());
    }
}
