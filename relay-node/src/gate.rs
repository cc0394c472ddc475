//! Who gets a reservation, and who a circuit: pure.
//!
//! libp2p's relay has limits of reservations too, and they are lifted: they refuse renewals once the relay is full, so that it
//! loses the peers that it has, and they know no addresses and no drain.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

use libp2p::{PeerId, swarm::ConnectionId};

use crate::{
    config::Limits,
    metrics::Reason,
    source::{PerSource, Source},
};

/// The reservations that are granted, by connection, and what that leaves for others.
#[derive(Debug)]
pub(crate) struct Gate {
    total: usize,
    per_peer: usize,
    per_source: PerSource,
    draining: bool,
    held: HashMap<ConnectionId, Holder>,
    of_peer: HashMap<PeerId, usize>,
    of_source: HashMap<Source, usize>,
}

#[derive(Debug)]
struct Holder {
    peer: PeerId,
    /// `None` if its address is no IP address.
    source: Option<Source>,
    /// Whether the peer was told. Until then the place is only kept.
    told: bool,
}

impl Gate {
    /// A gate that admits within `limits`, of which 0 is none.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            total: limits.reservations,
            per_peer: limits.reservations_per_peer,
            per_source: limits.reservations_per_source,
            draining: false,
            held: HashMap::new(),
            of_peer: HashMap::new(),
            of_source: HashMap::new(),
        }
    }

    /// From now on nothing is granted, and nothing renewed.
    pub(crate) fn close(&mut self) {
        self.draining = true;
    }

    /// Whether `peer` gets the reservation that it asks for on `connection`, and if not, why. What a connection holds is renewed
    /// however full the relay is.
    pub(crate) fn reserve(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        source: Option<Source>,
    ) -> Result<(), Reason> {
        if self.draining {
            return Err(Reason::Draining);
        }
        if self.held.contains_key(&connection) {
            return Ok(());
        }
        let full = |held: usize, limit: usize| limit != 0 && held >= limit;
        if full(self.held.len(), self.total) || full(count(&self.of_peer, &peer), self.per_peer) {
            return Err(Reason::ReservationLimit);
        }
        if let Some(source) = source
            && !self
                .per_source
                .admits(source, count(&self.of_source, &source))
        {
            return Err(Reason::SourceReservationLimit);
        }
        *self.of_peer.entry(peer).or_default() += 1;
        if let Some(source) = source {
            *self.of_source.entry(source).or_default() += 1;
        }
        let holder = Holder {
            peer,
            source,
            told: false,
        };
        self.held.insert(connection, holder);
        Ok(())
    }

    /// Whether circuits may be asked for.
    pub(crate) fn takes_circuits(&self) -> bool {
        !self.draining
    }

    /// The peer was told of its reservation on `connection`.
    pub(crate) fn told(&mut self, connection: ConnectionId) {
        if let Some(holder) = self.held.get_mut(&connection) {
            holder.told = true;
        }
    }

    /// The peer could not be told. A reservation of which it was told before stays, as it believes to have it.
    pub(crate) fn untold(&mut self, connection: ConnectionId) {
        if self.held.get(&connection).is_some_and(|held| !held.told) {
            self.release(connection);
        }
    }

    /// A reservation ended, or a connection that may have held one.
    pub(crate) fn release(&mut self, connection: ConnectionId) {
        let Some(holder) = self.held.remove(&connection) else {
            return;
        };
        decrement(&mut self.of_peer, holder.peer);
        if let Some(source) = holder.source {
            decrement(&mut self.of_source, source);
        }
    }
}

fn count<K: Hash + Eq>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

