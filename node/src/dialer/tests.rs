#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod meet;

use p2pnode_bin_shared::directory::ViaRelay;

use super::*;
use crate::peers::Hop;

fn path(kind: PathKind, relay: Option<PeerId>) -> Path {
    Path {
        kind,
        relay,
        how: How::Dialed,
        hops: vec![Hop::default()],
    }
}

fn request(until: Until, pings: u32) -> Request {
    Request {
        peer: PeerId::random(),
        addrs: Vec::new(),
        until,
        timeout: Duration::from_secs(30),
        pings,
    }
}

/// What a dial does where no relay knows a record.
fn drain(dialer: &mut Dialer, now: Instant) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some(action) = dialer.poll(now) {
        if action == Action::LookUp {
            dialer.handle_looked_up(now);
        } else if !matches!(action, Action::Meet(_)) {
            actions.push(action);
        }
    }
    actions
}

fn result(actions: &[Action]) -> Option<&Outcome> {
    actions.iter().find_map(|action| match action {
        Action::Tell(Event::Result(outcome)) => Some(outcome),
        Action::Tell(_)
        | Action::DialDirect(_)
        | Action::DialCircuit(_)
        | Action::DialFound { .. }
        | Action::Search
        | Action::DialLocal(_)
        | Action::Meet(_)
        | Action::LookUp
        | Action::Ping => None,
    })
}

#[test]
fn a_dial_goes_over_the_relay_and_ends_direct_after_a_ping_on_the_direct_path() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    assert!(matches!(
        drain(&mut dialer, now)[..],
        [Action::Tell(Event::Dialing { .. })]
    ));
    dialer.handle_relay_ready(relay, now);
    assert_eq!(drain(&mut dialer, now), [Action::DialCircuit(relay)]);
    dialer.handle_relay_ready(relay, now);
    assert_eq!(drain(&mut dialer, now), [], "a circuit is dialed once");

    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed.clone(), now);
    dialer.handle_ping(Duration::from_millis(9), relayed, now);
    let told = drain(&mut dialer, now);
    assert!(
        matches!(told[..], [Action::Tell(Event::Connected { .. })]),
        "a ping on the relayed path is not the end: {told:?}"
    );

    let later = now + Duration::from_millis(151);
    let direct = path(PathKind::Direct, None);
    dialer.handle_connected(direct.clone(), direct.clone(), later);
    assert!(result(&drain(&mut dialer, later)).is_none());
    dialer.handle_ping(Duration::from_millis(5), direct, later);
    let told = drain(&mut dialer, later);
    let outcome = result(&told).unwrap();
    assert_eq!(
        (outcome.outcome, outcome.time_to_direct),
        (Reached::Direct, Some(Duration::from_millis(151)))
    );
    assert_eq!(outcome.reason, None);
    assert!(dialer.is_finished());
}

#[test]
fn a_punch_that_was_given_up_ends_relayed_with_its_reason() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 0), [relay], true, now);
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_relay_ready(relay, now);
    dialer.handle_connected(relayed.clone(), relayed, now);
    dialer.handle_gave_up("symmetric_both".to_owned());
    dialer.handle_ping(
        Duration::from_millis(9),
        path(PathKind::Relayed, Some(relay)),
        now,
    );
    let told = drain(&mut dialer, now);
    let outcome = result(&told).unwrap();
    assert_eq!(
        (outcome.outcome, outcome.reason.as_deref()),
        (Reached::Relayed, Some("symmetric_both"))
    );
}

#[test]
fn a_peer_that_never_begins_dcutr_is_told_from_a_slow_one() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 0), [relay], true, now);
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed, now);
    assert!(result(&drain(&mut dialer, now)).is_none());
    let at = dialer.next_deadline().unwrap();
    assert_eq!(at - now, HANDSHAKE_WAIT);
    assert!(result(&drain(&mut dialer, at)).is_none());
    dialer.handle_ping(
        Duration::from_millis(9),
        path(PathKind::Relayed, Some(relay)),
        at,
    );
    let told = drain(&mut dialer, at);
    assert_eq!(
        result(&told).unwrap().reason.as_deref(),
        Some("remote_unsupported")
    );
}

