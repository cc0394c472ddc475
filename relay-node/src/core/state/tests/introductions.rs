//! Who is introduced to whom.

use p2pnode_protocol::introduction::{self, Answer, Introduction, Notice, Request};

use super::*;

/// A peer with a reservation that takes introductions, and one that asks.
fn pair(relay: &mut Relay) -> (PeerId, PeerId) {
    let wanted = relay.member(1, 1);
    relay
        .state
        .handle_identified(&wanted, id(1), &[introduction::PROTOCOL]);
    let [asker] = peers();
    relay.connect(2, asker, 2);
    relay.actions();
    relay.events();
    (asker, wanted)
}

fn ask(relay: &mut Relay, asker: PeerId, wanted: PeerId, own: &[&str]) -> Answer {
    let request = Request {
        peer: wanted,
        addrs: own.iter().map(|own| addr(own)).collect(),
    };
    relay
        .state
        .handle_introduction_request(asker, &request, relay.now)
}

fn refused(refusal: introduction::Refusal) -> Answer {
    Answer::Refused(refusal)
}

#[test]
fn both_learn_in_one_moment_where_the_relay_sees_the_other_and_what_the_other_learned() {
    let mut relay = Relay::new(Settings::default());
    let (asker, wanted) = pair(&mut relay);
    let own = "/ip4/198.51.100.2/udp/7/quic-v1";
    let answer = ask(&mut relay, asker, wanted, &[own, "/dns4/example.net/tcp/1"]);
    let introduction = Introduction {
        addrs: vec![host(1)],
        own_addrs: vec![host(2), addr(own)],
    };
    assert_eq!(answer, Answer::Introduced(introduction.clone()));
    let notice = Notice {
        peer: asker,
        introduction: Introduction {
            addrs: introduction.own_addrs,
            own_addrs: introduction.addrs,
        },
    };
    let action = Action::Introduce {
        peer: wanted,
        connection: id(1),
        notice,
    };
    assert_eq!(relay.actions(), [action]);
}

#[test]
fn the_newest_connection_with_a_reservation_is_the_one_that_counts() {
    let mut relay = Relay::new(Settings::default());
    let (asker, wanted) = pair(&mut relay);
    relay.connect(3, wanted, 3);
    relay.reserve(3, wanted).unwrap();
    let unsupported = refused(introduction::Refusal::Unsupported);
    assert_eq!(ask(&mut relay, asker, wanted, &[]), unsupported);
    relay
        .state
        .handle_identified(&wanted, id(3), &[introduction::PROTOCOL]);
    assert!(matches!(
        ask(&mut relay, asker, wanted, &[]),
        Answer::Introduced(_)
    ));
}

#[test]
fn who_cannot_be_introduced_is_said_and_nobody_else_hears_of_it() {
    use introduction::Refusal;
    let mut relay = Relay::new(Settings::default());
    let (asker, wanted) = pair(&mut relay);
    let silent = relay.member(3, 3);
    let [absent] = peers();
    let (none, unsupported, nothing) = (
        refused(Refusal::NoReservation),
        refused(Refusal::Unsupported),
        refused(Refusal::NothingInCommon),
    );
    relay.actions();
    assert_eq!(ask(&mut relay, asker, absent, &[]), none);
    assert_eq!(ask(&mut relay, wanted, asker, &[]), none);
    assert_eq!(ask(&mut relay, asker, silent, &[]), unsupported);
    assert_eq!(ask(&mut relay, wanted, wanted, &[]), nothing);
    let [far] = peers();
    relay.established(4, far, &incoming(&addr("/ip6/2001:db8::7/udp/4/quic-v1")));
    assert_eq!(ask(&mut relay, far, wanted, &[]), nothing);
    // What the relay dials is no mapping of a NAT.
    let [other] = peers();
    relay.established(5, other, &dialed(&host(5)));
    assert_eq!(ask(&mut relay, other, wanted, &[]), nothing);
    assert_eq!(relay.actions(), []);
}

#[test]
fn who_asks_too_often_is_refused_until_it_has_waited_and_so_are_those_who_ask_for_one_too_often() {
    let mut relay = Relay::new(Settings::default());
    let (asker, wanted) = pair(&mut relay);
    let often = refused(introduction::Refusal::TooOften);
    let introduced = (0..200).filter(|_| ask(&mut relay, asker, wanted, &[]) != often);
    assert_eq!(introduced.count(), 64);
    relay.advance(Duration::from_secs(1));
    let introduced = (0..20).filter(|_| ask(&mut relay, asker, wanted, &[]) != often);
    assert_eq!(introduced.count(), 10);
    relay.advance(Duration::from_secs(100));
    let mut introduced = 0;
    for number in 10..20 {
        let [other] = peers();
        relay.connect(number, other, number as u8);
        introduced += (0..20)
            .filter(|_| ask(&mut relay, other, wanted, &[]) != often)
            .count();
    }
    assert_eq!(introduced, 128, "the wanted one is spared");
}
