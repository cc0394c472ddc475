#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::Ipv4Addr;

use libp2p::{Multiaddr, identity::Keypair};
use p2pnode_protocol::directory::{Registration, TTL};

use super::*;

struct Relay {
    records: Records,
    local: PeerId,
    now: Instant,
    seq: u64,
}

fn source(host: u8) -> Option<Source> {
    Some(Source::Ip4(Ipv4Addr::new(198, 51, 100, host)))
}

impl Relay {
    /// A relay with one other one.
    fn new(limit: usize, per_source: usize) -> Self {
        let local = PeerId::random();
        let per_source = PerSource {
            ip4: per_source,
            ip6_net: per_source,
        };
        Self {
            records: Records::new(local, limit, 1, per_source),
            local,
            now: Instant::now(),
            seq: 0,
        }
    }

    fn offer(&mut self, key: &Keypair, from: PeerId) -> Offer {
        self.seq += 1;
        let addr: Multiaddr = "/ip4/203.0.113.7/tcp/443".parse().unwrap();
        let value = Registration::sign(key, self.seq, &[addr]).unwrap();
        let peer = key.public().to_peer_id();
        Offer {
            source: from,
            registration: Registration::read(&peer.to_bytes(), &value).unwrap(),
            value,
            expires: self.now + TTL,
        }
    }

    /// A new peer registers from there while it holds a reservation.
    fn registers(&mut self, source: Option<Source>) -> Result<PeerId, NotKept> {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let offer = self.offer(&key, peer);
        let standing = Standing {
            holds: true,
            source,
            vouchers: vec![self.local],
        };
        self.records.keep(offer, standing, self.now).map(|_| peer)
    }

    /// Another relay brings the record of a new peer.
    fn copied(&mut self, from: PeerId) -> Result<PeerId, NotKept> {
        let key = Keypair::generate_ed25519();
        let offer = self.offer(&key, from);
        let standing = Standing {
            holds: false,
            source: None,
            vouchers: vec![from],
        };
        let peer = key.public().to_peer_id();
        self.records.keep(offer, standing, self.now).map(|_| peer)
    }

    fn has(&self, peer: &PeerId) -> bool {
        self.records.of(peer, self.now).is_some()
    }

    fn count(&self, peers: &[PeerId]) -> usize {
        peers.iter().filter(|peer| self.has(peer)).count()
    }
}

#[test]
fn a_source_has_as_many_records_as_reservations_and_64_at_least() {
    for (per_source, records) in [(2, 64), (100, 100)] {
        let mut relay = Relay::new(1000, per_source);
        let kept = (0..300).filter(|_| relay.registers(source(1)).is_ok());
        assert_eq!(kept.count(), records);
        assert!(relay.registers(source(2)).is_ok());
    }
}

#[test]
fn ids_of_one_ipv6_48_share_four_times_that_and_without_a_limit_there_is_none() {
    let net = |number: u16| Some(Source::Net6([0x2001, 0xdb8, 1, number << 8]));
    let mut relay = Relay::new(10_000, 2);
    let kept = (0..100).flat_map(|number| [net(number); 8]);
    let kept = kept
        .filter(|source| relay.registers(*source).is_ok())
        .count();
    assert_eq!(kept, 4 * 64);
    let mut relay = Relay::new(300, 0);
    assert!((0..300).all(|_| relay.registers(source(1)).is_ok()));
}

#[test]
fn peers_without_a_reservation_give_way_to_peers_with_one() {
    let mut relay = Relay::new(10, 0);
    let gone: Vec<PeerId> = (0..5)
        .map(|_| relay.registers(source(1)).unwrap())
        .collect();
    let held: Vec<PeerId> = (0..5)
        .map(|_| relay.registers(source(1)).unwrap())
        .collect();
    for peer in &gone {
        relay.records.released(peer, relay.now);
        relay.now += Duration::from_secs(1);
    }
    for taken in 1..=5 {
        relay.registers(source(1)).unwrap();
        assert_eq!(relay.count(&gone), 5 - taken, "the one that left first");
    }
    assert_eq!(relay.count(&held), 5);
    assert_eq!(relay.registers(source(1)), Err(NotKept::Full));
}

