//! Who is served, refused and disconnected.

use std::net::Ipv4Addr;

use super::*;

const LIMITED: PerSource = PerSource {
    ip4: 1024,
    ip6_net: 1024,
};
const HOST: Option<Source> = Some(Source::Ip4(Ipv4Addr::LOCALHOST));

fn asker(peer: PeerId, source: Option<Source>) -> Asker {
    Asker {
        peer,
        source,
        holds: false,
    }
}

fn net(prefix: [u16; 4]) -> Option<Source> {
    Some(Source::Net6(prefix))
}

/// How many of `times` requests, by a peer of its own each or by one, are served.
fn served(
    rates: &mut Rates,
    times: usize,
    request: Request,
    peer: Option<PeerId>,
    source: Option<Source>,
    now: Instant,
) -> usize {
    let serves = |_: &usize| {
        let peer = peer.unwrap_or_else(|| {
            let peer = PeerId::random();
            rates.connected(peer);
            peer
        });
        rates.judge(request, asker(peer, source), now) == Verdict::Serve
    };
    (0..times).filter(serves).count()
}

#[test]
fn a_request_is_the_index_of_its_measures() {
    for (index, request) in Request::ALL.into_iter().enumerate() {
        assert_eq!(request as usize, index);
    }
}

#[test]
fn a_peer_that_asks_without_end_is_served_its_measure_then_refused_then_disconnected() {
    let (mut rates, peer, now) = (Rates::new(LIMITED), PeerId::random(), Instant::now());
    rates.connected(peer);
    let mut verdicts = (0..6000).map(|_| rates.judge(Request::Reserve, asker(peer, HOST), now));
    let mut count = |wanted| verdicts.by_ref().take_while(|is| *is == wanted).count();
    assert_eq!(count(Verdict::Serve), 32);
    // The verdict that ends a row is taken with it.
    assert_eq!(count(Verdict::Refuse), 1023);
    assert!(verdicts.all(|verdict| verdict == Verdict::Close));
    assert_eq!(
        rates.judge(Request::Connect, asker(peer, HOST), now),
        Verdict::Serve,
        "what it asks otherwise"
    );
    let later = now + Duration::from_secs(5);
    assert_eq!(
        served(&mut rates, 32, Request::Reserve, Some(peer), HOST, later),
        5
    );
}

#[test]
fn many_ids_of_one_source_share_its_measure_and_other_sources_have_theirs() {
    let (mut rates, now) = (Rates::new(LIMITED), Instant::now());
    let other = Some(Source::Ip4([198, 51, 100, 1].into()));
    assert_eq!(
        served(&mut rates, 20_000, Request::Reserve, None, HOST, now),
        8192
    );
    assert_eq!(
        served(&mut rates, 100, Request::Reserve, None, other, now),
        100
    );
    let later = now + Duration::from_secs(1);
    let sustained = served(&mut rates, 20_000, Request::Reserve, None, HOST, later);
    assert!((136..138).contains(&sustained), "{sustained}");
}

#[test]
fn what_a_peer_is_refused_is_not_taken_from_what_its_source_may_ask() {
    for source in [HOST, net([0x2001, 0xdb8, 1, 1])] {
        let (mut rates, now) = (Rates::new(LIMITED), Instant::now());
        let greedy = PeerId::random();
        rates.connected(greedy);
        let of_greedy = served(
            &mut rates,
            20_000,
            Request::Reserve,
            Some(greedy),
            source,
            now,
        );
        assert_eq!(of_greedy, 32);
        let of_others = served(&mut rates, 20_000, Request::Reserve, None, source, now);
        assert_eq!(of_others, 8192 - 32, "{source:?}");
    }
}

#[test]
fn what_a_large_network_is_refused_is_not_taken_from_a_smaller_one() {
    let (mut rates, now) = (Rates::new(LIMITED), Instant::now());
    for net64 in 0..2 {
        let source = net([0x2001, 0xdb8, 1, net64]);
        served(&mut rates, 10_000, Request::Reserve, None, source, now);
    }
    let third = net([0x2001, 0xdb8, 1, 2]);
    assert_eq!(
        served(&mut rates, 10_000, Request::Reserve, None, third, now),
        0,
        "the /56 has nothing left"
    );
    // As much as the /56 has again, of which the /64 has everything.
    let later = now + Duration::from_secs(1);
    let again = served(&mut rates, 10_000, Request::Reserve, None, third, later);
    assert!((272..275).contains(&again), "{again}");
}

