use std::net::IpAddr;

use p2pnode_protocol::{Source, Transport};

use super::*;

const LIMIT: usize = 64;

/// Handshakes that begin one after the other, a millisecond apart.
struct Many {
    handshakes: Handshakes<usize>,
    next: usize,
    now: Instant,
}

impl Many {
    fn new(limit: usize) -> Self {
        Self {
            handshakes: Handshakes::new(limit),
            next: 0,
            now: Instant::now(),
        }
    }

    fn begin(&mut self, transport: Transport, from: &str) -> (usize, Place<usize>) {
        let ip: IpAddr = from.parse().expect("an address");
        let key = self.next;
        self.next += 1;
        self.now += Duration::from_millis(1);
        let place = self.handshakes.begin(key, transport, ip.into(), self.now);
        (key, place)
    }

    /// How many of 4 x the limit are under way at the end, and which.
    fn flood(&mut self, transport: Transport, from: impl Fn(usize) -> String) -> Vec<usize> {
        let keys = (0..4 * LIMIT).map(|number| self.begin(transport, &from(number)).0);
        let keys: Vec<usize> = keys.collect();
        self.under_way(transport, &keys)
    }

    fn under_way(&self, transport: Transport, keys: &[usize]) -> Vec<usize> {
        let holders = &self.handshakes.of[&transport].shares.holders;
        let open = keys.iter().filter(|key| holders.contains_key(key));
        open.copied().collect()
    }

    fn waits(&mut self, time: Duration) {
        self.now += time;
    }
}

const TCP: Transport = Transport::Tcp;
const QUIC: Transport = Transport::Quic;
const OF_TRANSPORT: usize = LIMIT - LIMIT / 4;
const OF_FAMILY: usize = OF_TRANSPORT - OF_TRANSPORT / 4;

fn one_64(number: usize) -> String {
    format!("2001:db8:0:100::{number:x}")
}

fn four_64_of_one_56(number: usize) -> String {
    format!("2001:db8:0:1{:02x}::{number:x}", number % 4)
}

fn four_56_of_one_48(number: usize) -> String {
    format!("2001:db8:0:{:x}00::{number:x}", 1 + number % 4)
}

fn four_48(number: usize) -> String {
    format!("2001:db8:{:x}:100::{number:x}", number % 4)
}

fn every_64_of_one_48(number: usize) -> String {
    format!("2001:db8:0:{number:x}::1")
}

#[test]
fn whoever_takes_everything_gives_a_place_to_anybody_else_at_once_and_the_oldest_goes_first() {
    for transport in [TCP, QUIC] {
        let mut many = Many::new(LIMIT);
        let held = many.flood(transport, |_| "198.51.100.1".to_owned());
        assert_eq!(held.len(), OF_FAMILY);
        assert_eq!(held[0], 0, "its own newcomers displace nothing young");
        let (honest, place) = many.begin(transport, "198.51.100.2");
        assert_eq!(place, Place::Of(held[0]));
        many.flood(transport, |_| "198.51.100.1".to_owned());
        assert_eq!(many.under_way(transport, &[honest]), [honest]);
    }
}

#[test]
fn addresses_of_one_ipv6_network_share_however_many_64s_they_are() {
    for networks in [
        one_64 as fn(usize) -> String,
        four_64_of_one_56,
        four_56_of_one_48,
        four_48,
        every_64_of_one_48,
    ] {
        for transport in [TCP, QUIC] {
            let mut many = Many::new(LIMIT);
            assert_eq!(many.flood(transport, networks).len(), OF_FAMILY);
            let (other, place) = many.begin(transport, "2001:db8:ffff::1");
            assert!(matches!(place, Place::Of(_)), "{place:?}");
            // A family that does not take part is not even asked to displace anybody.
            for host in 1..=OF_TRANSPORT / 4 {
                let (_, place) = many.begin(transport, &format!("198.51.100.{host}"));
                assert_eq!(place, Place::Free, "{host}");
            }
            many.flood(transport, networks);
            assert_eq!(many.under_way(transport, &[other]), [other]);
        }
    }
}

#[test]
fn within_a_network_the_same_rule_holds() {
    let mut many = Many::new(LIMIT);
    let honest_56 = many.begin(TCP, "2001:db8:0:200::1").0;
    let honest_64 = many.begin(TCP, "2001:db8:0:101::1").0;
    many.flood(TCP, one_64);
    let (late, place) = many.begin(TCP, "2001:db8:0:102::1");
    assert!(
        matches!(place, Place::Of(key) if key > honest_64),
        "{place:?}"
    );
    many.flood(TCP, one_64);
    let all = [honest_56, honest_64, late];
    assert_eq!(many.under_way(TCP, &all), all);
}