#[test]
fn a_source_that_fills_the_directory_gives_way_to_each_other_one() {
    let mut relay = Relay::new(20, 0);
    let flood: Vec<PeerId> = (0..20)
        .map(|_| relay.registers(source(1)).unwrap())
        .collect();
    let honest: Vec<PeerId> = (2..10)
        .map(|host| relay.registers(source(host)).unwrap())
        .collect();
    for _ in 0..100 {
        assert!(relay.registers(source(1)).is_err());
    }
    assert_eq!((relay.count(&flood), relay.count(&honest)), (12, 8));
    assert_eq!(relay.records.len(), 20);
}

#[test]
fn strangers_of_another_relay_take_no_more_than_its_share_from_ours_nor_ours_from_it() {
    let (mut relay, other) = (Relay::new(20, 0), PeerId::random());
    let copies: Vec<PeerId> = (0..20).map(|_| relay.copied(other).unwrap()).collect();
    let own: Vec<PeerId> = (0..10)
        .map(|_| relay.registers(source(1)).unwrap())
        .collect();
    assert_eq!((relay.count(&copies), relay.count(&own)), (10, 10));
    assert!(relay.registers(source(1)).is_err());
    assert!((0..100).all(|_| relay.copied(other).is_err()));
    assert_eq!((relay.count(&copies), relay.count(&own)), (10, 10));

    let mut relay = Relay::new(20, 0);
    let own: Vec<PeerId> = (0..20)
        .map(|_| relay.registers(source(1)).unwrap())
        .collect();
    let copied = (0..20).filter(|_| relay.copied(other).is_ok()).count();
    // A copy is a peer's that holds a reservation elsewhere.
    assert_eq!((copied, relay.count(&own)), (10, 10));
}

#[test]
fn a_record_ends_two_minutes_after_the_last_reservation_of_its_peer_unless_that_comes_back() {
    let mut relay = Relay::new(20, 0);
    let [left, back] = [(); 2].map(|()| relay.registers(source(1)).unwrap());
    for peer in [&left, &back] {
        relay.records.released(peer, relay.now);
    }
    relay.now += LINGER - Duration::from_secs(1);
    assert_eq!(relay.records.poll_left(relay.now), None);
    relay.records.reserved(&back);
    relay.now += Duration::from_secs(1);
    assert_eq!(relay.records.poll_timeout(), Some(relay.now));
    assert_eq!(relay.records.poll_left(relay.now), Some((left, true)));
    assert_eq!(relay.records.poll_left(relay.now), None);
    assert!(!relay.has(&left) && relay.has(&back));
    let copy = relay.records.copy(&left, relay.now).unwrap();
    assert_eq!(copy.expires, relay.now + TAKEN_BACK, "elsewhere");
}

#[test]
fn a_record_ends_when_the_last_relay_that_vouches_for_it_takes_it_back() {
    let (mut relay, other, third) = (Relay::new(20, 0), PeerId::random(), PeerId::random());
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let offer = relay.offer(&key, other);
    let standing = Standing {
        holds: false,
        source: None,
        vouchers: vec![other, relay.local],
    };
    relay
        .records
        .keep(offer.clone(), standing.clone(), relay.now)
        .unwrap();
    let take_back = |relay: &mut Relay, from| {
        let offer = Offer {
            source: from,
            expires: relay.now + TAKEN_BACK,
            ..offer.clone()
        };
        relay.records.keep(offer, standing.clone(), relay.now)
    };
    // The peer names this relay as well, and does not come.
    relay.now += LINGER;
    assert_eq!(relay.records.poll_left(relay.now), Some((peer, false)));
    assert_eq!(take_back(&mut relay, third), Err(NotKept::Old));
    assert!(relay.has(&peer));
    assert_eq!(take_back(&mut relay, other), Ok((Kept::TakenBack, None)));
    relay.now += TAKEN_BACK;
    assert_eq!(relay.records.expire(relay.now), [peer]);
}

#[test]
fn nothing_stays_of_records_that_are_gone() {
    let (mut relay, other) = (Relay::new(20, 0), PeerId::random());
    let net = Some(Source::Net6([0x2001, 0xdb8, 1, 2]));
    for source in [source(1), net, None] {
        let peer = relay.registers(source).unwrap();
        relay.records.released(&peer, relay.now);
    }
    relay.copied(other).unwrap();
    relay.now += TTL;
    while relay.records.poll_left(relay.now).is_some() {}
    relay.records.expire(relay.now);
    let Records {
        kept,
        of_owner,
        of_network,
        lingering,
        taken_back,
        ..
    } = relay.records;
    assert!(kept.is_empty() && of_owner.is_empty() && of_network.is_empty());
    assert!(lingering.is_empty() && taken_back.is_empty());
}
