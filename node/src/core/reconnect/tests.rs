#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

fn circuit(peer: PeerId, relay: PeerId) -> Option<Action> {
    Some(Action::DialCircuit { peer, relay })
}

fn poll(
    reconnector: &mut Reconnector,
    now: Instant,
    is_ready: impl Fn(&PeerId) -> bool,
    jitter: f64,
) -> Option<Action> {
    reconnector.handle_timeout(now, is_ready, || jitter);
    reconnector.poll_action()
}

type Known = (Reconnector, PeerId, [PeerId; 2], Instant);

/// A peer that was reached over the second of two relays, and both.
fn known() -> Known {
    let (peer, relays) = (PeerId::random(), [PeerId::random(), PeerId::random()]);
    let mut reconnector = Reconnector::default();
    reconnector.want(peer, Vec::new(), relays, Some(relays[1]));
    (reconnector, peer, relays, Instant::now())
}

#[test]
fn a_lost_peer_is_dialed_at_once_over_the_relay_that_led_to_it_last_and_then_over_the_next() {
    let (mut reconnector, peer, [a, b], now) = known();
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
    reconnector.handle_lost(&peer, now, 0.0);
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), circuit(peer, b));
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
    reconnector.handle_failed(&peer, &b, now);
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), circuit(peer, a));
    reconnector.handle_failed(&peer, &a, now);
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
    let again = reconnector.poll_timeout().unwrap();
    assert_eq!(again - now, BACKOFF_MIN);
    assert_eq!(
        poll(&mut reconnector, again, |_| true, 0.0),
        circuit(peer, b)
    );
}

#[test]
fn a_reset_brings_a_dial_at_once_and_the_next_one_a_backoff() {
    let (mut reconnector, peer, [_, b], now) = known();
    let at: Multiaddr = "/ip4/192.0.2.7/udp/40000/quic-v1".parse().unwrap();
    // Its path became doubtful, and a circuit is under way.
    reconnector.handle_lost(&peer, now, 0.0);
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), circuit(peer, b));
    let now = now + WAIT_MIN;
    reconnector.handle_reset(&peer, Some(at.clone()), now, 1.0);
    let addrs = vec![at.clone()];
    let direct = Some(Action::DialDirect { peer, addrs });
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), direct);
    assert_eq!(reconnector.poll_action(), circuit(peer, b));
    reconnector.handle_connected(&peer, None, now);
    reconnector.handle_reset(&peer, Some(at.clone()), now, 1.0);
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
    assert!(reconnector.poll_timeout().unwrap() >= now + WAIT_MIN);
    let now = now + STABLE + SLOW;
    reconnector.handle_connected(&peer, None, now);
    reconnector.handle_reset(&peer, Some(at), now + STABLE, 1.0);
    assert_eq!(reconnector.poll_timeout(), Some(now + STABLE));
}

#[test]
fn a_circuit_that_takes_too_long_does_not_keep_the_next_relay_waiting() {
    let (mut reconnector, peer, [a, b], now) = known();
    reconnector.handle_lost(&peer, now, 0.0);
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), circuit(peer, b));
    let later = reconnector.poll_timeout().unwrap();
    assert_eq!(later - now, CIRCUIT_WAIT);
    assert_eq!(
        poll(&mut reconnector, later, |_| true, 0.0),
        circuit(peer, a)
    );
    // The late failure of the first is no news.
    reconnector.handle_failed(&peer, &b, later);
    assert_eq!(poll(&mut reconnector, later, |_| true, 0.0), None);
}

#[test]
fn without_a_relay_that_is_ready_the_first_that_becomes_so_is_asked() {
    let (mut reconnector, peer, [a, _], now) = known();
    reconnector.handle_lost(&peer, now, 0.0);
    assert_eq!(poll(&mut reconnector, now, |_| false, 0.0), None);
    assert_eq!(
        reconnector.poll_timeout(),
        Some(now + NO_RELAY),
        "no timer spins meanwhile"
    );
    assert_eq!(poll(&mut reconnector, now + NO_RELAY, |_| false, 0.0), None);
    assert_eq!(
        reconnector.poll_event(),
        Some(Change::Paused(peer, Pause::NoRelay))
    );
    assert_eq!(reconnector.poll_timeout(), None, "no clock runs");
    let later = now + Duration::from_secs(86_400);
    assert_eq!(
        poll(&mut reconnector, later, |relay| *relay == a, 0.0),
        circuit(peer, a)
    );
    assert_eq!(reconnector.poll_event(), Some(Change::Resumed(peer)));
    assert_eq!(reconnector.poll_event(), None);
    let [lost] = reconnector.lost().collect::<Vec<_>>()[..] else {
        panic!("it is lost");
    };
    assert_eq!((lost.since, lost.pause), (now, None));
}

