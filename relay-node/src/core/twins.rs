//! Whether two hosts use one key. Pure.
//!
//! A node draws a number at its start, and names it on each connection. After a restart two processes hold reservations for a
//! moment, of which the old one does not answer. If two processes both answer long after the newer reservation was granted, there are
//! two nodes.
//!
//! Other implementations name no process. A node has one connection to each address of a relay, and one reservation in each family.
//! So two connections to one address over one transport are two nodes under the same condition. See decision 0227.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_daemon::limiter::{Limiter, Measure};
use p2pnode_transports::{Transport, to_socket_addr};

/// How long after the newer reservation both have to answer: the relay pings every 15 s, and a connection that answers no ping for
/// 10 s, twice in a row, is closed.
const TOGETHER: Duration = Duration::from_secs(45);

/// How long one host has to be the only one before that is reported: another one that is cut off is back within this, and answers
/// later.
const ALONE: Duration = Duration::from_secs(15);

/// How often it is reported of one peer, in an hour.
const REPORTS: Measure = Measure {
    burst: 1,
    period: Duration::from_secs(3600),
};

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
    /// Where the two are. A notice goes to the first.
    pub at: [SocketAddr; 2],
}

/// What an answered ping shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Two hosts, and whether that is to be reported.
    Two(SharedKey, bool),
    /// One host, of which two were reported.
    One,
}

/// A key that two hosts use.
#[derive(Debug, Default)]
struct Shared {
    is_reported: bool,
    /// Since when only one of them has been there.
    alone: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Held {
    peer: PeerId,
    ends: Ends,
    granted: Instant,
    answered: Instant,
}

/// The reservations that are held, and whose peer answers.
#[derive(Debug)]
pub(crate) struct Twins {
    held: HashMap<ConnectionId, Held>,
    /// The processes at the far ends of open connections, where they are known.
    instances: HashMap<ConnectionId, u64>,
    shared: BTreeMap<PeerId, Shared>,
    reports: Limiter<PeerId>,
}

impl Default for Twins {
    fn default() -> Self {
        Self {
            held: HashMap::new(),
            instances: HashMap::new(),
            shared: BTreeMap::new(),
            reports: Limiter::new(REPORTS),
        }
    }
}

impl Twins {
    /// The process at the far end of an open connection. The first number of a connection counts.
    pub(crate) fn named(&mut self, connection: ConnectionId, instance: u64) {
        self.instances.entry(connection).or_insert(instance);
    }

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

    /// The connection is closed.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.instances.remove(&connection);
    }

    /// The connection holds a reservation no longer; `of_peer` do.
    pub(crate) fn ended(
        &mut self,
        connection: ConnectionId,
        mut of_peer: impl Iterator<Item = ConnectionId>,
    ) {
        if let Some(held) = self.held.remove(&connection)
            && of_peer.next().is_none()
        {
            self.shared.remove(&held.peer);
        }
    }

    /// A connection has answered a ping; `of_peer` hold reservations.
    pub(crate) fn answered(
        &mut self,
        connection: ConnectionId,
        of_peer: impl Iterator<Item = ConnectionId> + Clone,
        now: Instant,
    ) -> Option<Seen> {
        let held = self.held.get_mut(&connection)?;
        held.answered = now;
        let (peer, one) = (held.peer, held.ends.remote);
        let mut others = of_peer.filter(|other| *other != connection);
        let two = others
            .clone()
            .find(|other| self.both_answer(connection, *other));
        if let Some(other) = two.and_then(|two| self.held.get(&two)) {
            let at = [one, other.ends.remote];
            let is_news = self.reports.admits(peer, now);
            let shared = self.shared.entry(peer).or_default();
            shared.is_reported |= is_news;
            shared.alone = None;
            return Some(Seen::Two(SharedKey { peer, at }, is_news));
        }
        // One that is back has to answer for some time.
        let may_be_two = others.any(|other| self.differ(connection, other));
        let shared = self.shared.get_mut(&peer)?;
        if may_be_two {
            shared.alone = None;
            return None;
        }
        if now.saturating_duration_since(*shared.alone.get_or_insert(now)) < ALONE {
            return None;
        }
        let shared = self.shared.remove(&peer)?;
        // If there are two again, that is news.
        self.reports.forget(&peer);
        shared.is_reported.then_some(Seen::One)
    }

