//! Looking for the peer where no relay is needed.

use super::*;

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
        standing: Standing::New,
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
    let until = dialer.poll_timeout().unwrap();
    assert!(until > now && until - now <= Duration::from_millis(100));
    dialer.handle_relay_ready(relay, until);
    let asked = drain(&mut dialer, until);
    assert_eq!(asked, [Action::DialCircuit(relay)]);
    assert!(
        dialer.poll_timeout().unwrap() > until,
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
    let actions = drain(&mut dialer, now);
    let outcome = result(&actions).unwrap();
    assert_eq!(
        (outcome.outcome, outcome.found_by),
        (Reached::Direct, Some(FoundBy::Dns))
    );
    assert!(!actions.contains(&Action::DialCircuit(relay)));
    assert!(!actions.contains(&Action::DialLocal(place(3))));
    assert_eq!(dialer.addrs(), place(2).addrs);
}

#[test]
fn an_address_that_was_given_is_static_though_the_dns_answers_with_it_too() {
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
    let actions = drain(&mut dialer, now);
    assert_eq!(result(&actions).unwrap().found_by, Some(FoundBy::Static));
}

#[test]
fn a_local_search_that_fails_is_reported_with_its_reasons() {
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
    let actions = drain(&mut dialer, now);
    let outcome = result(&actions).unwrap();
    assert_eq!(
        outcome.reason.as_ref().unwrap().to_string(),
        "cannot resolve db of discovery.dns: no such name; of 2 place(s) that discovery.dns told, 1 are other peers and 1 \
         failed: 10.0.0.2:443 refused"
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
    dialer.handle_disconnected(
        PathKind::Direct,
        Farewell::Lost,
        "lost".to_owned(),
        None,
        now,
    );
    assert!(drain(&mut dialer, now).contains(&Action::Search));
    dialer.handle_candidates([place(1)]);
    assert_eq!(drain(&mut dialer, now), [Action::DialLocal(place(1))]);
}
