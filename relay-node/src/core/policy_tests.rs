#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;
use crate::config::PerSource;

const UNLIMITED: Limits = Limits::UNLIMITED;

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

const LOCAL4: &str = "/ip4/192.0.2.1/tcp/443";
const LOCAL6: &str = "/ip6/2001:db8::1/tcp/443";

/// A relay, and its clock.
struct Relay {
    policy: RelayPolicy,
    /// Whether the peers that ask are admitted.
    admitted: Result<(), Refused>,
    now: Instant,
}

impl Relay {
    fn new(limits: Limits) -> Self {
        Self {
            policy: RelayPolicy::new(&limits),
            admitted: Ok(()),
            now: Instant::now(),
        }
    }

    fn connect(&mut self, connection: usize, peer: PeerId, local: &str, remote: &str) {
        self.policy.connected(
            id(connection),
            peer,
            &local.parse().unwrap(),
            &remote.parse().unwrap(),
        );
    }

    /// `peer` connects from host `host` and asks for a reservation.
    fn reserve(&mut self, connection: usize, peer: PeerId, host: u8) -> Result<bool, Refusal> {
        let remote = format!("/ip4/198.51.100.{host}/tcp/9");
        self.connect(connection, peer, LOCAL4, &remote);
        self.ask(connection, peer)
    }

    fn ask(&mut self, connection: usize, peer: PeerId) -> Result<bool, Refusal> {
        let granted = self
            .policy
            .reserve(self.admitted, id(connection), peer, self.now);
        granted.map(|granted| granted.renewed)
    }

    fn gone(&mut self, connection: usize) -> Option<Gone> {
        self.policy.disconnected(id(connection), self.now)
    }

    fn circuit(&mut self, on: usize, from: PeerId, to: PeerId) -> Result<Route, Refusal> {
        self.policy.connect(self.admitted, id(on), from, to)
    }
}

fn peers<const N: usize>() -> [PeerId; N] {
    [(); N].map(|()| PeerId::random())
}

#[test]
fn a_peer_gets_exactly_as_many_as_its_limit_says() {
    let mut relay = Relay::new(Limits {
        reservations_per_peer: 2,
        ..UNLIMITED
    });
    let [peer, other] = peers();
    let granted = (0..5).filter(|n| relay.reserve(*n, peer, 1).is_ok());
    assert_eq!(granted.count(), 2);
    assert_eq!(relay.reserve(9, other, 1), Ok(false));
}

#[test]
fn a_source_gets_as_many_as_the_limit_of_its_family_says_whoever_asks() {
    let mut relay = Relay::new(Limits {
        reservations_per_source: PerSource { ip4: 2, ip6_net: 1 },
        ..UNLIMITED
    });
    let full = Err(Refusal::SourceReservations);
    let [a, b, c, d] = peers();
    assert_eq!(relay.reserve(1, a, 1), Ok(false));
    assert_eq!(relay.reserve(2, b, 1), Ok(false));
    assert_eq!(relay.reserve(3, c, 1), full);
    assert_eq!(relay.reserve(4, d, 2), Ok(false));
    for (connection, remote, granted) in [
        (5, "/ip6/2001:db8:0:1::1/tcp/9", Ok(false)),
        (6, "/ip6/2001:db8:0:1::2/tcp/9", full),
        (7, "/ip6/2001:db8:0:2::1/tcp/9", Ok(false)),
    ] {
        let peer = PeerId::random();
        relay.connect(connection, peer, LOCAL6, remote);
        assert_eq!(relay.ask(connection, peer), granted);
    }
    assert_eq!(relay.ask(1, a), Ok(true), "renewed");
    relay.policy.release(id(1));
    assert_eq!(relay.ask(3, c), Ok(false));
}

#[test]
fn who_is_not_admitted_gets_neither_and_is_told_so() {
    let [member, stranger] = peers();
    let mut relay = Relay::new(UNLIMITED);
    assert_eq!(relay.reserve(1, member, 1), Ok(false));
    relay.admitted = Err(Refused::Expired);
    assert_eq!(
        relay.reserve(2, stranger, 1),
        Err(Refusal::NotAdmitted(Refused::Expired))
    );
    // Nor is what it has renewed.
    assert_eq!(
        relay.ask(1, member),
        Err(Refusal::NotAdmitted(Refused::Expired))
    );
    assert_eq!(
        relay.circuit(2, stranger, member),
        Err(Refusal::NotAdmitted(Refused::Expired))
    );
}

