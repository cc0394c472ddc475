//! Reservations and circuits.

use p2pnode_protocol::hop::{Answer, Refusal as HopRefusal, Request};

use super::*;
use crate::core::{circuits::Cut, denial::DenialReason};

#[test]
fn a_reservation_names_the_external_addresses_and_when_it_ends_and_keeps_its_peer() {
    let mut relay = Relay::limited(Limits {
        reservation_duration: Duration::from_secs(60),
        ..Limits::UNLIMITED
    });
    let [peer] = peers();
    relay.connect(1, peer, 1);
    let reservation = relay.reserve(1, peer).unwrap();
    let local = relay.key.public().to_peer_id();
    let expected = Reservation {
        renewed: false,
        expires: 1_800_000_060,
        addrs: vec![addr(&format!("{LOCAL4}/p2p/{local}"))],
    };
    assert_eq!(reservation, expected);
    let keep = Keep::Always;
    assert_eq!(relay.actions(), [Action::KeepAlive { peer, keep }]);
    assert!(matches!(
        relay.events()[..],
        [Event::ReservationGranted { renewed: false, .. }]
    ));
}

#[test]
fn a_full_relay_renews_and_refuses_what_is_new() {
    let mut relay = Relay::limited(Limits {
        reservations: 1,
        ..Limits::UNLIMITED
    });
    let member = relay.member(1, 1);
    let [other] = peers();
    relay.connect(2, other, 2);
    relay.events();
    assert_eq!(relay.reserve(2, other), Err(Refusal::Reservations));
    assert!(matches!(
        relay.events()[..],
        [Event::ReservationDenied { peer, reason: DenialReason::ReservationLimit }] if peer == other
    ));
    assert!(relay.reserve(1, member).unwrap().renewed);
    relay.close(1, member);
    assert!(!relay.reserve(2, other).unwrap().renewed);
}

#[test]
fn a_reservation_that_is_not_renewed_ends_when_it_said_and_lets_its_peer_go() {
    let mut relay = Relay::limited(Limits {
        reservation_duration: Duration::from_secs(60),
        ..Limits::UNLIMITED
    });
    let peer = relay.member(1, 1);
    relay.pass(Duration::from_secs(30));
    assert!(relay.reserve(1, peer).unwrap().renewed);
    relay.pass(Duration::from_secs(59));
    relay.actions();
    relay.events();
    assert_eq!(relay.state.totals().reservations, 1, "it was renewed");
    relay.pass(Duration::from_secs(1));
    let keep = Keep::WhileUsed;
    assert_eq!(relay.actions(), [Action::KeepAlive { peer, keep }]);
    let how = ReservationEnd::Expired;
    assert!(
        matches!(relay.events()[..], [Event::ReservationEnded { how: ended, .. }] if ended == how)
    );
    assert_eq!(relay.state.poll_timeout(), None);
}

#[test]
fn a_reservation_of_which_the_peer_never_learns_is_none() {
    let mut relay = Relay::new(Settings::default());
    let peer = relay.member(1, 1);
    relay.events();
    relay.state.handle_reservation_undelivered(id(1), relay.now);
    assert_eq!(relay.state.totals().reservations, 0);
    let how = ReservationEnd::Undelivered;
    assert!(
        matches!(relay.events()[..], [Event::ReservationEnded { how: ended, .. }] if ended == how)
    );
    relay.close(1, peer);
    assert!(relay.events().is_empty(), "it ends once");
}

#[test]
fn a_peer_that_holds_two_reservations_is_kept_until_the_second_is_gone() {
    let mut relay = Relay::new(Settings::default());
    let peer = relay.member(1, 1);
    relay.connect(2, peer, 1);
    relay.reserve(2, peer).unwrap();
    relay.actions();
    relay.close(1, peer);
    assert_eq!(relay.actions(), []);
    relay.close(2, peer);
    let keep = Keep::WhileUsed;
    assert_eq!(relay.actions(), [Action::KeepAlive { peer, keep }]);
}

#[test]
fn a_request_that_arrives_after_the_end_of_its_connection_leaves_nothing_behind() {
    let mut relay = Relay::new(Settings::default());
    let member = relay.member(1, 1);
    let [peer] = peers();
    relay.connect(2, peer, 2);
    relay.close(2, peer);
    relay.events();
    assert_eq!(relay.reserve(2, peer), Err(Refusal::Gone));
    assert_eq!(relay.circuit(2, peer, member), Err(Refusal::Gone));
    assert!(relay.events().is_empty(), "nobody is refused");
    assert_eq!(relay.state.totals().reservations, 1);
}

