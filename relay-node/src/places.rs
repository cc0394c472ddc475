//! Where peers can be asked for circuits: the connections on which they hold reservations, and their IP families.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::Family;

/// The connections of a relay.
#[derive(Debug, Default)]
pub(crate) struct Places(HashMap<ConnectionId, Place>);

#[derive(Debug)]
struct Place {
    family: Option<Family>,
    /// Who holds a reservation here.
    holder: Option<PeerId>,
}

impl Places {
    /// A connection comes in at this address.
    pub(crate) fn opened(&mut self, connection: ConnectionId, local: &Multiaddr) {
        let family = Family::of(local);
        let holder = None;
        self.0.insert(connection, Place { family, holder });
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }

    /// A reservation was granted on this connection, or renewed.
    pub(crate) fn reserved(&mut self, connection: ConnectionId, holder: PeerId) {
        if let Some(place) = self.0.get_mut(&connection) {
            place.holder = Some(holder);
        }
    }

    /// The reservation on this connection has ended.
    pub(crate) fn ended(&mut self, connection: ConnectionId) {
        if let Some(place) = self.0.get_mut(&connection) {
            place.holder = None;
        }
    }

    /// Where to ask the holder of the reservation on `chosen` for a circuit that comes over `source`: on a connection of the
    /// same family, if it holds a reservation on one, and on the newest of these. A peer that was killed and started again has
    /// an older one, too, until that is missed.
    pub(crate) fn best(&self, chosen: ConnectionId, source: ConnectionId) -> ConnectionId {
        let wanted = self.0.get(&source).and_then(|place| place.family);
        let Some(holder) = self.0.get(&chosen).and_then(|place| place.holder) else {
            return chosen;
        };
        let held = self
            .0
            .iter()
            .filter(|(_, place)| place.holder == Some(holder));
        held.max_by_key(|(id, place)| (place.family == wanted, **id))
            .map_or(chosen, |(id, _)| *id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    /// A source on 1 (IPv4) and 2 (IPv6), a destination on 3 (IPv4) and 4 (IPv6), somebody else on 5 (IPv4).
    fn places() -> (Places, PeerId) {
        let (mut places, destination) = (Places::default(), PeerId::random());
        for (number, ip) in [
            (1, "ip4/192.0.2.1"),
            (2, "ip6/2001:db8::1"),
            (3, "ip4/192.0.2.1"),
            (4, "ip6/2001:db8::1"),
            (5, "ip4/192.0.2.1"),
        ] {
            places.opened(id(number), &format!("/{ip}/tcp/443").parse().unwrap());
        }
        places.reserved(id(5), PeerId::random());
        places.reserved(id(3), destination);
        (places, destination)
    }

    #[test]
    fn a_circuit_keeps_its_family_where_the_destination_has_a_reservation_in_it() {
        let (mut places, destination) = places();
        assert_eq!(places.best(id(3), id(2)), id(3), "there is no other");
        places.reserved(id(4), destination);
        assert_eq!(places.best(id(3), id(2)), id(4));
        assert_eq!(places.best(id(4), id(2)), id(4));
        assert_eq!(places.best(id(4), id(1)), id(3), "and nobody else's");
    }

    #[test]
    fn of_two_reservations_in_a_family_the_newer_is_used() {
        let (mut places, destination) = places();
        places.opened(id(6), &"/ip4/192.0.2.1/tcp/443".parse().unwrap());
        places.reserved(id(6), destination);
        assert_eq!(places.best(id(3), id(1)), id(6));
        places.reserved(id(4), destination);
        assert_eq!(places.best(id(4), id(1)), id(6));
        assert_eq!(places.best(id(6), id(2)), id(4));
    }

    #[test]
    fn a_reservation_that_has_ended_is_not_used() {
        let (mut places, destination) = places();
        places.reserved(id(4), destination);
        places.ended(id(4));
        assert_eq!(places.best(id(3), id(2)), id(3));
        places.reserved(id(4), destination);
        places.closed(id(4));
        assert_eq!(places.best(id(3), id(2)), id(3));
    }
}
