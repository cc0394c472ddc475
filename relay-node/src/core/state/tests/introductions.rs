//! Who is introduced to whom.

use p2pnode_protocol::{
    introduction::{self, Answer, Introduction, Notice, Request},
    port_search::Offer,
};

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
        search: None,
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
        search: None,
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

fn offer(ip: &str, answers: bool) -> Offer {
    let answers = match answers {
        true => r#""answers":"ffffffffffffffffffffffffffffffff","#,
        false => "",
    };
    let json = format!(
        r#"{{"nonce":"00000000000000000000000000000001",{answers}"side":{{"mapped":"{ip}:40000"}}}}"#
    );
    serde_json::from_str(&json).unwrap()
}

fn search(relay: &mut Relay, from: PeerId, to: PeerId, offer: Offer) -> Vec<Option<Offer>> {
    let request = Request {
        peer: to,
        addrs: Vec::new(),
        search: Some(offer),
    };
    relay
        .state
        .handle_introduction_request(from, &request, relay.now);
    let passed = relay.actions().into_iter().map(|action| match action {
        Action::Introduce { peer, notice, .. } => {
            assert_eq!(peer, to);
            notice.search
        }
        other => panic!("{other:?}"),
    });
    passed.collect()
}

#[test]
fn an_offer_to_search_is_passed_on_if_it_names_where_the_relay_sees_the_sender_and_nobody_else() {
    let mut relay = Relay::new(Settings::default());
    let (asker, wanted) = pair(&mut relay);
    let own = offer("198.51.100.2", false);
    assert_eq!(search(&mut relay, asker, wanted, own), [Some(own)]);
    for other in ["198.51.100.1", "198.51.100.3", "127.0.0.1"] {
        let offer = offer(other, false);
        assert_eq!(search(&mut relay, asker, wanted, offer), [], "{other}");
    }
}

#[test]
fn the_answer_to_an_offer_reaches_a_peer_without_a_reservation() {
    let mut relay = Relay::new(Settings::default());
    let (asker, wanted) = pair(&mut relay);
    let (first, answer) = (offer("198.51.100.1", false), offer("198.51.100.1", true));
    assert_eq!(search(&mut relay, wanted, asker, answer), []);
    relay
        .state
        .handle_identified(&asker, id(2), &[introduction::PROTOCOL]);
    assert_eq!(search(&mut relay, wanted, asker, first), []);
    assert_eq!(search(&mut relay, wanted, asker, answer), [Some(answer)]);
}
