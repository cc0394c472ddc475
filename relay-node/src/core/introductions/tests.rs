#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn seen(peer: PeerId, from: &[&str]) -> Seen {
    let mut seen = Seen::default();
    for (number, from) in addrs(from).iter().enumerate() {
        seen.connected(peer, id(number), from);
    }
    seen
}

#[test]
fn the_newest_of_each_transport_and_family_comes_first_and_each_once() {
    let peer = PeerId::random();
    let from = [
        "/ip4/198.51.100.7/udp/1/quic-v1",
        "/ip4/198.51.100.7/tcp/2",
        "/ip6/::ffff:198.51.100.7/udp/3/quic-v1",
        "/ip4/198.51.100.7/tcp/2",
        "/ip6/2001:db8::7/tcp/4",
        "/memory/5",
    ];
    let mut seen = seen(peer, &from);
    let all = [
        "/ip6/2001:db8::7/tcp/4",
        "/ip4/198.51.100.7/tcp/2",
        "/ip4/198.51.100.7/udp/3/quic-v1",
    ];
    assert_eq!(seen.addresses(&peer), addrs(&all));
    for number in 0..6 {
        seen.closed(&peer, id(number));
    }
    assert!(seen.addresses(&peer).is_empty() && seen.peers.is_empty());
}

#[test]
fn lists_are_bounded() {
    let peer = PeerId::random();
    let many: Vec<String> = (1..100)
        .flat_map(|n| [1, 2, 3].map(|port| format!("/ip4/1.2.3.{n}/tcp/{port}")))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let listed = seen(peer, &many).addresses(&peer);
    assert_eq!(listed.len(), MAX_ADDRS);
    assert_eq!(
        listed[..2],
        addrs(&["/ip4/1.2.3.99/tcp/3", "/ip4/1.2.3.99/tcp/2"])
    );
    assert_eq!(
        ip(&listed[2]),
        Some([1, 2, 3, 98].into()),
        "two on one address"
    );
}

#[test]
fn of_the_askers_words_only_sockets_where_it_was_seen_are_passed_on() {
    let words = [
        "/dns4/example.net/tcp/5",
        "/ip4/1.2.3.4/tcp/5/p2p/12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt/p2p-circuit",
        "/ip4/5.6.7.8/tcp/6",
        "/ip4/10.0.0.1/tcp/6",
        "/ip6/2001:db8::1/tcp/6",
        "/ip4/1.2.3.4/tcp/6/p2p/12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt",
        "/ip4/1.2.3.4/tcp/7",
    ];
    let seen = addrs(&["/ip4/1.2.3.4/udp/5/quic-v1"]);
    let sent = with_its_own(seen.clone(), &addrs(&words));
    let own = addrs(&["/ip4/1.2.3.4/tcp/6"]);
    assert_eq!(sent, [seen, own].concat());
    assert!(with_its_own(Vec::new(), &addrs(&words)).is_empty());
}

#[test]
fn two_peers_are_near_where_the_relay_sees_both_in_one_network() {
    let [a, b] = [PeerId::random(), PeerId::random()];
    let near = |ours: &str, theirs: &str| {
        let at = |ip: &str| {
            format!(
                "/{}/{ip}/tcp/1",
                if ip.contains(':') { "ip6" } else { "ip4" }
            )
        };
        let mut all = seen(a, &[&at(ours)]);
        all.connected(b, id(9), &at(theirs).parse().unwrap());
        all.near(&a, &b)
    };
    for (ours, theirs, same_network, is_private) in [
        ("1.2.3.4", "1.2.3.4", true, false),
        ("1.2.3.4", "1.2.3.5", false, false),
        ("2001:db8::1", "2001:db8::2", true, false),
        ("2001:db8::1", "2001:db8:0:1::1", false, false),
        ("10.0.0.1", "1.2.3.4", false, false),
        ("10.0.0.1", "127.0.0.1", false, false),
        ("10.0.0.1", "10.9.0.1", false, true),
        ("127.0.0.1", "127.0.0.1", false, true),
    ] {
        let private = is_private.then(|| PrivateIps {
            other: theirs.parse().unwrap(),
            own: ours.parse().unwrap(),
        });
        let expected = Near {
            same_network,
            private,
        };
        assert_eq!(near(ours, theirs), expected, "{ours} {theirs}");
    }
}

