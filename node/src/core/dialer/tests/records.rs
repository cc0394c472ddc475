//! What the peer's record leads to.

use p2pnode_protocol::directory::ViaRelay;

use super::*;

/// A foreign relay that a record names, and how the record names it.
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
    std::iter::from_fn(|| poll(dialer, now)).collect()
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
    let actions = all(&mut dialer, now);
    let Some(Action::Report(Event::Connected { found_by, .. })) = actions.first() else {
        panic!("{actions:?}")
    };
    assert_eq!(*found_by, Some(FoundBy::Registered));
    dialer.handle_ping(Duration::from_millis(9), relayed, now);
    let actions = all(&mut dialer, now);
    assert_eq!(
        result(&actions).unwrap().found_by,
        Some(FoundBy::Registered)
    );
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
    let actions = all(&mut dialer, now);
    assert_eq!(result(&actions).unwrap().found_by, Some(FoundBy::Relay));
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
    let actions = all(&mut dialer, now);
    assert_eq!(result(&actions).unwrap().outcome, Reached::Unreachable);
    assert_eq!(result(&actions).unwrap().found_by, None);
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
        now = dialer.poll_timeout().unwrap();
        dialer.handle_relay_ready(own, now);
    }
    assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
}

#[test]
fn an_address_that_the_record_names_is_dialed_once_and_reported_as_registered() {
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
        let actions = all(&mut dialer, now);
        let Some(Action::Report(Event::Connected { found_by, .. })) = actions.first() else {
            panic!("{actions:?}")
        };
        assert_eq!(*found_by, Some(by));
    }
}

#[test]
fn a_connection_that_was_open_already_is_reported_as_such() {
    let now = Instant::now();
    let mut dialer = Dialer::new(request(Until::Direct, 0), [], true, now);
    let direct = path(PathKind::Direct, None);
    dialer.handle_open(direct.clone(), None, now);
    dialer.handle_ping(Duration::from_millis(9), direct, now);
    let actions = all(&mut dialer, now);
    assert_eq!(result(&actions).unwrap().found_by, Some(FoundBy::Open));
}

#[test]
fn a_relay_that_answers_that_the_peer_is_absent_is_not_called_silent() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let request = Request {
        timeout: Duration::from_secs(2),
        ..request(Until::Direct, 1)
    };
    let mut dialer = Dialer::new(request, [relay], true, now);
    all(&mut dialer, now);
    dialer.handle_relay_ready(relay, now);
    drain(&mut dialer, now);
    let words = "the peer holds no reservation there".to_owned();
    dialer.handle_circuit_failed(relay, CircuitFailure::Absent, words.clone(), now);
    dialer.handle_looked_up(now);
    let end = now + Duration::from_secs(2);
    let actions = drain(&mut dialer, end);
    let reason = result(&actions).unwrap().reason.clone();
    let reasons = format!("{words}; gave up after 2 s");
    assert_eq!(reason, Some(NotDirect::Unreachable(reasons)));
}