#[test]
fn when_every_way_has_failed_the_dial_ends_at_once_and_names_each_failure() {
    let (a, b, now) = (PeerId::random(), PeerId::random(), Instant::now());
    let mut with_addrs = request(Until::Direct, 1);
    with_addrs.addrs = vec!["/ip4/198.51.100.7/tcp/443".parse().unwrap()];
    let mut dialer = Dialer::new(with_addrs, [a, b], true, now);
    drain(&mut dialer, now);
    dialer.handle_direct_failed("198.51.100.7:443 refused".to_owned());
    dialer.handle_relay_unreachable(a, Duration::ZERO, "no route");
    assert!(
        result(&drain(&mut dialer, now)).is_none(),
        "the other relay may still answer"
    );
    dialer.handle_relay_ready(b, now);
    drain(&mut dialer, now);
    dialer.handle_circuit_failed(
        b,
        CircuitFailure::Refused,
        "the relay is full".to_owned(),
        now,
    );
    let told = drain(&mut dialer, now);
    let outcome = result(&told).unwrap();
    assert_eq!(outcome.outcome, Reached::Unreachable);
    let reason = outcome.reason.as_deref().unwrap();
    for part in ["198.51.100.7:443 refused", "no route", "the relay is full"] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn a_dial_that_is_content_with_any_connection_ends_relayed_without_a_reason() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Connected, 0), [relay], true, now);
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed.clone(), now);
    dialer.handle_ping(Duration::from_millis(9), relayed, now);
    let told = drain(&mut dialer, now);
    let outcome = result(&told).unwrap();
    assert_eq!(
        (outcome.outcome, &outcome.reason),
        (Reached::Relayed, &None)
    );
}

#[test]
fn a_dial_that_ends_relayed_waits_for_the_far_hop_and_not_for_long() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let relayed = path(PathKind::Relayed, Some(relay));
    let connected = || {
        let mut dialer = Dialer::new(request(Until::Connected, 0), [relay], true, now);
        dialer.handle_connected(relayed.clone(), relayed.clone(), now);
        dialer.await_far_hop(now);
        dialer.handle_ping(Duration::from_millis(9), relayed.clone(), now);
        assert!(result(&drain(&mut dialer, now)).is_none());
        dialer
    };
    let mut told = relayed.clone();
    told.hops.push(Hop {
        transport: Some(p2pnode_transports::Kind::Quic),
        ..Hop::default()
    });
    let mut dialer = connected();
    dialer.handle_far_hop(Some(told.clone()));
    let actions = drain(&mut dialer, now);
    assert_eq!(result(&actions).unwrap().path.as_ref(), Some(&told));

    let mut dialer = connected();
    let until = dialer.next_deadline().unwrap();
    assert_eq!(until - now, FAR_HOP_WAIT);
    let actions = drain(&mut dialer, until);
    assert_eq!(result(&actions).unwrap().path.as_ref(), Some(&relayed));

    let mut dialer = connected();
    let direct = path(PathKind::Direct, None);
    dialer.handle_connected(direct.clone(), direct, now);
    assert!(
        result(&drain(&mut dialer, now)).is_some(),
        "a direct path has no far hop"
    );
}

#[test]
fn a_silent_relay_ends_the_dial_at_its_timeout() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    drain(&mut dialer, now);
    let deadline = dialer.next_deadline().unwrap();
    let told = drain(&mut dialer, deadline);
    let outcome = result(&told).unwrap();
    assert_eq!(outcome.outcome, Reached::Unreachable);
    assert!(outcome.reason.as_deref().unwrap().contains("within 30 s"));
}

#[test]
fn a_circuit_that_a_busy_relay_has_dropped_is_asked_for_again() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    dialer.handle_relay_ready(relay, now);
    assert!(drain(&mut dialer, now).contains(&Action::DialCircuit(relay)));
    let mut later = now;
    while later - now < CIRCUIT_WAIT {
        assert_eq!(drain(&mut dialer, later), []);
        later = dialer.next_deadline().unwrap();
    }
    assert_eq!(later - now, CIRCUIT_WAIT);
    assert_eq!(drain(&mut dialer, later), [Action::DialCircuit(relay)]);
    dialer.handle_circuit_failed(relay, CircuitFailure::Broken, "too late".to_owned(), later);
    assert!(
        result(&drain(&mut dialer, later)).is_none(),
        "the second is still under way"
    );
    dialer.handle_circuit_failed(relay, CircuitFailure::Refused, "full".to_owned(), later);
    assert!(result(&drain(&mut dialer, later)).is_some());
}