    /// The keys that are in use on two hosts now.
    pub(crate) fn shared(&self) -> usize {
        self.shared.len()
    }

    /// Whether both have answered long after the newer reservation, and are two hosts.
    fn both_answer(&self, one: ConnectionId, other: ConnectionId) -> bool {
        let held = self.held.get(&one).zip(self.held.get(&other));
        held.is_some_and(|(first, second)| {
            let both = first.granted.max(second.granted) + TOGETHER;
            first.answered >= both && second.answered >= both
        }) && self.differ(one, other)
    }

    /// Whether two processes are at the far ends. If it is not known of both which process they are, they are two if they use one
    /// address of the relay over one transport.
    fn differ(&self, one: ConnectionId, other: ConnectionId) -> bool {
        let [first, second] = [one, other].map(|id| self.instances.get(&id));
        match (
            first.zip(second),
            self.held.get(&one),
            self.held.get(&other),
        ) {
            (Some((first, second)), _, _) => first != second,
            (None, Some(one), Some(other)) => {
                one.ends.local == other.ends.local && one.ends.is_tcp == other.ends.is_tcp
            }
            _ => false,
        }
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
        held: usize,
        alone: usize,
    }

    impl Relay {
        /// A peer that holds a reservation on each of these connections, of which it names the process or does not.
        fn with(held: &[(Ends, Option<u64>)]) -> Self {
            let (mut twins, peer, now) = (Twins::default(), PeerId::random(), Instant::now());
            for (number, (ends, instance)) in held.iter().enumerate() {
                if let Some(instance) = instance {
                    twins.named(id(number), *instance);
                }
                twins.granted(id(number), peer, *ends, now);
            }
            let held = held.len();
            Self {
                twins,
                peer,
                now,
                held,
                alone: 0,
            }
        }

        /// Pings these for two minutes: how often two hosts were seen, and what was reported.
        fn pings(&mut self, answer: &[usize]) -> (usize, Vec<SharedKey>) {
            let mut seen = Vec::new();
            for _ in 0..8 {
                self.now += Duration::from_secs(15);
                for number in answer {
                    let all = (0..self.held).map(id);
                    let held = self.twins.held.clone();
                    let all = all.filter(|id| held.contains_key(id));
                    match self.twins.answered(id(*number), all, self.now) {
                        Some(Seen::Two(shared, is_news)) => seen.push((shared, is_news)),
                        Some(Seen::One) => self.alone += 1,
                        None => {}
                    }
                }
            }
            let reports = seen.iter().filter(|(_, is_news)| *is_news);
            (seen.len(), reports.map(|(shared, _)| *shared).collect())
        }

        /// The reservation and the connection of this number end.
        fn ends(&mut self, number: usize) {
            let held = self.twins.held.clone();
            let left = held.into_keys().filter(|other| *other != id(number));
            self.twins.ended(id(number), left);
            self.twins.closed(id(number));
        }

        /// A process has a reservation on another connection.
        fn is_back(&mut self, ends: Ends, instance: u64) {
            let number = id(self.held);
            self.held += 1;
            self.twins.named(number, instance);
            self.twins.granted(number, self.peer, ends, self.now);
        }
    }

    #[test]
    fn two_that_both_answer_are_two_hosts_and_that_is_said_once_an_hour() {
        let mut relay = Relay::with(&[(ends(443, 1, false), None), (ends(443, 2, false), None)]);
        let (seen, reports) = relay.pings(&[0, 1]);
        let [report] = &reports[..] else {
            panic!("{reports:?}");
        };
        assert_eq!((report.peer, relay.twins.shared()), (relay.peer, 1));
        assert!(seen > 8, "{seen}: each gets a notice, with each ping");
        assert_eq!(relay.pings(&[0, 1]).1, []);
        relay.now += REPORTS.period;
        assert_eq!(relay.pings(&[0, 1]).1.len(), 1);
        relay.ends(0);
        assert_eq!((relay.pings(&[1]), relay.twins.shared()), ((0, vec![]), 0));
        assert_eq!(relay.alone, 1);
        relay.ends(1);
        assert!(relay.twins.held.is_empty());
    }

