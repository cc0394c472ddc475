//! Inbound handshakes.

use std::{
    collections::BTreeMap,
    hash::Hash,
    time::{Duration, Instant},
};

use p2pnode_protocol::{Network, Source, Transport};

use super::{Place, Places};

/// The handshakes of incoming connections that are not over.
///
/// The source of a TCP connection is known: the kernel has exchanged packets with it. That of the first packet of a QUIC
/// connection may be forged until the handshake is over. So each transport is counted by itself, and a newcomer displaces only a
/// handshake of its own transport. Forged packets can harm only those who come over QUIC. A transport has three quarters of the
/// handshakes at most, and keeps a quarter of its own for either IP family.
#[derive(Debug)]
pub struct Handshakes<K> {
    /// The most that there may be, and the limit now, which is lower where memory is for fewer.
    most: usize,
    limit: usize,
    pub(super) of: BTreeMap<Transport, Places<K, Network>>,
}

/// How old a handshake has to be before one of no heavier source displaces it. Most handshakes are over in less.
pub const PATIENCE: Duration = Duration::from_secs(1);

impl<K: Copy + Eq + Hash> Handshakes<K> {
    /// None yet, of `limit` at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let (places, kept) = of_transport(limit);
        let of = [Transport::Tcp, Transport::Quic].map(|of| (of, Places::new(places, kept)));
        Self {
            most: limit,
            limit,
            of: of.into(),
        }
    }

    /// There is memory for so many at once from now on, which is as good as a limit. Those under way stay.
    pub fn set_room(&mut self, room: usize) {
        self.limit = self.most.min(room);
        for of in self.of.values_mut() {
            (of.limit, of.kept) = of_transport(self.limit);
        }
    }

    /// Handshakes under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of.values().map(|places| places.shares.len()).sum()
    }

    /// Whether none is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One begins, and takes the place of another if there is no other way. The one whose place it takes is no longer counted.
    pub fn begin(
        &mut self,
        key: K,
        transport: Transport,
        source: Source,
        now: Instant,
    ) -> Place<K> {
        let is_full = self.len() >= self.limit;
        let Some(places) = self.of.get_mut(&transport) else {
            return Place::None;
        };
        let networks: Vec<Network> = source.networks().collect();
        let place = places.place(&networks, is_full, PATIENCE, now, |_| true);
        match &place {
            Place::None => return place,
            Place::Free => {}
            Place::Of(displaced) => {
                places.leave(displaced);
            }
        }
        places.take(key, &networks, now);
        place
    }

    /// One is over, one way or the other.
    pub fn end(&mut self, key: &K) {
        for places in self.of.values_mut() {
            places.leave(key);
        }
    }
}

/// The places of a transport, of so many handshakes, and how many of them are kept for either family.
const fn of_transport(limit: usize) -> (usize, usize) {
    let places = limit - limit / 4;
    (places, places / 4)
}