#[test]
fn ipv6_networks_have_twice_and_four_times_the_measure_of_one_of_them() {
    let (mut rates, now) = (Rates::new(LIMITED), Instant::now());
    let mut in_all = 0;
    for net64 in 0..64 {
        let source = net([0x2001, 0xdb8, 1, net64]);
        in_all += served(&mut rates, 10_000, Request::Reserve, None, source, now);
        if net64 == 3 {
            assert_eq!(in_all, 2 * 8192, "of a /56");
        }
    }
    assert_eq!(in_all, 2 * 8192);
    for net56 in 1..8 {
        let source = net([0x2001, 0xdb8, 1, net56 << 8]);
        in_all += served(&mut rates, 10_000, Request::Reserve, None, source, now);
    }
    assert_eq!(in_all, 4 * 8192, "of a /48");
    let other = net([0x2001, 0xdb8, 2, 0]);
    assert_eq!(
        served(&mut rates, 10, Request::Reserve, None, other, now),
        10
    );
}

#[test]
fn as_many_peers_as_a_source_may_have_start_at_once_and_without_a_limit_any_number() {
    let starts = |peers: usize, limits| {
        let (mut rates, now) = (Rates::new(limits), Instant::now());
        (0..peers).all(|_| {
            let peer = PeerId::random();
            rates.connected(peer);
            Request::ALL.into_iter().all(|request| {
                let times = request.terms().start as usize;
                served(&mut rates, times, request, Some(peer), HOST, now) == times
            })
        })
    };
    assert!(starts(1024, LIMITED));
    assert!(!starts(2048, LIMITED));
    assert!(starts(2048, PerSource { ip4: 0, ip6_net: 0 }));
}

#[test]
fn peers_with_a_reservation_do_not_share_with_those_that_have_none() {
    let (mut rates, now) = (Rates::new(LIMITED), Instant::now());
    served(&mut rates, 20_000, Request::Reserve, None, HOST, now);
    let peer = PeerId::random();
    rates.connected(peer);
    let holder = Asker {
        holds: true,
        ..asker(peer, HOST)
    };
    let verdict = rates.judge(Request::Reserve, holder, now);
    assert_eq!(verdict, Verdict::Serve, "a renewal");
}

#[test]
fn a_source_whose_peers_flood_again_and_again_is_shut_out_for_a_while() {
    let large = PerSource {
        ip4: 8192,
        ..LIMITED
    };
    let (mut rates, now) = (Rates::new(large), Instant::now());
    let source = Source::Ip4(Ipv4Addr::LOCALHOST);
    let mut asked = 0;
    while !rates.shuts_out(source, now) {
        let peer = PeerId::random();
        rates.connected(peer);
        while rates.judge(Request::Reserve, asker(peer, HOST), now) != Verdict::Close {
            asked += 1;
        }
        rates.forget(&peer);
    }
    assert_eq!(asked, 5 * (32 + 1024));
    let peers = [(); 2].map(|()| PeerId::random());
    for peer in peers {
        rates.connected(peer);
    }
    assert_eq!(
        served(&mut rates, 32, Request::Reserve, Some(peers[0]), HOST, now),
        32
    );
    let refused = rates.judge(Request::Reserve, asker(peers[0], HOST), now);
    assert_eq!(refused, Verdict::Close, "without patience");
    let holder = Asker {
        holds: true,
        ..asker(peers[1], HOST)
    };
    for _ in 0..32 {
        assert_eq!(rates.judge(Request::Reserve, holder, now), Verdict::Serve);
    }
    assert_eq!(rates.judge(Request::Reserve, holder, now), Verdict::Refuse);
    assert!(!rates.shuts_out(Source::Ip4([198, 51, 100, 1].into()), now));
    assert!(!rates.shuts_out(source, now + SHUT_OUT));
}

#[test]
fn a_peer_leaves_nothing_behind_and_one_at_rest_takes_no_room() {
    let (mut rates, peer, now) = (Rates::new(LIMITED), PeerId::random(), Instant::now());
    rates.connected(peer);
    for request in Request::ALL {
        rates.judge(request, asker(peer, HOST), now);
    }
    let later = now + Duration::from_secs(3600);
    rates.judge(Request::Join, asker(peer, HOST), later);
    assert_eq!(rates.peers[&peer].of.len(), 1);
    rates.forget(&peer);
    rates.judge(Request::Join, asker(peer, HOST), later);
    assert!(rates.peers.is_empty());
}