    #[test]
    fn a_host_that_is_cut_off_for_a_moment_is_still_the_second_one() {
        let mut relay = Relay::with(&[
            (ends(443, 1, false), Some(7)),
            (ends(443, 2, false), Some(8)),
        ]);
        assert_eq!(relay.pings(&[0, 1]).1.len(), 1);
        relay.ends(1);
        relay.is_back(ends(443, 3, false), 8);
        let (seen, reports) = relay.pings(&[0, 2]);
        assert!(seen > 0);
        assert_eq!((reports, relay.alone, relay.twins.shared()), (vec![], 0, 1));
        // And one that is back after it was gone is reported.
        relay.ends(2);
        relay.pings(&[0]);
        assert_eq!((relay.alone, relay.twins.shared()), (1, 0));
        relay.is_back(ends(443, 3, false), 8);
        assert_eq!(relay.pings(&[0, 3]).1.len(), 1);
    }

    #[test]
    fn a_relay_that_ends_all_reservations_does_not_say_that_one_host_is_left() {
        let mut relay = Relay::with(&[
            (ends(443, 1, false), Some(7)),
            (ends(443, 2, false), Some(8)),
        ]);
        assert_eq!(relay.pings(&[0, 1]).1.len(), 1);
        relay.ends(1);
        relay.ends(0);
        assert_eq!((relay.alone, relay.twins.shared()), (0, 0));
    }

    #[test]
    fn two_processes_are_two_hosts_over_any_transports_and_at_any_addresses_of_the_relay() {
        for other in [ends(443, 2, true), ends(444, 2, false), ends(443, 1, false)] {
            let mut relay = Relay::with(&[(ends(443, 1, false), Some(7)), (other, Some(8))]);
            let (_, reports) = relay.pings(&[0, 1]);
            assert_eq!(reports.len(), 1, "{other:?}");
            relay.ends(1);
            assert_eq!((relay.pings(&[0]).0, relay.alone), (0, 1));
            assert_eq!(relay.twins.instances.len(), 1);
        }
    }

    #[test]
    fn one_process_is_one_host_whatever_it_connects_from() {
        for other in [ends(443, 2, true), ends(444, 2, false), ends(443, 2, false)] {
            let mut relay = Relay::with(&[(ends(443, 1, false), Some(7)), (other, Some(7))]);
            assert_eq!(relay.pings(&[0, 1]), (0, vec![]), "{other:?}");
        }
    }

    #[test]
    fn a_process_that_has_started_again_is_one_host_while_its_old_connections_are_open() {
        let mut relay = Relay::with(&[
            (ends(443, 1, false), Some(7)),
            (ends(443, 1, true), Some(7)),
            (ends(443, 1, false), Some(8)),
        ]);
        assert_eq!(relay.pings(&[2]), (0, vec![]));
    }

    #[test]
    fn two_hosts_stay_two_while_one_of_them_moves_to_another_of_its_connections() {
        let mut relay = Relay::with(&[
            (ends(443, 1, false), Some(7)),
            (ends(443, 1, true), Some(7)),
            (ends(443, 2, false), Some(8)),
        ]);
        assert_eq!(relay.pings(&[0, 1, 2]).1.len(), 1);
        relay.ends(0);
        relay.pings(&[1, 2]);
        assert_eq!((relay.alone, relay.twins.shared()), (0, 1));
        relay.ends(1);
        relay.pings(&[2]);
        assert_eq!((relay.alone, relay.twins.shared()), (1, 0));
    }

    #[test]
    fn a_connection_has_one_process_whatever_numbers_it_names() {
        let mut relay = Relay::with(&[
            (ends(443, 1, false), Some(7)),
            (ends(443, 1, true), Some(7)),
        ]);
        for number in 0..1000 {
            relay.twins.named(id(0), number);
        }
        assert_eq!(relay.twins.instances.len(), 2);
        assert_eq!(relay.pings(&[0, 1]), (0, vec![]));
    }

    #[test]
    fn a_node_that_is_back_at_another_address_is_one_host() {
        let mut relay = Relay::with(&[(ends(443, 1, false), None), (ends(443, 2, false), None)]);
        assert_eq!(relay.pings(&[1]), (0, vec![]));
    }

    #[test]
    fn two_transports_and_two_addresses_of_a_relay_are_one_host_if_it_names_no_process() {
        for other in [ends(443, 2, true), ends(444, 2, false)] {
            for instance in [None, Some(7)] {
                let mut relay = Relay::with(&[(ends(443, 1, false), instance), (other, None)]);
                assert_eq!(relay.pings(&[0, 1]), (0, vec![]));
            }
        }
    }
}