#[test]
fn a_circuit_needs_a_reservation_of_its_destination() {
    let mut relay = Relay::new(Limits {
        reservation_duration: Duration::from_secs(60),
        ..UNLIMITED
    });
    let [source, destination] = peers();
    relay.connect(1, source, LOCAL4, "/ip4/198.51.100.1/tcp/9");
    assert_eq!(
        relay.circuit(1, source, destination),
        Err(Refusal::NoReservation)
    );
    assert_eq!(relay.reserve(2, destination, 2), Ok(false));
    assert_eq!(relay.circuit(1, source, destination).unwrap().to, id(2));
    let end = relay.now + Duration::from_secs(60);
    assert_eq!(relay.policy.poll_timeout(), Some(end));
    assert_eq!(relay.policy.poll_expired(end), Some((destination, id(2))));
    assert_eq!(relay.policy.poll_expired(end), None);
    assert!(!relay.policy.holds(&destination));
    assert_eq!(
        relay.circuit(1, source, destination),
        Err(Refusal::NoReservation)
    );
}

#[test]
fn circuits_that_are_being_made_count_as_those_that_are_open_for_either_peer() {
    let mut relay = Relay::new(Limits {
        circuits: 3,
        circuits_per_peer: 2,
        ..UNLIMITED
    });
    let [a, b, c, d] = peers();
    for (number, peer) in [a, b, c, d].into_iter().enumerate() {
        assert_eq!(relay.reserve(number, peer, 1), Ok(false));
    }
    let full = Err(Refusal::Circuits);
    let first = relay.circuit(0, a, b).unwrap();
    assert!(relay.policy.opened(first.id, relay.now).is_some());
    assert!(relay.circuit(2, c, b).is_ok());
    assert_eq!(relay.circuit(3, d, b), full, "its destination has two");
    assert!(relay.circuit(0, a, d).is_ok());
    assert_eq!(relay.circuit(2, c, d), full, "there are three in all");
    assert_eq!(relay.policy.circuits(), 1, "that are open");
    assert!(relay.policy.closed(first.id, relay.now).is_some());
    assert_eq!(relay.circuit(2, c, d).unwrap().to, id(3));
}

/// A source on 1 (IPv4) and 2 (IPv6), a destination on 3 (IPv4) and 4 (IPv6), of which it reserves on 3.
fn two_families() -> (Relay, PeerId, PeerId) {
    let mut relay = Relay::new(UNLIMITED);
    let [source, destination] = peers();
    for (connection, peer, local, remote) in [
        (1, source, LOCAL4, "/ip4/198.51.100.1/tcp/9"),
        (2, source, LOCAL6, "/ip6/2001:db8::9/tcp/9"),
        (3, destination, LOCAL4, "/ip4/198.51.100.2/tcp/9"),
        (4, destination, LOCAL6, "/ip6/2001:db8::8/tcp/9"),
        (5, destination, LOCAL4, "/ip4/198.51.100.2/tcp/8"),
    ] {
        relay.connect(connection, peer, local, remote);
    }
    assert_eq!(relay.ask(3, destination), Ok(false));
    (relay, source, destination)
}

#[test]
fn a_circuit_keeps_its_family_where_the_destination_has_a_reservation_in_it() {
    let (mut relay, source, destination) = two_families();
    let to = |relay: &mut Relay, on| relay.circuit(on, source, destination).unwrap().to;
    assert_eq!(to(&mut relay, 2), id(3), "there is no other");
    assert_eq!(relay.ask(4, destination), Ok(false));
    assert_eq!(to(&mut relay, 2), id(4));
    assert_eq!(to(&mut relay, 1), id(3));
    relay.policy.release(id(4));
    assert_eq!(to(&mut relay, 2), id(3), "that reservation has ended");
    assert_eq!(relay.ask(4, destination), Ok(false));
    assert!(
        relay
            .gone(4)
            .is_some_and(|gone| gone.held && gone.circuits.is_empty())
    );
    assert_eq!(to(&mut relay, 2), id(3), "that connection is gone");
}

#[test]
fn of_two_reservations_in_a_family_the_newer_is_used() {
    let (mut relay, source, destination) = two_families();
    assert_eq!(relay.ask(5, destination), Ok(false));
    assert_eq!(relay.ask(4, destination), Ok(false));
    assert_eq!(relay.circuit(1, source, destination).unwrap().to, id(5));
    assert_eq!(relay.circuit(2, source, destination).unwrap().to, id(4));
}