/// Takes one away, and the entry with the last.
pub(crate) fn decrement<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::limits::UNLIMITED;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn host(number: u8) -> Option<Source> {
        Some(Source::Ip4(Ipv4Addr::new(198, 51, 100, number)))
    }

    fn net6(number: u16) -> Option<Source> {
        Some(Source::Net6([0x2001, 0xdb8, 0, number]))
    }

    #[test]
    fn a_full_relay_renews_and_grants_nothing_new() {
        let mut gate = Gate::new(&Limits {
            reservations: 2,
            ..UNLIMITED
        });
        let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        assert_eq!(gate.reserve(id(0), peers[0], host(1)), Ok(()));
        assert_eq!(gate.reserve(id(1), peers[1], host(2)), Ok(()));
        let full = Err(Reason::ReservationLimit);
        assert_eq!(gate.reserve(id(2), peers[2], host(3)), full);
        assert_eq!(gate.reserve(id(0), peers[0], host(1)), Ok(()), "renewed");
        gate.release(id(1));
        assert_eq!(gate.reserve(id(2), peers[2], host(3)), Ok(()));
    }

    #[test]
    fn a_peer_gets_exactly_as_many_as_its_limit_says() {
        let mut gate = Gate::new(&Limits {
            reservations_per_peer: 2,
            ..UNLIMITED
        });
        let (peer, other) = (PeerId::random(), PeerId::random());
        let granted = (0..5).filter(|n| gate.reserve(id(*n), peer, None).is_ok());
        assert_eq!(granted.count(), 2);
        assert_eq!(gate.reserve(id(9), other, None), Ok(()));
    }

    #[test]
    fn a_source_gets_as_many_as_the_limit_of_its_family_says_whoever_asks() {
        let mut gate = Gate::new(&Limits {
            reservations_per_source: PerSource { ip4: 2, ip6_net: 1 },
            ..UNLIMITED
        });
        let full = Err(Reason::SourceReservationLimit);
        let mut next = 0;
        let mut ask = |source| {
            next += 1;
            gate.reserve(id(next), PeerId::random(), source)
        };
        assert_eq!([ask(host(1)), ask(host(1))], [Ok(()), Ok(())]);
        assert_eq!(ask(host(1)), full);
        assert_eq!(ask(host(2)), Ok(()));
        assert_eq!(ask(net6(1)), Ok(()));
        assert_eq!(ask(net6(1)), full);
        assert_eq!(ask(net6(2)), Ok(()));
        assert_eq!(gate.reserve(id(1), PeerId::random(), host(1)), Ok(()));
        gate.release(id(1));
        assert_eq!(gate.reserve(id(99), PeerId::random(), host(1)), Ok(()));
    }

    #[test]
    fn a_peer_that_could_not_be_told_takes_no_place_unless_it_was_told_before() {
        let mut gate = Gate::new(&Limits {
            reservations: 1,
            ..UNLIMITED
        });
        let (peer, other) = (PeerId::random(), PeerId::random());
        assert_eq!(gate.reserve(id(1), peer, None), Ok(()));
        gate.untold(id(1));
        assert_eq!(gate.reserve(id(2), other, None), Ok(()));
        gate.told(id(2));
        gate.untold(id(2));
        let full = Err(Reason::ReservationLimit);
        assert_eq!(gate.reserve(id(3), peer, None), full);
    }

    #[test]
    fn a_closed_gate_neither_grants_nor_renews() {
        let mut gate = Gate::new(&UNLIMITED);
        let peer = PeerId::random();
        assert_eq!(gate.reserve(id(1), peer, host(1)), Ok(()));
        assert!(gate.takes_circuits());
        gate.close();
        assert_eq!(gate.reserve(id(1), peer, host(1)), Err(Reason::Draining));
        assert_eq!(gate.reserve(id(2), peer, host(1)), Err(Reason::Draining));
        assert!(!gate.takes_circuits());
    }

    #[test]
    fn what_is_released_leaves_nothing_behind() {
        let mut gate = Gate::new(&UNLIMITED);
        for number in 0..10 {
            let _granted = gate.reserve(id(number), PeerId::random(), host(1));
        }
        for number in 0..10 {
            gate.release(id(number));
            gate.release(id(number));
        }
        assert!(gate.held.is_empty() && gate.of_peer.is_empty() && gate.of_source.is_empty());
    }
}
