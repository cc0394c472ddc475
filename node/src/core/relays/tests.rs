#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod seconds;

use std::time::Duration;

use libp2p::core::transport::ListenerId;
use p2pnode_daemon::backoff::backoff;
use proptest::prelude::*;

use super::{
    leg::{BACKOFF_MAX, BACKOFF_MIN, LIKELY, RETRY_MAX, SHARE, STABLE},
    reservations::{Lost, RESERVE_BACKOFF_MAX, RESERVE_BACKOFF_MIN},
    *,
};

fn relay(peer: PeerId) -> RelayAddr {
    RelayAddr {
        peer,
        addr: "/ip4/203.0.113.10/udp/443/quic-v1".parse().unwrap(),
    }
}

fn id(n: usize) -> ConnectionId {
    ConnectionId::new_unchecked(n)
}

fn poll(keeper: &mut RelayKeeper, now: Instant) -> Option<Action> {
    keeper.handle_timeout(now);
    keeper.poll_action()
}

/// Drains the keeper and lets every dial succeed and every reservation be asked for under a fresh listener id.
fn settle(keeper: &mut RelayKeeper, next: &mut usize, now: Instant) -> Vec<(PeerId, ListenerId)> {
    let mut asked = Vec::new();
    while let Some(action) = poll(keeper, now) {
        match action {
            Action::Dial { leg, .. } => {
                *next += 1;
                keeper.handle_dialing(leg, id(*next));
                assert_eq!(keeper.handle_established(id(*next), now), Opened::Leg);
                keeper.handle_identified(id(*next), now).unwrap();
            }
            Action::Reserve { relay } => {
                let listener = ListenerId::next();
                keeper.handle_reserving(&relay, listener);
                asked.push((relay.peer, listener));
            }
        }
    }
    asked
}

#[test]
fn holds_as_many_reservations_as_wanted_and_the_next_relay_takes_the_place_of_a_lost_one() {
    let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
    let now = Instant::now();
    let mut keeper = RelayKeeper::new(&peers.map(relay), 2, FamilyPolicy::Auto, now);
    let mut next = 0;
    let asked = settle(&mut keeper, &mut next, now);
    assert_eq!(
        asked.iter().map(|(p, _)| *p).collect::<Vec<_>>(),
        peers[..2]
    );
    for (peer, _) in &asked {
        assert_eq!(keeper.handle_reserved(peer, Family::Ip4), Reserved::First);
        assert_eq!(
            keeper.handle_reserved(peer, Family::Ip4),
            Reserved::Further,
            "a renewal is not new"
        );
    }
    assert_eq!(keeper.held(), 2);

    let lost = keeper.handle_listener_closed(asked[0].1, now, 0.0).unwrap();
    assert_eq!(
        lost,
        Lost {
            relay: peers[0],
            leg: Some(id(1)),
            was_held: true,
            is_held: false,
            failures: 0,
        }
    );
    let asked = settle(&mut keeper, &mut next, now);
    assert_eq!(
        asked.iter().map(|(p, _)| *p).collect::<Vec<_>>(),
        [peers[2]]
    );
}

#[test]
fn a_relay_that_drains_keeps_its_reservation_while_another_one_is_asked_and_is_asked_again_once_it_is_back()
 {
    let peers = [PeerId::random(), PeerId::random()];
    let now = Instant::now();
    let mut keeper = RelayKeeper::new(&peers.map(relay), 1, FamilyPolicy::Auto, now);
    let mut next = 0;
    let asked = settle(&mut keeper, &mut next, now);
    assert_eq!(asked.len(), 1);
    let (first, listener) = asked[0];
    assert_eq!(first, peers[0]);
    assert_eq!(keeper.handle_reserved(&first, Family::Ip4), Reserved::First);

    assert_eq!(keeper.handle_draining(id(99), None), Drain::NotOurs);
    assert_eq!(keeper.handle_draining(id(1), None), Drain::Begun);
    assert_eq!(keeper.handle_draining(id(1), None), Drain::Known);
    assert!(keeper.holds(&first), "until the relay ends it");
    let asked = settle(&mut keeper, &mut next, now);
    assert_eq!(
        asked.iter().map(|(p, _)| *p).collect::<Vec<_>>(),
        peers[1..]
    );
    assert_eq!(
        keeper.handle_reserved(&peers[1], Family::Ip4),
        Reserved::First
    );
    assert_eq!(keeper.held(), 2);

    let lost = keeper.handle_listener_closed(listener, now, 0.0).unwrap();
    assert!(lost.was_held && !lost.is_held);
    keeper.handle_closed(id(1), now, 0.0).unwrap();
    let later = now + Duration::from_secs(60);
    assert_eq!(settle(&mut keeper, &mut next, later), [], "one is enough");
    let second = asked[0].1;
    keeper.handle_listener_closed(second, later, 0.0).unwrap();
    let asked = settle(&mut keeper, &mut next, later);
    assert_eq!(asked[0].0, first, "it has come back, and does not drain");
}