#[test]
fn a_peer_is_seen_at_addresses_that_it_has_and_only_so_many_are_looked_up() {
    let peer = PeerId::random();
    let seen = seen(peer, &["/ip4/1.2.3.4/tcp/1", "/ip6/2001:db8::1/tcp/1"]);
    let ips = |all: &[&str]| -> Vec<IpAddr> { all.iter().map(|ip| ip.parse().unwrap()).collect() };
    let asked = ips(&["1.2.3.5", "2001:db8::1", "1.2.3.4"]);
    assert_eq!(
        seen.seen_at(&peer, &asked),
        ips(&["2001:db8::1", "1.2.3.4"])
    );
    let late = [vec![asked[0]; hop::MAX_IPS], ips(&["1.2.3.4"])].concat();
    assert_eq!(seen.seen_at(&peer, &late), ips(&[]));
    assert_eq!(seen.seen_at(&PeerId::random(), &asked), ips(&[]));
}

#[test]
fn peers_behind_a_translator_in_front_of_the_relay_are_neither_near_nor_introduced() {
    let [a, b] = [PeerId::random(), PeerId::random()];
    for source in ["10.0.0.1", "203.0.113.1"] {
        let mut all = seen(a, &[&format!("/ip4/{source}/tcp/1")]);
        all.connected(b, id(9), &format!("/ip4/{source}/tcp/2").parse().unwrap());
        assert_ne!(all.near(&a, &b), Near::default());
        let gateways = [source.parse().unwrap()].into();
        all.host(&BTreeSet::new(), &gateways, std::iter::empty());
        assert_eq!(all.near(&a, &b), Near::default());
        assert!(all.addresses(&a).is_empty());
        assert_eq!(all.front.translated().map(|of| of.peers), Some(2));
    }
}

#[test]
fn two_have_in_common_what_both_have_in_one_family() {
    let a = addrs(&["/ip6/2001:db8::1/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/2"]);
    assert!(have_in_common(&a, &addrs(&["/ip4/5.6.7.8/tcp/2"])));
    assert!(!have_in_common(&a, &addrs(&["/ip4/5.6.7.8/udp/2/quic-v1"])));
    assert!(!have_in_common(&a, &[]));
}

#[test]
fn introductions_are_for_those_who_say_so() {
    let peer = PeerId::random();
    let mut seen = seen(peer, &["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1"]);
    seen.identified(&peer, id(0), &[introduction::PROTOCOL]);
    seen.identified(&peer, id(1), &[]);
    assert!(seen.takes(&peer, id(0)) && !seen.takes(&peer, id(1)));
    assert_eq!(seen.addresses(&peer), addrs(&["/ip4/1.2.3.4/tcp/1"]));
    assert!(!seen.takes(&PeerId::random(), id(0)));
}

/// Four peers that take introductions, and how many of 64 requests for the first `wanted` of them a new asker is granted.
struct Asking(Introductions, [PeerId; 4], Instant);

impl Asking {
    fn new() -> Self {
        let (mut introductions, wanted) =
            (Introductions::default(), [(); 4].map(|()| PeerId::random()));
        for (number, peer) in wanted.iter().enumerate() {
            let from = "/ip4/198.51.100.9/tcp/1".parse().unwrap();
            introductions.seen.connected(*peer, id(number), &from);
            let protocols = [introduction::PROTOCOL];
            introductions.seen.identified(peer, id(number), &protocols);
        }
        Self(introductions, wanted, Instant::now())
    }

    fn asks(&mut self, number: usize, from: &str, wanted: usize) -> usize {
        let Self(introductions, peers, now) = self;
        let asker = PeerId::random();
        let from = from.parse().unwrap();
        introductions.seen.connected(asker, id(number), &from);
        let made = (0..64).filter(|n| {
            let request = Request {
                peer: peers[n % wanted],
                addrs: Vec::new(),
                search: None,
            };
            let place = Some(id(n % wanted));
            introductions
                .introduce(asker, &request, place, *now)
                .is_ok()
        });
        made.count()
    }
}

#[test]
fn the_peers_of_one_source_share_what_it_may_ask_and_another_source_is_served() {
    let mut asking = Asking::new();
    let of_one: usize = (100..120)
        .map(|number| asking.asks(number, "/ip4/203.0.113.5/tcp/1", 4))
        .sum();
    assert_eq!(of_one, 256);
    assert_eq!(asking.asks(200, "/ip4/203.0.113.6/tcp/1", 4), 64);
}

#[test]
fn what_a_source_asks_of_a_peer_that_others_ask_too_often_is_not_taken_from_its_share() {
    let mut asking = Asking::new();
    let of_one: usize = (100..104)
        .map(|number| asking.asks(number, "/ip4/203.0.113.5/tcp/1", 1))
        .sum();
    assert_eq!(of_one, 128, "as often as one peer may be asked for");
    assert_eq!(asking.asks(200, "/ip4/203.0.113.6/tcp/1", 1), 0);
    let of_six: usize = (201..210)
        .map(|number| asking.asks(number, "/ip4/203.0.113.6/tcp/1", 4))
        .sum();
    assert_eq!(of_six, 256, "three of four peers can be asked for");
}