#[test]
fn a_peer_that_is_back_is_not_dialed_and_neither_is_one_that_nobody_wants() {
    let (mut reconnector, peer, _, now) = known();
    reconnector.handle_lost(&peer, now, 0.0);
    reconnector.handle_connected(&peer, None, now);
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
    assert_eq!(reconnector.poll_timeout(), None);
    reconnector.handle_lost(&peer, now, 0.0);
    reconnector.forget(&peer);
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
    reconnector.handle_lost(&PeerId::random(), now, 0.0);
    assert_eq!(reconnector.poll_timeout(), None);
}

#[test]
fn a_peer_that_is_lost_again_soon_after_it_was_found_is_dialed_later_and_later() {
    let (mut reconnector, peer, _, mut now) = known();
    reconnector.handle_lost(&peer, now, 0.0);
    let mut waits = Vec::new();
    for _ in 0..4 {
        assert!(poll(&mut reconnector, now, |_| true, 0.0).is_some());
        reconnector.handle_connected(&peer, None, now);
        assert_eq!(reconnector.poll_timeout(), None);
        reconnector.handle_lost(&peer, now, 0.0);
        assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
        let at = reconnector.poll_timeout().unwrap();
        waits.push(at - now);
        now = at;
    }
    assert_eq!(waits, [1, 2, 4, 8].map(|factor| BACKOFF_MIN * factor));
    // One that was kept for a while is dialed at once again.
    assert!(poll(&mut reconnector, now, |_| true, 0.0).is_some());
    reconnector.handle_connected(&peer, None, now);
    now += STABLE;
    reconnector.handle_lost(&peer, now, 0.0);
    assert!(poll(&mut reconnector, now, |_| true, 0.0).is_some());
}

#[test]
fn the_relay_that_led_to_the_peer_last_comes_first() {
    let (mut reconnector, peer, [a, _], now) = known();
    reconnector.handle_connected(&peer, Some(a), now);
    reconnector.handle_lost(&peer, now, 0.0);
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), circuit(peer, a));
}

#[test]
fn given_addresses_are_dialed_in_each_round_also_without_any_relay() {
    let (mut reconnector, peer, now) = (Reconnector::default(), PeerId::random(), Instant::now());
    let addrs: Vec<Multiaddr> = vec!["/ip4/198.51.100.7/tcp/443".parse().unwrap()];
    reconnector.want(peer, addrs.clone(), [], None);
    reconnector.handle_lost(&peer, now, 0.0);
    let direct = Some(Action::DialDirect { peer, addrs });
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), direct);
    assert_eq!(poll(&mut reconnector, now, |_| true, 0.0), None);
    let again = reconnector.poll_timeout().unwrap();
    assert_eq!(poll(&mut reconnector, again, |_| true, 0.0), direct);
}

/// Has a lost peer searched for this long, whose circuits fail at once. Returns when they were asked for, and what was reported.
fn search(known: Known, jitter: f64, until: Duration) -> (Vec<Duration>, Vec<(Duration, Change)>) {
    let (mut reconnector, peer, _, start) = known;
    reconnector.handle_lost(&peer, start, jitter);
    let (mut now, mut dials, mut changes) = (start, Vec::new(), Vec::new());
    while now < start + until {
        let action = poll(&mut reconnector, now, |_| true, jitter);
        changes.extend(reconnector.poll_event().map(|change| (now - start, change)));
        match action {
            Some(Action::DialCircuit { relay, .. }) => {
                dials.push(now - start);
                reconnector.handle_failed(&peer, &relay, now);
            }
            Some(Action::DialDirect { .. }) => panic!("no address was given"),
            None => now = reconnector.poll_timeout().unwrap(),
        }
    }
    (dials, changes)
}

#[test]
fn a_peer_that_stays_away_is_dialed_for_ever_and_ever_less_often() {
    for jitter in [0.0, 0.5, 0.9] {
        let known = known();
        let peer = known.1;
        let (dials, changes) = search(known, jitter, Duration::from_secs(86_400));
        let [(at, Change::Paused(paused, Pause::NoAnswer))] = changes[..] else {
            panic!("{changes:?}");
        };
        assert_eq!((at, paused), (SLOW, peer));
        let longest = |away: Duration| (away / SHARE).clamp(BACKOFF_MAX.0, BACKOFF_MAX.1);
        for pair in dials.windows(2) {
            let wait = pair[1] - pair[0];
            assert!(wait <= longest(pair[1]), "{wait:?} at {:?}", pair[1]);
        }
        let count = |from: u64, to: u64| {
            let span = Duration::from_secs(from)..Duration::from_secs(to);
            dials.iter().filter(|at| span.contains(*at)).count() as f64 * (1.0 - jitter)
        };
        assert!(count(0, 300) <= 2.0 * 20.0, "{}", count(0, 300));
        assert!(
            count(82_800, 86_400) <= 2.0 * 13.0,
            "{}",
            count(82_800, 86_400)
        );
        assert!(
            count(82_800, 86_400) >= 2.0 * 11.0,
            "{}",
            count(82_800, 86_400)
        );
    }
}

