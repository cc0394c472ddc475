//! Whether two hosts use one key. Pure.
//!
//! A node has one connection to each address of a relay, and one reservation in each family. After a network change or a restart
//! there are two for a moment, of which the old one does not answer. Two connections of one peer to one address may both hold a
//! reservation. If both answer long after the newer one was granted, there are two nodes.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::{Transport, to_socket_addr};

/// How long after the newer reservation both have to answer: the relay pings every 15 s, and a connection that answers no ping for
/// 10 s, twice in a row, is closed.
const TOGETHER: Duration = Duration::from_secs(45);

/// How often it is reported of one peer.
const REPORT: Duration = Duration::from_secs(3600);

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ends {
    /// The relay's.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Whether it is TCP.
    pub is_tcp: bool,
}

impl Ends {
    pub(crate) fn of(local: &Multiaddr, remote: &Multiaddr) -> Option<Self> {
        Some(Self {
            local: to_socket_addr(local)?,
            remote: to_socket_addr(remote)?,
            is_tcp: Transport::of(remote)? == Transport::Tcp,
        })
    }
}

/// One key on two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedKey {
    /// Whose key it is.
    pub peer: PeerId,
    /// Where the two are.
    pub at: [SocketAddr; 2],
}

#[derive(Debug)]
struct Held {
    peer: PeerId,
    ends: Ends,
    granted: Instant,
    answered: Instant,
}

/// The reservations that are held, and whose peer answers.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    held: HashMap<ConnectionId, Held>,
    reported: HashMap<PeerId, Instant>,
    /// Those of which both are still there.
    pairs: BTreeMap<PeerId, [ConnectionId; 2]>,
}

impl Twins {
    /// A connection has got a reservation; not a renewal.
    pub(crate) fn granted(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        ends: Ends,
        now: Instant,
    ) {
        let held = Held {
            peer,
            ends,
            granted: now,
            answered: now,
        };
        self.held.insert(connection, held);
    }

    /// It holds none any more.
    pub(crate) fn ended(&mut self, connection: ConnectionId) {
        if let Some(held) = self.held.remove(&connection)
            && self
                .pairs
                .get(&held.peer)
                .is_some_and(|pair| pair.contains(&connection))
        {
            self.pairs.remove(&held.peer);
        }
        self.reported
            .retain(|peer, _| self.held.values().any(|held| held.peer == *peer));
    }

    /// A connection has answered a ping. Returns what is to be reported.
    pub(crate) fn answered(
        &mut self,
        connection: ConnectionId,
        of_peer: impl Iterator<Item = ConnectionId>,
        now: Instant,
    ) -> Option<SharedKey> {
        self.held.get_mut(&connection)?.answered = now;
        let one = self.held.get(&connection)?;
        let others = of_peer.filter(|other| *other != connection);
        let mut others = others.filter_map(|id| Some((id, self.held.get(&id)?)));
        let (other_id, other) = others.find(|(_, other)| one.is_another_than(other))?;
        let (peer, at) = (one.peer, [one.ends.remote, other.ends.remote]);
        self.pairs.insert(peer, [connection, other_id]);
        let reported = self.reported.get(&peer);
        if reported.is_some_and(|at| now < *at + REPORT) {
            return None;
        }
        self.reported.insert(peer, now);
        Some(SharedKey { peer, at })
    }

    /// The keys that are in use on two hosts now.
    pub(crate) fn shared(&self) -> impl Iterator<Item = SharedKey> {
        self.pairs.iter().filter_map(|(peer, pair)| {
            let [one, other] = pair.map(|id| Some(self.held.get(&id)?.ends.remote));
            Some(SharedKey {
                peer: *peer,
                at: [one?, other?],
            })
        })
    }
}

impl Held {
    /// Whether another node than `other`'s is at the far end.
    fn is_another_than(&self, other: &Self) -> bool {
        let both = self.granted.max(other.granted) + TOGETHER;
        let is_alike = self.ends.local == other.ends.local && self.ends.is_tcp == other.ends.is_tcp;
        is_alike && self.answered >= both && other.answered >= both
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn ends(local: u16, host: u8, is_tcp: bool) -> Ends {
        Ends {
            local: ([203, 0, 113, 1], local).into(),
            remote: ([198, 51, 100, host], 40_000).into(),
            is_tcp,
        }
    }

    struct Relay {
        twins: Twins,
        peer: PeerId,
        now: Instant,
    }

    impl Relay {
        fn with(held: &[Ends]) -> Self {
            let (mut twins, peer, now) = (Twins::default(), PeerId::random(), Instant::now());
            for (number, ends) in held.iter().enumerate() {
                twins.granted(id(number), peer, *ends, now);
            }
            Self { twins, peer, now }
        }

        /// Pings these for two minutes.
        fn pings(&mut self, answer: &[usize]) -> Vec<SharedKey> {
            let mut reports = Vec::new();
            for _ in 0..8 {
                self.now += Duration::from_secs(15);
                for number in answer {
                    let all = [id(0), id(1)].into_iter();
                    reports.extend(self.twins.answered(id(*number), all, self.now));
                }
            }
            reports
        }
    }

    #[test]
    fn two_that_both_answer_are_two_hosts_and_that_is_said_once_an_hour() {
        let mut relay = Relay::with(&[ends(443, 1, false), ends(443, 2, false)]);
        let reports = relay.pings(&[0, 1]);
        let [report] = &reports[..] else {
            panic!("{reports:?}");
        };
        assert_eq!(report.peer, relay.peer);
        assert_eq!(relay.twins.shared().count(), 1);
        assert_eq!(relay.pings(&[0, 1]), []);
        relay.now += REPORT;
        assert_eq!(relay.pings(&[0, 1]).len(), 1);
        relay.twins.ended(id(0));
        assert_eq!(relay.twins.shared().count(), 0);
        relay.twins.ended(id(1));
        assert!(relay.twins.held.is_empty() && relay.twins.reported.is_empty());
    }

    #[test]
    fn a_node_that_is_back_at_another_address_is_one_host() {
        let mut relay = Relay::with(&[ends(443, 1, false), ends(443, 2, false)]);
        assert_eq!(relay.pings(&[1]), []);
    }

    #[test]
    fn two_transports_and_two_addresses_of_a_relay_are_one_host() {
        for other in [ends(443, 2, true), ends(444, 2, false)] {
            let mut relay = Relay::with(&[ends(443, 1, false), other]);
            assert_eq!(relay.pings(&[0, 1]), []);
        }
    }
}