#[test]
fn no_reservation_is_asked_of_a_relay_before_it_has_identified_itself() {
    let peer = PeerId::random();
    let now = Instant::now();
    let mut keeper = RelayKeeper::new(&[relay(peer)], 1, FamilyPolicy::Auto, now);
    assert!(matches!(
        poll(&mut keeper, now),
        Some(Action::Dial { leg: 0, .. })
    ));
    keeper.handle_dialing(0, id(1));
    assert_eq!(keeper.handle_established(id(1), now), Opened::Leg);
    assert_eq!(poll(&mut keeper, now), None);
    assert!(!keeper.is_ready(&peer));
    assert!(keeper.is_connected(&peer), "circuits can be asked for");
    assert_eq!(keeper.up(&peer).count(), 1);
    keeper.handle_identified(id(1), now);
    assert!(matches!(
        poll(&mut keeper, now),
        Some(Action::Reserve { .. })
    ));
}

/// Lets every dial of one leg fail, or its connection end as soon as it is there. When it was dialed in this time.
fn dials(
    keeper: &mut RelayKeeper,
    start: Instant,
    time: Duration,
    accepts: bool,
    jitter: f64,
) -> Vec<Duration> {
    let (mut now, mut dials) = (start, Vec::new());
    loop {
        while let Some(action) = poll(keeper, now) {
            let Action::Dial { leg, .. } = action else {
                continue;
            };
            let id = id(1000 + dials.len());
            dials.push(now - start);
            keeper.handle_dialing(leg, id);
            if accepts {
                assert_eq!(keeper.handle_established(id, now), Opened::Leg);
                keeper.handle_closed(id, now, jitter).unwrap();
            } else {
                keeper.handle_dial_failed(id, now, jitter).unwrap();
            }
        }
        now = keeper.poll_timeout().unwrap();
        if now > start + time {
            return dials;
        }
    }
}

