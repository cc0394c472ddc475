#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use p2pnode_protocol::stun::{Change, Transaction};

use super::*;

const OWN: &str = "198.51.100.10";
const PARTNER: &str = "198.51.100.20";
const ASKER: &str = "203.0.113.7:40017";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn server(partners: &[&str]) -> Stun {
    let partners = partners.iter().map(|ip| ip.parse().unwrap());
    let mut server = Stun::new(partners.collect());
    for family in Family::ALL {
        server.handle_bound(family, Port::Quic, 443);
        server.handle_bound(family, Port::Second, 3478);
    }
    server
}

fn request() -> Message {
    Message::new(Class::Request, Transaction::new([7; 12]))
}

fn ask(server: &mut Stun, request: &Message, remote: &str, at: Port) -> Outcome {
    let bytes = request.encode();
    let asked = Asked {
        bytes: &bytes,
        remote: addr(remote),
        at,
        local: Some(addr(&format!("{OWN}:443"))),
        is_tcp: false,
        is_hidden: false,
    };
    server.handle(
        asked,
        Instant::now(),
        SystemTime::UNIX_EPOCH + Duration::from_millis(5),
    )
}

fn sent(outcome: Outcome) -> (Port, SocketAddr, Message, usize) {
    let Outcome::Send {
        from, to, bytes, ..
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    (from, to, Message::decode(&bytes).unwrap(), bytes.len())
}

#[test]
fn an_answer_goes_to_another_port_of_the_asker_and_never_to_another_address() {
    let mut asked = request();
    asked.response_port = 40_018.try_into().ok();
    let (from, to, answer, length) = sent(ask(&mut server(&[]), &asked, ASKER, Port::Quic));
    assert_eq!((from, to), (Port::Quic, addr("203.0.113.7:40018")));
    assert_eq!(answer.mapped, Some(addr(ASKER)));
    assert!(length <= asked.encode().len() + 12, "{length}");
    asked.change = Some(Change {
        ip: true,
        port: false,
    });
    let (_, to, question, _) = sent(ask(&mut server(&[PARTNER]), &asked, ASKER, Port::Quic));
    assert_eq!(to, addr(&format!("{PARTNER}:3478")));
    let mut partner = server(&[OWN]);
    let from = format!("{OWN}:3478");
    let (_, to, answer, _) = sent(ask(&mut partner, &question, &from, Port::Second));
    assert_eq!(to, addr("203.0.113.7:40018"));
    assert_eq!(answer.mapped, Some(addr(ASKER)));
}

#[test]
fn a_bare_request_gets_the_address_and_no_more() {
    let (from, to, answer, length) = sent(ask(&mut server(&[]), &request(), ASKER, Port::Quic));
    assert_eq!((from, to, length), (Port::Quic, addr(ASKER), 32));
    assert_eq!(answer.mapped, Some(addr(ASKER)));
    assert_eq!(
        (answer.other, answer.origin, answer.info),
        (None, None, None)
    );
}

#[test]
fn a_longer_request_gets_more_and_never_more_than_it_is_long() {
    for partners in [&[][..], &[PARTNER]] {
        for padding in 0..120 {
            let mut request = request();
            request.info = Some(RelayInfo::default());
            request.padding = padding;
            let long = request.encode().len();
            let (_, _, answer, length) =
                sent(ask(&mut server(partners), &request, ASKER, Port::Quic));
            assert!(length <= long.max(44), "{length} for {long}");
            if length < long.saturating_sub(40) {
                let info = answer.info.unwrap();
                assert_eq!((info.second_port, info.unix_ms), (3478, 5));
                assert_eq!(answer.origin, Some(addr("198.51.100.10:443")));
            }
        }
    }
}

#[test]
fn an_answer_is_as_long_as_its_request_if_that_wants_it_and_never_longer() {
    for partners in [&[][..], &[PARTNER]] {
        for padding in 0..1500 {
            let mut request = request();
            request.padding = padding;
            request.info = Some(RelayInfo {
                pads: true,
                ..RelayInfo::default()
            });
            request.fingerprint = padding % 2 == 0;
            let long = request.encode().len();
            let (.., answer, length) =
                sent(ask(&mut server(partners), &request, ASKER, Port::Quic));
            // What the shortest request gets, with a FINGERPRINT.
            assert!(length <= long.max(52), "{length} for {long}");
            if padding >= 120 {
                assert_eq!(length, long);
                assert!(answer.padding > 0 || padding < 130, "{padding}");
            }
            assert!(answer.info.is_none_or(|info| !info.pads));
        }
    }
}

#[test]
fn with_a_partner_its_address_and_the_other_port_are_named() {
    let mut server = server(&["2001:db8::20", PARTNER]);
    for (at, other) in [(Port::Quic, 3478), (Port::Second, 443)] {
        let (_, _, answer, length) = sent(ask(&mut server, &request(), ASKER, at));
        assert_eq!(answer.other, Some(addr(&format!("{PARTNER}:{other}"))));
        assert_eq!(length, 44);
    }
}

#[test]
fn another_port_answers_if_it_is_asked_for_and_the_partner_from_another_address() {
    let mut own = server(&[PARTNER]);
    let mut change = request();
    change.change = Some(Change {
        ip: false,
        port: true,
    });
    let (from, to, answer, _) = sent(ask(&mut own, &change, ASKER, Port::Quic));
    assert_eq!((from, to), (Port::Second, addr(ASKER)));
    assert_eq!(answer.mapped, Some(addr(ASKER)));

    for (port, from) in [(true, Port::Second), (false, Port::Quic)] {
        change.change = Some(Change { ip: true, port });
        let (_, to, question, _) = sent(ask(&mut own, &change, ASKER, Port::Quic));
        assert_eq!(to, addr(&format!("{PARTNER}:3478")));
        let mut partner = server(&[OWN]);
        let outcome = ask(
            &mut partner,
            &question,
            &format!("{OWN}:3478"),
            Port::Second,
        );
        let (seen_from, to, answer, length) = sent(outcome);
        assert_eq!((seen_from, to), (from, addr(ASKER)));
        assert_eq!(answer.mapped, Some(addr(ASKER)));
        assert_eq!(answer.transaction, change.transaction);
        assert!(length <= question.encode().len());
    }
}

#[test]
fn nobody_but_a_partner_asks_on_behalf_of_another_nor_for_a_private_address() {
    let mut server = server(&[PARTNER]);
    let mut question = request();
    let mut behalf = |asker: &str, from: &str| {
        question.on_behalf = Some(OnBehalf {
            asker: addr(asker),
            to: None,
            from: Port::Quic,
            tcp: false,
        });
        ask(&mut server, &question, from, Port::Second)
    };
    let refused = Outcome::Ignore(Ignored::NotPartner);
    assert_eq!(behalf(ASKER, "203.0.113.9:3478"), refused);
    for third in [
        "10.0.0.1:22",
        "127.0.0.1:22",
        "169.254.169.254:80",
        "[2001:db8::7]:9",
    ] {
        assert_eq!(
            behalf(third, &format!("{PARTNER}:3478")),
            refused,
            "{third}"
        );
    }
    assert!(matches!(
        behalf(ASKER, &format!("{PARTNER}:3478")),
        Outcome::Send { .. }
    ));
}

#[test]
fn what_cannot_be_done_is_refused_within_the_length_of_the_request() {
    let mut server = server(&[]);
    let mut change = request();
    change.change = Some(Change {
        ip: true,
        port: true,
    });
    let (_, _, error, length) = sent(ask(&mut server, &change, ASKER, Port::Quic));
    assert_eq!(
        (error.class, error.error, length),
        (Class::Error, Some(420), 28)
    );
    change.transaction = Transaction([1; 16]);
    let classic = ask(&mut server, &change, ASKER, Port::Second);
    assert_eq!(classic, Outcome::Ignore(Ignored::NoOther));
    let mut answer = request();
    answer.class = Class::Success;
    let malformed = Outcome::Ignore(Ignored::Malformed);
    assert_eq!(
        ask(&mut server, &answer, ASKER, Port::Quic),
        malformed,
        "no loop"
    );
}

#[test]
fn each_source_has_a_rate_and_many_networks_of_one_site_have_one_together() {
    let mut server = server(&[]);
    let answered = |server: &mut Stun, source: &dyn Fn(usize) -> String| {
        let ask = |n| ask(server, &request(), &source(n), Port::Quic);
        let sent = (0..4096)
            .map(ask)
            .filter(|outcome| matches!(outcome, Outcome::Send { .. }));
        sent.count()
    };
    let one = answered(&mut server, &|n| format!("203.0.113.7:{}", 1 + n));
    assert!((512..600).contains(&one), "{one}");
    assert!(matches!(
        ask(&mut server, &request(), "203.0.113.8:1", Port::Quic),
        Outcome::Send { .. }
    ));
    let site = answered(&mut server, &|n| format!("[2001:db8:1:{n:x}::1]:1"));
    assert!((2048..2400).contains(&site), "{site}");
}

#[test]
fn over_tcp_everything_is_answered_and_another_port_is_a_connection() {
    let mut server = server(&[PARTNER]);
    let mut request = request();
    request.info = Some(RelayInfo::default());
    let mut over_tcp = |request: &Message| {
        let bytes = request.encode();
        let asked = Asked {
            bytes: &bytes,
            remote: addr(ASKER),
            at: Port::Second,
            local: Some(addr("198.51.100.10:3478")),
            is_tcp: true,
            is_hidden: false,
        };
        server.handle(asked, Instant::now(), SystemTime::UNIX_EPOCH)
    };
    let (_, _, answer, _) = sent(over_tcp(&request));
    assert!(answer.info.is_some() && answer.origin.is_some() && answer.other.is_some());
    request.change = Some(Change {
        ip: false,
        port: true,
    });
    assert!(matches!(over_tcp(&request), Outcome::Connect { to, .. } if to == addr(ASKER)));
    request.change = Some(Change {
        ip: true,
        port: true,
    });
    let Outcome::Send {
        is_for_partner,
        bytes,
        ..
    } = over_tcp(&request)
    else {
        panic!("the partner is asked");
    };
    let question = Message::decode(&bytes).unwrap();
    assert!(is_for_partner && question.on_behalf.unwrap().tcp);
}