/// Fails the circuit over `relay` whenever it is dialed, until that is over. When it was dialed, from the first on.
fn failing_circuits(failure: CircuitFailure) -> (Vec<Duration>, Outcome) {
    let (relay, start) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, start);
    let (mut now, mut dialed) = (start, Vec::new());
    loop {
        dialer.handle_relay_ready(relay, now);
        let actions = drain(&mut dialer, now);
        if let Some(outcome) = result(&actions) {
            return (dialed, outcome.clone());
        }
        if actions.contains(&Action::DialCircuit(relay)) {
            dialed.push(now - start);
            dialer.handle_circuit_failed(relay, failure, "not there".to_owned(), now);
            continue;
        }
        now = dialer.next_deadline().unwrap();
    }
}

#[test]
fn a_peer_that_is_absent_from_its_relay_is_given_5_s_to_come_back() {
    let (dialed, outcome) = failing_circuits(CircuitFailure::Absent);
    let millis: Vec<_> = dialed.iter().map(Duration::as_millis).collect();
    assert_eq!(millis, [0, 250, 750, 1750, 3750, 5000]);
    assert_eq!(outcome.reason.as_deref(), Some("not there"), "told once");
}

#[test]
fn a_circuit_that_breaks_is_asked_for_until_the_time_of_the_dial_is_up() {
    let (dialed, outcome) = failing_circuits(CircuitFailure::Broken);
    assert_eq!(dialed.last(), Some(&Duration::from_millis(27_750)));
    assert!(outcome.reason.unwrap().starts_with("not there; timeout: "));
}

#[test]
fn a_circuit_that_is_refused_is_not_asked_for_again() {
    let (dialed, outcome) = failing_circuits(CircuitFailure::Refused);
    assert_eq!((dialed.len(), outcome.t), (1, Duration::ZERO));
}

#[test]
fn a_circuit_is_not_asked_for_again_while_the_relay_is_away() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    dialer.handle_relay_ready(relay, now);
    drain(&mut dialer, now);
    dialer.handle_circuit_failed(relay, CircuitFailure::Broken, "broken".to_owned(), now);
    let later = dialer.next_deadline().unwrap();
    assert_eq!(drain(&mut dialer, later), []);
    assert!(dialer.next_deadline().unwrap() > later, "it does not spin");
    dialer.handle_relay_ready(relay, later);
    assert_eq!(drain(&mut dialer, later), [Action::DialCircuit(relay)]);
}

#[test]
fn pings_go_on_over_a_new_circuit_after_the_last_path_was_lost() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 2), [relay], true, now);
    let direct = path(PathKind::Direct, None);
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    dialer.handle_ping(Duration::from_millis(5), direct.clone(), now);
    dialer.handle_disconnected(PathKind::Direct, "reset".to_owned(), None, now);
    assert!(result(&drain(&mut dialer, now)).is_none());
    dialer.handle_relay_ready(relay, now);
    assert!(drain(&mut dialer, now).contains(&Action::DialCircuit(relay)));
}

/// A dial with a direct path, content, and its first ping sent.
fn pinging(pings: u32) -> (Dialer, Path, Instant) {
    let now = Instant::now();
    let mut dialer = Dialer::new(request(Until::Direct, pings), [], true, now);
    let direct = path(PathKind::Direct, None);
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    assert!(drain(&mut dialer, now).ends_with(&[Action::Ping]));
    (dialer, direct, now)
}

#[test]
fn a_dial_of_a_peer_that_is_direct_already_pings_at_once_and_ends_with_the_answer() {
    let (mut dialer, direct, now) = pinging(1);
    assert_eq!(drain(&mut dialer, now), [], "one ping at a time");
    let later = now + Duration::from_millis(5);
    dialer.handle_ping(Duration::from_millis(5), direct, later);
    let told = drain(&mut dialer, later);
    assert!(matches!(
        told[..],
        [
            Action::Tell(Event::Ping { seq: 1, .. }),
            Action::Tell(Event::Result(_))
        ]
    ));
}

#[test]
fn a_relayed_path_is_not_pinged_before_it_is_final() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed, now);
    assert!(!drain(&mut dialer, now).contains(&Action::Ping));
    dialer.handle_gave_up("symmetric_both".to_owned());
    assert_eq!(drain(&mut dialer, now), [Action::Ping]);
}