fn within(dials: &[Duration], from: u64, to: u64) -> usize {
    let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
    dials.iter().filter(|at| (from..to).contains(*at)).count()
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_relay_that_is_away_is_dialed_each_two_seconds_for_a_minute_and_then_ever_less_often() {
    let (peer, now) = (PeerId::random(), Instant::now());
    let mut keeper = RelayKeeper::new(&[relay(peer)], 1, FamilyPolicy::Auto, now);
    let dials = dials(&mut keeper, now, HOUR, false, 0.0);
    let waits = dials.windows(2).map(|two| two[1] - two[0]);
    let quick = waits.clone().zip(&dials).filter(|(_, at)| **at < LIKELY);
    assert!(quick.clone().count() > 30);
    assert!(quick.map(|(wait, _)| wait).all(|wait| wait <= BACKOFF_MAX));
    let late: Vec<_> = waits.zip(&dials).filter(|(_, at)| **at >= LIKELY).collect();
    assert!(
        late.iter().all(|(wait, at)| *wait <= **at / SHARE),
        "{late:?}"
    );
    assert!(late.len() < 40, "{late:?}");
    assert_eq!(late.last().unwrap().0, RETRY_MAX);
    assert!(keeper.is_unreachable(&peer));
}

#[test]
fn a_relay_that_takes_connections_and_ends_them_is_dialed_ever_less_often() {
    let (peer, now) = (PeerId::random(), Instant::now());
    let mut keeper = RelayKeeper::new(&[relay(peer)], 1, FamilyPolicy::Auto, now);
    let dials = dials(&mut keeper, now, HOUR, true, 0.5);
    assert!(within(&dials, 0, 12) <= 5, "{dials:?}");
    assert!(within(&dials, 0, 60) <= 8, "{dials:?}");
    assert!(within(&dials, 1200, 3600) <= 17, "{dials:?}");
}

#[test]
fn what_was_a_success_makes_the_next_loss_a_fresh_one() {
    let (peer, start) = (PeerId::random(), Instant::now());
    let mut keeper = RelayKeeper::new(&[relay(peer)], 1, FamilyPolicy::Auto, start);
    dials(&mut keeper, start, HOUR, true, 0.5);
    for lived in [Duration::ZERO, STABLE] {
        let now = keeper.poll_timeout().unwrap();
        let mut next = 9;
        let asked = settle(&mut keeper, &mut next, now);
        if lived == Duration::ZERO {
            keeper.handle_reserved(&peer, Family::Ip4);
        }
        let now = now + lived;
        keeper.handle_listener_closed(asked[0].1, now, 0.0).unwrap();
        assert_eq!(keeper.handle_closed(id(next), now, 0.0).unwrap().vain, 0);
        assert!(keeper.poll_timeout().unwrap() <= now + Duration::from_secs(1));
        assert!(within(&dials(&mut keeper, now, LIKELY, false, 0.5), 0, 60) > 30);
        dials(&mut keeper, now + LIKELY, HOUR, true, 0.5);
    }
}

#[test]
fn hints_from_outside_make_a_leg_be_dialed_at_once_but_not_in_a_flood() {
    let (peer, start) = (PeerId::random(), Instant::now());
    let mut keeper = RelayKeeper::new(&[relay(peer)], 1, FamilyPolicy::Auto, start);
    dials(&mut keeper, start, HOUR, false, 0.0);
    let mut now = start + HOUR;
    assert!(keeper.poll_timeout().unwrap() > now + Duration::from_secs(60));
    keeper.handle_hint(now);
    assert!(keeper.poll_timeout().unwrap() <= now);
    let mut flood = 0;
    for n in 0..600 {
        keeper.handle_hint(now);
        flood += dials(&mut keeper, now, Duration::ZERO, false, 0.0).len();
        now += Duration::from_millis(100 + n % 3);
    }
    assert!(flood <= 10, "{flood} dials in a minute");
    now += HOUR;
    keeper.handle_network_changed(now);
    let again = dials(&mut keeper, now, LIKELY, false, 0.5);
    assert!(again.len() > 30, "the network is another one: {again:?}");
}

#[test]
fn a_connection_that_this_node_closes_proves_nothing_against_the_relay() {
    let (peer, now) = (PeerId::random(), Instant::now());
    for (closes, vain) in [(false, 1), (true, 0)] {
        let mut keeper = RelayKeeper::new(&[relay(peer)], 1, FamilyPolicy::Auto, now);
        settle(&mut keeper, &mut 0, now);
        if closes {
            keeper.handle_closing(id(1));
        }
        assert_eq!(keeper.handle_closed(id(1), now, 0.5).unwrap().vain, vain);
    }
}

#[test]
fn a_relay_that_drains_says_how_long_it_is_left_alone() {
    for (asked, at_least, at_most) in [(20, 20, 30), (100_000, 600, 600)] {
        for jitter in [0.0, 0.5, 1.0] {
            let (peer, now) = (PeerId::random(), Instant::now());
            let mut keeper = RelayKeeper::new(&[relay(peer)], 1, FamilyPolicy::Auto, now);
            settle(&mut keeper, &mut 0, now);
            keeper.handle_draining(id(1), Some(Duration::from_secs(asked)));
            keeper.handle_closed(id(1), now, jitter).unwrap();
            let wait = (keeper.poll_timeout().unwrap() - now).as_secs();
            assert!((at_least..=at_most).contains(&wait), "{asked}: {wait}");
        }
    }
}

#[test]
fn a_relay_that_was_lost_and_cannot_be_reached_is_news_once() {
    let (peer, now) = (PeerId::random(), Instant::now());
    let mut keeper = RelayKeeper::new(&[relay(peer)], 1, FamilyPolicy::Auto, now);
    let mut next = 0;
    settle(&mut keeper, &mut next, now);
    keeper.handle_closed(id(next), now, 0.0).unwrap();
    assert!(!keeper.is_unreachable(&peer), "it may have been restarted");
    let mut news = Vec::new();
    for n in next + 1..next + 4 {
        let at = keeper.poll_timeout().unwrap();
        assert!(matches!(poll(&mut keeper, at), Some(Action::Dial { .. })));
        keeper.handle_dialing(0, id(n));
        news.push(keeper.handle_dial_failed(id(n), at, 0.0).unwrap().is_news);
    }
    assert_eq!(news, [true, false, false]);
    assert!(keeper.is_unreachable(&peer));
}

#[test]
fn a_relay_that_refuses_is_asked_ever_more_seldom_and_at_once_after_it_came_back() {
    let peer = PeerId::random();
    let now = Instant::now();
    let mut keeper = RelayKeeper::new(&[relay(peer)], 1, FamilyPolicy::Auto, now);
    let (mut next, mut at) = (0, now);
    for _ in 0..10 {
        let asked = settle(&mut keeper, &mut next, at);
        keeper.handle_listener_closed(asked[0].1, at, 0.0).unwrap();
        let wait = keeper.poll_timeout().unwrap() - at;
        assert!(
            wait >= RESERVE_BACKOFF_MIN && wait <= RESERVE_BACKOFF_MAX,
            "{wait:?}"
        );
        at += wait;
    }
    assert_eq!(keeper.poll_timeout().map(|d| d - at), Some(Duration::ZERO));
    let asked = settle(&mut keeper, &mut next, at);
    keeper.handle_listener_closed(asked[0].1, at, 0.0).unwrap();
    assert_eq!(keeper.poll_timeout().unwrap() - at, RESERVE_BACKOFF_MAX);
    keeper.handle_closed(id(next), at, 0.0).unwrap();
    let at = at + BACKOFF_MAX;
    assert_eq!(
        settle(&mut keeper, &mut next, at).len(),
        1,
        "asked at once over the new connection"
    );
}

fn named(peer: PeerId) -> RelayAddr {
    RelayAddr {
        peer,
        addr: "/dns/relay.example.net/udp/443/quic-v1".parse().unwrap(),
    }
}

#[test]
fn a_name_has_a_leg_and_a_reservation_in_each_family_and_counts_as_one_relay() {
    let (first, second, now) = (PeerId::random(), PeerId::random(), Instant::now());
    let relays = [named(first), relay(second)];
    let mut keeper = RelayKeeper::new(&relays, 1, FamilyPolicy::PreferIp6, now);
    let asked = settle(&mut keeper, &mut 0, now);
    assert_eq!(
        asked.iter().map(|(p, _)| *p).collect::<Vec<_>>(),
        [first, first]
    );
    let families: Vec<_> = keeper
        .up(&first)
        .map(|leg| (leg.family, leg.addr.to_string()))
        .collect();
    let at = |dns| format!("/{dns}/relay.example.net/udp/443/quic-v1");
    assert_eq!(
        families,
        [(Family::Ip6, at("dns6")), (Family::Ip4, at("dns4"))]
    );

    assert_eq!(keeper.handle_reserved(&first, Family::Ip4), Reserved::First);
    assert_eq!(
        keeper.handle_reserved(&first, Family::Ip6),
        Reserved::Further,
        "the relay is held already"
    );
    assert_eq!(keeper.held(), 1);
    let lost = keeper.handle_listener_closed(asked[0].1, now, 0.0).unwrap();
    assert!(lost.was_held && lost.is_held);
    let lost = keeper.handle_listener_closed(asked[1].1, now, 0.0).unwrap();
    assert!(lost.was_held && !lost.is_held);
}

#[test]
fn a_family_that_is_not_allowed_has_no_leg() {
    let (peer, now) = (PeerId::random(), Instant::now());
    let mut keeper = RelayKeeper::new(&[relay(peer), named(peer)], 1, FamilyPolicy::OnlyIp6, now);
    assert!(matches!(
        poll(&mut keeper, now),
        Some(Action::Dial { relay, .. }) if relay.addr.to_string().starts_with("/dns6/")
    ));
    assert_eq!(poll(&mut keeper, now), None);
}

#[test]
fn a_name_without_an_address_in_one_family_is_no_news_and_asked_seldom() {
    let (peer, now) = (PeerId::random(), Instant::now());
    let mut keeper = RelayKeeper::new(&[named(peer)], 1, FamilyPolicy::Auto, now);
    for number in 0..2 {
        poll(&mut keeper, now).unwrap();
        keeper.handle_dialing(number, id(number));
    }
    let failed = keeper.handle_dial_failed(id(1), now, 0.0).unwrap();
    assert!(!failed.is_news, "the other may lead there");
    assert_eq!(keeper.handle_established(id(0), now), Opened::Leg);
    let mut at = now;
    for n in 2..20 {
        at = keeper.poll_timeout().unwrap();
        let Some(Action::Dial { leg, .. }) = poll(&mut keeper, at) else {
            panic!("no dial at try {n}")
        };
        keeper.handle_dialing(leg, id(n));
        assert!(!keeper.handle_dial_failed(id(n), at, 0.0).unwrap().is_news);
    }
    assert_eq!(keeper.poll_timeout().unwrap() - at, Duration::from_secs(60));
}

#[test]
fn a_name_that_leads_nowhere_is_news_once_both_families_have_failed() {
    let (peer, now) = (PeerId::random(), Instant::now());
    let mut keeper = RelayKeeper::new(&[named(peer)], 1, FamilyPolicy::Auto, now);
    let mut news = 0;
    for number in 0..2 {
        poll(&mut keeper, now).unwrap();
        keeper.handle_dialing(number, id(number));
        news += u32::from(
            keeper
                .handle_dial_failed(id(number), now, 0.0)
                .unwrap()
                .is_news,
        );
    }
    assert_eq!(news, 1);
    assert!(keeper.is_unreachable(&peer));
}

proptest! {
    #[test]
    fn a_wait_is_never_zero_and_never_above_its_maximum(failures in 0_u32..200, jitter in -1.0_f64..2.0) {
        let wait = backoff(BACKOFF_MIN, BACKOFF_MAX, failures, jitter);
        prop_assert!(wait >= BACKOFF_MIN / 2 && wait <= BACKOFF_MAX);
    }
}

/// A keeper whose leg has missed a ping, and the relay. The leg's connection is 1, and the one dialed alongside 2.
fn doubting(now: Instant) -> (RelayKeeper, PeerId) {
    let peer = PeerId::random();
    let mut keeper = RelayKeeper::new(&[relay(peer)], 1, FamilyPolicy::Auto, now);
    settle(&mut keeper, &mut 0, now);
    assert!(!keeper.handle_doubt(id(9)), "it is no leg");
    assert!(keeper.handle_doubt(id(1)) && keeper.handle_doubt(id(1)));
    assert!(keeper.is_connected(&peer) && !keeper.is_usable(&peer));
    assert!(matches!(poll(&mut keeper, now), Some(Action::Dial { .. })));
    keeper.handle_dialing(0, id(2));
    assert_eq!(poll(&mut keeper, now), None, "one is enough");
    (keeper, peer)
}

#[test]
fn a_leg_that_misses_a_ping_is_replaced_if_the_relay_answers_alongside() {
    let now = Instant::now();
    let (mut keeper, peer) = doubting(now);
    let opened = keeper.handle_established(id(2), now);
    assert_eq!(opened, Opened::Replaces(id(1)));
    keeper.handle_identified(id(2), now);
    assert!(!keeper.is_usable(&peer), "libp2p would take the first");
    assert_eq!(keeper.handle_closed(id(1), now, 0.0), None);
    assert!(keeper.is_usable(&peer) && keeper.is_ready(&peer));
    assert!(keeper.handle_closed(id(2), now, 0.0).is_some());
}

#[test]
fn a_leg_that_answers_after_all_stays_and_the_one_dialed_alongside_is_surplus() {
    let now = Instant::now();
    let (mut keeper, peer) = doubting(now);
    keeper.handle_answered(id(1));
    assert!(keeper.is_usable(&peer));
    assert_eq!(keeper.handle_established(id(2), now), Opened::Surplus);
    assert!(keeper.is_usable(&peer));
    // The next time, the dial alongside fails.
    keeper.handle_doubt(id(1));
    assert!(matches!(poll(&mut keeper, now), Some(Action::Dial { .. })));
    keeper.handle_dialing(0, id(3));
    assert_eq!(keeper.handle_dial_failed(id(3), now, 0.0), None);
    assert!(keeper.is_connected(&peer) && !keeper.is_usable(&peer));
    assert_eq!(poll(&mut keeper, now), None);
    keeper.handle_answered(id(1));
    assert!(keeper.is_usable(&peer));
}

#[test]
fn a_leg_that_is_lost_while_another_is_dialed_alongside_is_not_dialed_twice() {
    let now = Instant::now();
    let (mut keeper, peer) = doubting(now);
    assert!(keeper.handle_closed(id(1), now, 0.0).is_some());
    assert_eq!(poll(&mut keeper, now + HOUR), None);
    assert_eq!(keeper.handle_established(id(2), now), Opened::Leg);
    assert!(keeper.is_usable(&peer));
}