#[test]
fn a_peer_that_has_closed_its_path_is_left_alone_and_then_dialed() {
    for jitter in [0.0, 1.0] {
        let (mut reconnector, peer, [_, b], now) = known();
        reconnector.handle_left(&peer, now, jitter);
        assert_eq!(poll(&mut reconnector, now, |_| true, jitter), None);
        let at = reconnector.poll_timeout().unwrap();
        assert!(at >= now + LEFT_ALONE && at <= now + LEFT_ALONE * 2);
        assert_eq!(
            poll(&mut reconnector, at, |_| true, jitter),
            circuit(peer, b)
        );
    }
}

#[test]
fn a_dial_takes_over_and_one_that_fails_does_not_end_the_search() {
    let (mut reconnector, peer, [_, b], now) = known();
    reconnector.handle_lost(&peer, now, 0.0);
    reconnector.handle_dial(&peer);
    let later = now + Duration::from_secs(30);
    assert_eq!(poll(&mut reconnector, later, |_| true, 0.0), None);
    assert_eq!(reconnector.poll_timeout(), None);
    reconnector.handle_dial_failed(&peer, later, 0.0);
    let at = reconnector.poll_timeout().unwrap();
    assert_eq!(poll(&mut reconnector, at, |_| true, 0.0), circuit(peer, b));
}

#[test]
fn for_a_further_peer_the_one_that_has_been_away_for_longest_is_forgotten() {
    let (mut reconnector, now) = (Reconnector::default(), Instant::now());
    let peers: Vec<PeerId> = (0..=MAX_PEERS).map(|_| PeerId::random()).collect();
    for peer in &peers[..MAX_PEERS] {
        reconnector.want(*peer, Vec::new(), [], None);
    }
    reconnector.want(peers[MAX_PEERS], Vec::new(), [], None);
    assert!(!reconnector.is_wanted(&peers[MAX_PEERS]), "nobody is lost");
    reconnector.handle_lost(&peers[5], now, 0.0);
    reconnector.handle_lost(&peers[3], now + STABLE, 0.0);
    reconnector.want(peers[MAX_PEERS], Vec::new(), [], None);
    assert!(reconnector.is_wanted(&peers[MAX_PEERS]));
    assert!(!reconnector.is_wanted(&peers[5]) && reconnector.is_wanted(&peers[3]));
}

proptest! {
    #[test]
    fn waits_are_within_their_bounds(
        rounds in any::<u32>(),
        jitter in -1.0..2.0_f64,
        away in 0..100_000_u64,
    ) {
        let start = Instant::now();
        let mut search = Search::new(start);
        search.rounds = rounds;
        let now = start + Duration::from_secs(away);
        search.next_round(now, jitter);
        prop_assert!(search.at >= now + WAIT_MIN && search.at <= now + BACKOFF_MAX.1);
    }
}

#[test]
fn a_peer_that_closes_two_connections_before_it_answers_refuses_until_one_is_good() {
    let (mut reconnector, peer, [a, _], now) = known();
    let refuses = |reconnector: &Reconnector| reconnector.lost().map(|lost| lost.refuses).next();
    // A circuit that the peer closes looks like a lost one, too.
    reconnector.handle_lost(&peer, now, 0.0);
    for (is_refusal, expected) in [(true, false), (true, true), (true, true), (false, false)] {
        reconnector.handle_connected(&peer, Some(a), now);
        reconnector.handle_lost(&peer, now, 0.0);
        reconnector.handle_refusal(&peer, is_refusal);
        assert_eq!(refuses(&reconnector), Some(expected));
    }
}

#[test]
fn a_peer_that_was_back_is_lost_since_its_last_loss_and_one_that_only_refused_since_the_first() {
    for (refuses, expected) in [(false, Duration::from_secs(40)), (true, Duration::ZERO)] {
        let (mut reconnector, peer, [a, _], now) = known();
        reconnector.handle_lost(&peer, now, 0.0);
        let again = now + Duration::from_secs(40);
        reconnector.handle_connected(&peer, Some(a), again - Duration::from_secs(8));
        reconnector.handle_lost(&peer, again, 0.0);
        reconnector.handle_refusal(&peer, refuses);
        let since = reconnector.lost().map(|lost| lost.since - now).next();
        assert_eq!(since, Some(expected));
    }
}