#[test]
fn several_pings_go_one_per_second() {
    let (mut dialer, direct, mut now) = pinging(3);
    let start = now;
    for seq in 1..3 {
        let answered = now + Duration::from_millis(30);
        dialer.handle_ping(Duration::from_millis(30), direct.clone(), answered);
        let told = drain(&mut dialer, answered);
        assert!(
            matches!(told[..], [Action::Tell(Event::Ping { seq: told, .. })] if told == seq),
            "{told:?}"
        );
        now = dialer.next_deadline().unwrap();
        assert_eq!(now - start, Duration::from_secs(seq.into()));
        assert_eq!(drain(&mut dialer, now), [Action::Ping]);
    }
    dialer.handle_ping(Duration::from_millis(30), direct, now);
    assert!(result(&drain(&mut dialer, now)).is_some());
}

#[test]
fn a_ping_that_says_nothing_of_the_path_in_use_is_sent_again_at_once() {
    let (mut dialer, _, now) = pinging(1);
    dialer.handle_ping_failed(PingFailure::Stale);
    assert_eq!(drain(&mut dialer, now), [Action::Ping]);
}

#[test]
fn a_ping_that_was_missed_is_not_counted_and_followed_by_another() {
    let (mut dialer, direct, now) = pinging(1);
    dialer.handle_ping_failed(PingFailure::Missed);
    assert_eq!(drain(&mut dialer, now), []);
    let later = dialer.next_deadline().unwrap();
    assert_eq!(later - now, Duration::from_secs(1));
    assert_eq!(drain(&mut dialer, later), [Action::Ping]);
    dialer.handle_ping(Duration::from_millis(5), direct, later);
    assert!(result(&drain(&mut dialer, later)).is_some());
}

#[test]
fn a_peer_without_ping_is_reached_all_the_same() {
    let (mut dialer, _, now) = pinging(3);
    dialer.handle_ping_failed(PingFailure::Unsupported);
    let told = drain(&mut dialer, now);
    assert_eq!(result(&told).unwrap().outcome, Reached::Direct);
}

/// Somebody else's relay that a record names, and what it says of it.
fn record() -> (PeerId, Found) {
    let relay = PeerId::random();
    let via = ViaRelay {
        relay,
        addrs: vec!["/ip4/203.0.113.7/udp/443/quic-v1".parse().unwrap()],
    };
    let found = Found {
        direct: Vec::new(),
        relays: vec![via],
    };
    (relay, found)
}

fn all(dialer: &mut Dialer, now: Instant) -> Vec<Action> {
    std::iter::from_fn(|| dialer.poll(now)).collect()
}

#[test]
fn the_record_is_asked_for_beside_the_circuit_and_wins_while_the_own_relay_is_still_asked() {
    let (own, now) = (PeerId::random(), Instant::now());
    let (relay, found) = record();
    let mut dialer = Dialer::new(request(Until::Connected, 0), [own], true, now);
    all(&mut dialer, now);
    dialer.handle_relay_ready(own, now);
    assert_eq!(
        all(&mut dialer, now),
        [Action::LookUp, Action::DialCircuit(own)]
    );
    let absent = CircuitFailure::Absent;
    dialer.handle_circuit_failed(own, absent, "no reservation".to_owned(), now);
    dialer.handle_found(&found, now);
    dialer.handle_looked_up(now);
    let dial = Action::DialFound {
        relay,
        addrs: found.relays[0].addrs.clone(),
    };
    assert_eq!(all(&mut dialer, now), [dial]);
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed.clone(), now);
    let told = all(&mut dialer, now);
    let Some(Action::Tell(Event::Connected { found_by, .. })) = told.first() else {
        panic!("{told:?}")
    };
    assert_eq!(*found_by, Some(FoundBy::Registered));
    dialer.handle_ping(Duration::from_millis(9), relayed, now);
    let told = all(&mut dialer, now);
    assert_eq!(result(&told).unwrap().found_by, Some(FoundBy::Registered));
    assert_eq!(dialer.led_by(), Some(relay));
    assert!(dialer.relays().eq([own, relay]));
}

#[test]
fn a_punched_connection_was_found_by_what_led_to_the_circuit_before_it() {
    let (own, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 0), [own], true, now);
    dialer.handle_relay_ready(own, now);
    let relayed = path(PathKind::Relayed, Some(own));
    dialer.handle_connected(relayed.clone(), relayed, now);
    let mut direct = path(PathKind::Direct, None);
    direct.how = How::Punched;
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    dialer.handle_ping(Duration::from_millis(9), direct, now);
    let told = all(&mut dialer, now);
    assert_eq!(result(&told).unwrap().found_by, Some(FoundBy::Relay));
}