#[test]
fn a_neighbour_of_an_attacker_at_one_address_gets_the_place_of_an_old_handshake() {
    let mut many = Many::new(LIMIT);
    let held = many.flood(TCP, |_| "198.51.100.1".to_owned());
    assert_eq!(many.begin(TCP, "198.51.100.1").1, Place::None);
    many.waits(PATIENCE);
    let (neighbour, place) = many.begin(TCP, "198.51.100.1");
    assert_eq!(place, Place::Of(held[0]));
    assert_eq!(many.under_way(TCP, &[neighbour]), [neighbour]);
}

#[test]
fn among_sources_with_one_handshake_each_only_old_ones_give_way() {
    let mut many = Many::new(LIMIT);
    let held = many.flood(TCP, |number| format!("198.51.100.{}", number % 250));
    assert_eq!(held.len(), OF_FAMILY);
    assert_eq!(many.begin(TCP, "203.0.113.1").1, Place::None);
    many.waits(PATIENCE);
    assert_eq!(many.begin(TCP, "203.0.113.1").1, Place::Of(held[0]));
}

#[test]
fn a_transport_takes_nothing_of_the_other() {
    for (flooded, other) in [(TCP, QUIC), (QUIC, TCP)] {
        let mut many = Many::new(LIMIT);
        let every = |number: usize| format!("10.{}.{}.1", number / 200, number % 200);
        many.flood(flooded, every);
        many.flood(flooded, one_64);
        assert_eq!(many.handshakes.len(), OF_TRANSPORT);
        for _ in 0..LIMIT / 4 {
            assert_eq!(many.begin(other, "10.0.1.1").1, Place::Free);
        }
        let before = many.handshakes.of[&flooded].shares.len();
        many.begin(other, "10.0.2.1");
        assert_eq!(many.handshakes.of[&flooded].shares.len(), before);
    }
}

#[test]
fn a_handshake_that_is_over_leaves_nothing() {
    let mut many = Many::new(LIMIT);
    many.flood(TCP, four_48);
    many.flood(QUIC, |number| format!("198.51.100.{}", number % 5));
    for key in 0..many.next {
        many.handshakes.end(&key);
        many.handshakes.end(&key);
    }
    assert!(many.handshakes.is_empty());
    for places in many.handshakes.of.values() {
        assert!(places.shares.members.is_empty() && places.shares.loads.is_empty());
        assert!(places.of_family.values().all(|taken| *taken == 0));
    }
}

#[test]
fn a_small_limit_admits_somebody() {
    for limit in 1..4 {
        for transport in [TCP, QUIC] {
            let mut many = Many::new(limit);
            assert_eq!(many.begin(transport, "198.51.100.1").1, Place::Free);
            many.waits(PATIENCE);
            let (_, place) = many.begin(transport, "2001:db8::1");
            assert_ne!(place, Place::None, "{limit}");
        }
    }
}

#[test]
fn a_place_that_may_not_be_taken_is_left_and_a_family_keeps_its_part() {
    let mut places: Places<usize, Network> = Places::new(8, 1);
    let now = Instant::now();
    let parts = |from: &str| -> Vec<Network> {
        let ip: IpAddr = from.parse().expect("an address");
        Source::from(ip).networks().collect()
    };
    let busy = |key: &usize| *key > 3;
    let zero = Duration::ZERO;
    for key in 0..7 {
        places.take(key, &parts("198.51.100.1"), now);
    }
    let new = parts("198.51.100.2");
    assert_eq!(places.place(&new, false, zero, now, |_| false), Place::None);
    assert_eq!(places.place(&new, false, zero, now, busy), Place::Of(4));
    let other = parts("2001:db8::1");
    assert_eq!(places.place(&other, false, zero, now, busy), Place::Free);
    places.take(7, &other, now);
    // The only one of the other family is not taken, though it may leave and all of the first are busy.
    assert_eq!(
        places.place(&new, false, zero, now, |key| *key == 7),
        Place::None
    );
}

#[test]
fn where_memory_is_for_few_handshakes_either_transport_and_a_lighter_source_still_get_a_place() {
    let mut many = Many::new(LIMIT);
    many.handshakes.set_room(8);
    let quic: Vec<_> = (0..10).map(|_| many.begin(QUIC, "192.0.2.1").0).collect();
    assert_eq!(many.under_way(QUIC, &quic).len(), 5, "one is kept for IPv6");
    let first = many.begin(TCP, "192.0.2.1");
    assert_eq!(first.1, Place::Free);
    assert_eq!(many.begin(TCP, "198.51.100.1").1, Place::Free);
    assert_eq!(many.begin(QUIC, "2001:db8::1").1, Place::Free);
    many.handshakes.set_room(0);
    assert_eq!(many.begin(TCP, "192.0.2.1").1, Place::None);
    many.waits(PATIENCE);
    assert_eq!(many.begin(TCP, "203.0.113.1").1, Place::Of(first.0));
    many.handshakes.set_room(usize::MAX);
    assert_eq!(many.begin(TCP, "192.0.2.1").1, Place::Free);
}