#[test]
fn a_circuit_is_open_once_both_sides_are_there_and_its_end_tells_what_it_carried() {
    let mut relay = Relay::new(Settings::default());
    let destination = relay.member(1, 1);
    let [source] = peers();
    relay.connect(2, source, 2);
    let route = relay.circuit(2, source, destination).unwrap();
    assert_eq!(route.to, id(1));
    assert_eq!(relay.state.totals().circuits, 0);
    relay.events();
    let opened = relay
        .state
        .handle_circuit_ready(route.id, relay.now)
        .unwrap();
    assert_eq!(relay.state.totals().circuits, 1);
    opened.traffic.add(7, 9);
    relay.pass(Duration::from_secs(3));
    relay
        .state
        .handle_circuit_ended(route.id, Some(Cut::Bytes), relay.now);
    let events = relay.events();
    let [
        Event::CircuitOpened { .. },
        Event::CircuitClosed {
            open,
            traffic,
            cut: Some(Cut::Bytes),
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(*open, Duration::from_secs(3));
    assert_eq!((traffic.to_destination(), traffic.to_source()), (7, 9));
    assert_eq!(relay.state.totals().circuits, 0);
}

#[test]
fn a_circuit_that_the_destination_does_not_take_is_denied_and_makes_room() {
    let mut relay = Relay::limited(Limits {
        circuits: 1,
        ..Limits::UNLIMITED
    });
    let destination = relay.member(1, 1);
    let source = relay.member(2, 2);
    let route = relay.circuit(2, source, destination).unwrap();
    assert_eq!(
        relay.circuit(2, source, destination),
        Err(Refusal::Circuits)
    );
    relay.events();
    let why = "it answered RESOURCE_LIMIT_EXCEEDED".to_owned();
    relay
        .state
        .handle_circuit_not_taken(route.id, why, relay.now);
    let events = relay.events();
    let reason = DenialReason::DestinationFailed;
    assert!(
        matches!(&events[..], [Event::CircuitDenied { reason: denied, why: Some(_), .. }] if *denied == reason),
        "{events:?}"
    );
    let route = relay.circuit(2, source, destination).unwrap();
    let lost = relay.state.handle_circuit_undelivered(route.id, relay.now);
    assert_eq!(lost, Some(destination));
    assert!(relay.circuit(2, source, destination).is_ok());
}

#[test]
fn the_end_of_a_connection_aborts_the_circuits_over_it_and_what_was_being_made_is_not_carried() {
    let mut relay = Relay::new(Settings::default());
    let destination = relay.member(1, 1);
    let source = relay.member(2, 2);
    let open = relay.open(2, source, destination);
    let making = relay.circuit(2, source, destination).unwrap();
    relay.actions();
    relay.close(2, source);
    assert!(relay.actions().contains(&Action::AbortCircuit(open)));
    assert!(
        relay
            .state
            .handle_circuit_ready(making.id, relay.now)
            .is_none()
    );
    relay.state.handle_circuit_ended(open, None, relay.now);
    assert_eq!(relay.state.totals().circuits, 0);
}

#[test]
fn only_the_parties_of_a_circuit_learn_its_other_leg_and_not_without_end() {
    let mut relay = Relay::new(Settings::default());
    let destination = relay.member(1, 1);
    let source = relay.member(2, 2);
    let stranger = relay.member(3, 3);
    relay.open(2, source, destination);
    let (rtt, now) = (Duration::from_millis(7), relay.now);
    relay.state.handle_round_trip(&destination, id(1), rtt, now);
    let ask = |relay: &mut Relay, peer, on| {
        let request = Request {
            peer: destination,
            dialed: true,
            ips: Vec::new(),
        };
        relay
            .state
            .handle_hop_request(peer, id(on), &request, relay.now)
    };
    let Answer::Leg(leg) = ask(&mut relay, source, 2) else {
        panic!("it is a party")
    };
    assert_eq!(leg.rtt, Some(Duration::from_millis(7)));
    let refused = Answer::Refused(HopRefusal::NotAParty);
    assert_eq!(ask(&mut relay, stranger, 3), refused);
    let often = Answer::Refused(HopRefusal::TooOften);
    let answered = (0..1000).filter(|_| ask(&mut relay, stranger, 3) != often);
    assert_eq!(answered.count(), 255);
    relay.close(3, stranger);
    relay.connect(3, stranger, 3);
    assert_eq!(ask(&mut relay, stranger, 3), refused, "forgotten");
}

#[test]
fn a_relay_without_an_address_offers_no_hop_and_one_that_gets_another_goes_on() {
    let mut relay = Relay::new(Settings::default());
    assert_eq!(relay.state.hop(), Hop::Offered);
    relay.state.handle_listen_expired(&addr(LOCAL4));
    assert_eq!(
        relay.actions(),
        [
            Action::RemoveExternalAddress(addr(LOCAL4)),
            Action::OfferHop(Hop::Withheld)
        ]
    );
    let loopback = addr("/ip4/127.0.0.1/tcp/443");
    relay.state.handle_listening(&loopback);
    relay.actions();
    relay.state.handle_listening(&addr(LOCAL4));
    assert_eq!(
        relay.actions(),
        [
            Action::AddExternalAddress(addr(LOCAL4)),
            Action::RemoveExternalAddress(loopback)
        ],
        "HOP stays offered"
    );
    let configured = addr("/dns4/relay.example.net/tcp/443");
    let settings = Settings {
        external: vec![configured.clone()],
        ..Settings::default()
    };
    let mut state = RelayState::new(PeerId::random(), &settings, relay.now);
    let actions = std::iter::from_fn(|| state.poll_action()).collect::<Vec<_>>();
    let expected = [
        Action::AddExternalAddress(configured),
        Action::OfferHop(Hop::Offered),
    ];
    assert_eq!(actions, expected, "before the first listener");
}