#[test]
fn a_dial_does_not_end_while_an_answer_may_come_and_ends_when_it_has_led_nowhere() {
    let (own, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 0), [own], true, now);
    dialer.handle_relay_ready(own, now);
    all(&mut dialer, now);
    let refused = CircuitFailure::Refused;
    dialer.handle_circuit_failed(own, refused, "the relay is full".to_owned(), now);
    assert!(result(&all(&mut dialer, now)).is_none());
    dialer.handle_found(&Found::default(), now);
    dialer.handle_looked_up(now);
    let told = all(&mut dialer, now);
    assert_eq!(result(&told).unwrap().outcome, Reached::Unreachable);
    assert_eq!(result(&told).unwrap().found_by, None);
}

#[test]
fn a_peer_that_is_not_registered_yet_is_asked_for_again_and_again_but_ever_less_often() {
    let (own, mut now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 0), [own], true, now);
    dialer.handle_relay_ready(own, now);
    let broken = CircuitFailure::Broken;
    let mut waits = Vec::new();
    let mut asked = now;
    while waits.len() < 4 {
        for action in all(&mut dialer, now) {
            if action == Action::LookUp {
                waits.push(now - asked);
                asked = now;
                dialer.handle_looked_up(now);
            } else if action == Action::DialCircuit(own) {
                dialer.handle_circuit_failed(own, broken, "broken".to_owned(), now);
            }
        }
        now = dialer.next_deadline().unwrap();
        dialer.handle_relay_ready(own, now);
    }
    assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
}

#[test]
fn an_address_that_the_record_names_is_dialed_once_and_told_as_registered() {
    let now = Instant::now();
    let mut wanted = request(Until::Direct, 0);
    wanted.addrs = vec!["/ip4/198.51.100.7/tcp/443".parse().unwrap()];
    let mut dialer = Dialer::new(wanted.clone(), [], true, now);
    all(&mut dialer, now);
    let new: Multiaddr = "/ip4/198.51.100.8/tcp/443".parse().unwrap();
    let found = Found {
        direct: vec![wanted.addrs[0].clone(), new.clone()],
        relays: Vec::new(),
    };
    dialer.handle_found(&found, now);
    dialer.handle_found(&found, now);
    assert_eq!(all(&mut dialer, now), [Action::DialDirect(vec![new])]);
    for (remote, by) in [
        ("198.51.100.8:443", FoundBy::Registered),
        ("198.51.100.7:443", FoundBy::Static),
    ] {
        let mut direct = path(PathKind::Direct, None);
        direct.hops[0].remote = Some(remote.parse().unwrap());
        dialer.handle_connected(direct.clone(), direct, now);
        let told = all(&mut dialer, now);
        let Some(Action::Tell(Event::Connected { found_by, .. })) = told.first() else {
            panic!("{told:?}")
        };
        assert_eq!(*found_by, Some(by));
    }
}

#[test]
fn a_connection_that_was_open_already_is_told_as_such() {
    let now = Instant::now();
    let mut dialer = Dialer::new(request(Until::Direct, 0), [], true, now);
    let direct = path(PathKind::Direct, None);
    dialer.handle_open(direct.clone(), now);
    dialer.handle_ping(Duration::from_millis(9), direct, now);
    let told = all(&mut dialer, now);
    assert_eq!(result(&told).unwrap().found_by, Some(FoundBy::Open));
}

const DNS: Sources = Sources {
    dns: true,
    mdns: false,
};

fn place(last: u8) -> Candidate {
    let addr = format!("/ip4/10.0.0.{last}/udp/443/quic-v1");
    Candidate {
        host: ([10, 0, 0, last], 443).into(),
        addrs: vec![addr.parse().unwrap()],
        by: FoundBy::Dns,
        is_known: false,
    }
}

fn direct_at(host: SocketAddr) -> Path {
    let mut path = path(PathKind::Direct, None);
    path.hops[0].remote = Some(host);
    path
}