#[test]
fn the_bytes_of_a_peer_are_kept_while_it_is_connected_whoever_dialed() {
    let mut relay = Relay::new(UNLIMITED);
    let [a, b] = peers();
    assert_eq!(relay.reserve(1, a, 1), Ok(false));
    assert_eq!(relay.reserve(2, b, 1), Ok(false));
    let volume = |sent, received| Volume { sent, received };
    for (on, from, to) in [(1, a, b), (2, b, a)] {
        let route = relay.circuit(on, from, to).unwrap();
        let (.., traffic) = relay.policy.opened(route.id, relay.now).unwrap();
        traffic.add(10, 1);
        if from == a {
            assert!(relay.policy.closed(route.id, relay.now).is_some());
        }
    }
    assert_eq!(relay.policy.carried(&a), volume(11, 11));
    let gone = relay.gone(2).unwrap();
    assert_eq!(gone.carried, Some(volume(11, 11)));
    for circuit in gone.circuits {
        assert!(relay.policy.closed(circuit, relay.now).is_some());
    }
    assert_eq!(relay.policy.carried(&b), volume(0, 0), "it is gone");
    assert_eq!(relay.policy.carried(&a), volume(11, 11), "and it is not");
    assert!(relay.gone(1).is_some() && relay.policy.peers.is_empty());
}

proptest! {
    /// Whoever asks for what, comes and goes: limits hold, and when all are gone nothing is left.
    #[test]
    fn limits_hold_and_nothing_is_left_behind(
        steps in proptest::collection::vec((0..4_u8, 0..8_usize, 0..4_usize), 0..200),
    ) {
        let limits = Limits {
            reservations: 4,
            reservations_per_peer: 2,
            circuits: 5,
            circuits_per_peer: 3,
            ..UNLIMITED
        };
        let mut relay = Relay::new(limits);
        let peers: [PeerId; 4] = peers();
        let mut making = Vec::new();
        // Connection n is peer n % 4's.
        for (step, connection, peer) in steps {
            let owner = peers[connection % 4];
            match step {
                0 => {
                    let _granted = relay.reserve(connection, owner, 1);
                }
                1 => making.extend(relay.circuit(connection, owner, peers[peer]).ok()),
                2 => {
                    for circuit in relay.gone(connection).map_or(vec![], |gone| gone.circuits) {
                        let _ended = relay.policy.closed(circuit, relay.now);
                    }
                }
                _ => {
                    if let Some(route) = making.pop() {
                        let _opened = relay.policy.opened(route.id, relay.now);
                    }
                }
            }
            prop_assert!(relay.policy.reservations() <= 4);
            prop_assert!(relay.policy.circuits.len() <= 5);
            prop_assert!(relay.policy.circuits.open() <= relay.policy.circuits.len());
            for peer in &peers {
                prop_assert!(relay.policy.reservations.of_peer(peer).len() <= 2);
                prop_assert!(relay.policy.circuits.of_peer(peer) <= 3);
            }
        }
        for connection in 0..8 {
            relay.connect(connection, peers[connection % 4], LOCAL4, "/ip4/198.51.100.1/tcp/9");
            for circuit in relay.gone(connection).map_or(vec![], |gone| gone.circuits) {
                let _ended = relay.policy.closed(circuit, relay.now);
            }
        }
        prop_assert_eq!(relay.policy.reservations(), 0);
        prop_assert_eq!((relay.policy.circuits.len(), relay.policy.circuits()), (0, 0));
    }
}

#[test]
fn one_place_cannot_take_all_circuits_of_the_relay_or_of_a_destination_whatever_ids_it_has() {
    let mut relay = Relay::new(Limits {
        circuits: 64,
        circuits_per_peer: 32,
        ..UNLIMITED
    });
    let destinations: [PeerId; 8] = peers();
    for (number, peer) in destinations.into_iter().enumerate() {
        assert_eq!(relay.reserve(number, peer, 1), Ok(false));
    }
    let mut next = 100;
    let mut flood = |relay: &mut Relay, host: u8, to: PeerId| {
        let taken = (0..64).filter(|_| {
            next += 1;
            let peer = PeerId::random();
            relay.connect(next, peer, LOCAL4, &format!("/ip4/203.0.113.{host}/tcp/9"));
            relay.circuit(next, peer, to).is_ok()
        });
        taken.count()
    };
    // A quarter of the destination's 32 is too much once half of them are taken.
    assert_eq!(flood(&mut relay, 1, destinations[0]), 16);
    assert_eq!(flood(&mut relay, 2, destinations[0]), 8);
    // And a quarter of all 64.
    let taken: usize = destinations[1..]
        .iter()
        .map(|to| flood(&mut relay, 1, *to))
        .sum();
    assert_eq!(taken, 8, "32 are taken then");
    assert_eq!(flood(&mut relay, 3, destinations[7]), 16);
    assert_eq!(flood(&mut relay, 4, destinations[6]), 16);
}