#[test]
fn relays_are_asked_after_the_head_start_of_a_local_search_and_at_once_when_it_ends_in_vain() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let searching = || {
        let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
        dialer.search(DNS, now);
        let begun = drain(&mut dialer, now);
        assert_eq!(begun.last(), Some(&Action::Search));
        dialer.handle_relay_ready(relay, now);
        assert_eq!(drain(&mut dialer, now), []);
        dialer
    };
    let mut dialer = searching();
    let until = dialer.next_deadline().unwrap();
    assert!(until > now && until - now <= Duration::from_millis(100));
    dialer.handle_relay_ready(relay, until);
    let asked = drain(&mut dialer, until);
    assert_eq!(asked, [Action::DialCircuit(relay)]);
    assert!(
        dialer.next_deadline().unwrap() > until,
        "what has passed wakes nobody"
    );

    let mut dialer = searching();
    dialer.handle_candidates([place(1)]);
    assert_eq!(drain(&mut dialer, now), [Action::DialLocal(place(1))]);
    dialer.handle_searched();
    dialer.handle_local_failed(place(1).host, LocalFailure::OtherPeer);
    dialer.handle_relay_ready(relay, now);
    assert_eq!(drain(&mut dialer, now), [Action::DialCircuit(relay)]);
}

#[test]
fn a_peer_that_is_found_locally_is_direct_without_any_relay_and_says_what_found_it() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 0), [relay], true, now);
    dialer.search(DNS, now);
    drain(&mut dialer, now);
    dialer.handle_candidates([place(1), place(2)]);
    assert_eq!(drain(&mut dialer, now).len(), 2);
    let direct = direct_at(place(2).host);
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    dialer.handle_candidates([place(3)]);
    dialer.handle_relay_ready(relay, now);
    dialer.handle_ping(Duration::from_millis(1), direct, now);
    let told = drain(&mut dialer, now);
    let outcome = result(&told).unwrap();
    assert_eq!(
        (outcome.outcome, outcome.found_by),
        (Reached::Direct, Some(FoundBy::Dns))
    );
    assert!(!told.contains(&Action::DialCircuit(relay)));
    assert!(!told.contains(&Action::DialLocal(place(3))));
    assert_eq!(dialer.addrs(), place(2).addrs);
}

#[test]
fn an_address_that_was_given_is_static_though_the_dns_tells_it_too() {
    let now = Instant::now();
    let mut given = request(Until::Direct, 0);
    given.addrs = place(1).addrs;
    let mut dialer = Dialer::new(given, [], true, now);
    dialer.search(DNS, now);
    drain(&mut dialer, now);
    dialer.handle_candidates([place(1)]);
    drain(&mut dialer, now);
    let direct = direct_at(place(1).host);
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    dialer.handle_ping(Duration::from_millis(1), direct, now);
    let told = drain(&mut dialer, now);
    assert_eq!(result(&told).unwrap().found_by, Some(FoundBy::Static));
}

#[test]
fn a_local_search_in_vain_is_told_with_its_reasons() {
    let now = Instant::now();
    let mut dialer = Dialer::new(request(Until::Direct, 1), [], true, now);
    dialer.search(DNS, now);
    drain(&mut dialer, now);
    dialer.handle_search_failed("cannot resolve db of discovery.dns: no such name".to_owned());
    dialer.handle_candidates([place(1), place(2)]);
    dialer.handle_searched();
    drain(&mut dialer, now);
    dialer.handle_local_failed(place(1).host, LocalFailure::OtherPeer);
    assert!(result(&drain(&mut dialer, now)).is_none());
    let refused = LocalFailure::NoAnswer("10.0.0.2:443 refused".to_owned());
    dialer.handle_local_failed(place(2).host, refused);
    let told = drain(&mut dialer, now);
    let outcome = result(&told).unwrap();
    assert_eq!(
        outcome.reason.as_deref(),
        Some(
            "cannot resolve db of discovery.dns: no such name; of 2 place(s) that discovery.dns told, 1 are other peers and 1 \
             failed: 10.0.0.2:443 refused"
        )
    );
}

#[test]
fn a_peer_that_is_lost_is_looked_for_anew() {
    let now = Instant::now();
    let mut dialer = Dialer::new(request(Until::Direct, 9), [], true, now);
    dialer.search(DNS, now);
    drain(&mut dialer, now);
    dialer.handle_candidates([place(1)]);
    drain(&mut dialer, now);
    let direct = direct_at(place(1).host);
    dialer.handle_connected(direct.clone(), direct, now);
    drain(&mut dialer, now);
    dialer.handle_disconnected(PathKind::Direct, "lost".to_owned(), None, now);
    assert!(drain(&mut dialer, now).contains(&Action::Search));
    dialer.handle_candidates([place(1)]);
    assert_eq!(drain(&mut dialer, now), [Action::DialLocal(place(1))]);
}
