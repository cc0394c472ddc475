//! What is not so is not said: of relays, of the range, of remedies.

use p2pnode_transports::{Exhausted, HeldBy};

use super::*;
use crate::core::netcheck::spread;

fn of(report: &Report, id: Id) -> &super::super::Check {
    report.checks.iter().find(|check| check.id == id).unwrap()
}

fn remedy(report: &Report, id: Id) -> Option<&str> {
    Some(of(report, id).remedy.as_ref()?.id.as_str())
}

/// QUIC and TCP behind the same NAT, with these answers of one relay.
fn answered(quic: Answer, tcp: Answer) -> Facts {
    let quic_path = LAB[3].1.path(2);
    let tcp_path = PathFacts {
        transport: Transport::Tcp,
        ..quic_path.clone()
    };
    let mut facts = facts(vec![quic_path, tcp_path]);
    let legs = facts.relays[0].legs.iter_mut();
    for (leg, answer) in legs.zip([quic, tcp]) {
        leg.answer = answer;
    }
    facts
}

const AFTER: Answer = Answer::After(Duration::from_millis(12));
const UNPROVED: Answer = Answer::Unproved(Duration::from_millis(12));

#[test]
fn a_handshake_decides_whose_answer_it_is() {
    let (relay, other) = (PeerId::random(), PeerId::random());
    let rtt = Some(Duration::from_millis(12));
    let proved = |peer| Some((peer, Duration::from_millis(30)));
    let of = |rtt, proved, is_connected| Answer::of(relay, rtt, proved, is_connected);
    assert_eq!(of(rtt, proved(relay), false), AFTER);
    for is_connected in [false, true] {
        let answer = of(rtt, proved(other), is_connected);
        assert_eq!(answer, Answer::Other(other));
    }
    assert_eq!(of(rtt, None, false), UNPROVED);
    assert_eq!(of(rtt, None, true), Answer::Held);
    assert_eq!(of(None, None, false), Answer::Silent);
}

#[test]
fn a_relay_is_there_only_if_it_has_proved_its_id() {
    let other = || Answer::Other(PeerId::random());
    for (quic, tcp, status, id, reaches) in [
        (
            other(),
            other(),
            Status::Fail,
            "wrong_peer",
            Reaches::Nobody,
        ),
        (
            other(),
            UNPROVED,
            Status::Fail,
            "wrong_peer",
            Reaches::Nobody,
        ),
        (
            AFTER,
            other(),
            Status::Warn,
            "wrong_peer",
            Reaches::Directly,
        ),
        (
            UNPROVED,
            UNPROVED,
            Status::Unknown,
            "no_handshake",
            Reaches::Nobody,
        ),
        (
            UNPROVED,
            Answer::Silent,
            Status::Unknown,
            "no_handshake",
            Reaches::Nobody,
        ),
        (
            Answer::Silent,
            Answer::Silent,
            Status::Fail,
            "relay_unreachable",
            Reaches::Nobody,
        ),
    ] {
        let name = format!("{quic:?} {tcp:?}");
        let mut facts = answered(quic, tcp);
        for path in &mut facts.paths {
            path.sample.clear();
        }
        let report = assess(&facts);
        assert_eq!(of(&report, Id::Relay).status, status, "{name}");
        assert_eq!(remedy(&report, Id::Relay), Some(id), "{name}");
        assert_eq!(report.reaches(), reaches, "{name}");
        let is_open = reaches != Reaches::Nobody;
        assert_eq!(!report.verdict.direct.is_empty(), is_open, "{name}");
    }
    // One that is right stands beside a wrong one.
    let mut facts = answered(AFTER, AFTER);
    let wrong = facts.relays[0].legs.iter().map(|leg| Leg {
        answer: other(),
        ..leg.clone()
    });
    let wrong = RelayFacts {
        relay: PeerId::random(),
        legs: wrong.collect(),
    };
    facts.relays.insert(0, wrong);
    let report = assess(&facts);
    assert_eq!(of(&report, Id::Relay).status, Status::Fail);
    assert_eq!(report.reaches(), Reaches::Directly);
}

#[test]
fn without_long_packets_nothing_is_promised() {
    let mut lost = answered(UNPROVED, UNPROVED);
    for path in &mut lost.paths {
        path.payload = Some(0);
    }
    let report = assess(&lost);
    assert_eq!(of(&report, Id::Relay).status, Status::Fail);
    assert_eq!(remedy(&report, Id::Relay), Some("mtu"));
    assert_eq!(report.reaches(), Reaches::Nobody);
    assert!(report.verdict.direct.is_empty());
    // TCP falls back to short segments, as a handshake has shown.
    lost.relays[0].legs[1].answer = AFTER;
    let report = assess(&lost);
    assert_eq!(report.reaches(), Reaches::Directly);
    let mtu = |report: &Report, transport| {
        let is_it = |check: &&super::super::Check| {
            (check.id, check.transport) == (Id::Mtu, Some(transport))
        };
        report.checks.iter().find(is_it).unwrap().status
    };
    assert_eq!(mtu(&report, Transport::Quic), Status::Fail);
    assert_eq!(mtu(&report, Transport::Tcp), Status::Warn);
    // Old connections of the node prove the relay, and not that it can be dialed.
    for leg in &mut lost.relays[0].legs {
        leg.answer = Answer::Held;
    }
    let report = assess(&lost);
    assert_eq!(report.verdict.relayed, PeerClass::ALL);
    assert_eq!(report.reaches(), Reaches::Relayed);
}

#[test]
fn the_sample_goes_from_end_to_end() {
    let spread = |range: &str, count| {
        let mut ports = spread(range.parse().unwrap(), count);
        ports.sort_unstable();
        ports
    };
    let ports = spread("40000-40050", 8);
    assert_eq!(
        ports,
        [40000, 40007, 40014, 40021, 40028, 40035, 40042, 40050]
    );
    assert_eq!(spread("40000-40001", 8), [40000, 40001]);
    assert_eq!(spread("40000-40003", 1), [40000]);
    assert_eq!(spread("40000", 8), [40000]);
    assert_eq!(spread("1-65535", 2), [1, 65535]);
}

#[test]
fn ports_that_get_no_answer_are_named() {
    let mut facts = answered(AFTER, AFTER);
    for (at, (port, mapped)) in facts.paths[0].sample.iter_mut().enumerate() {
        *port = 40_000 + u16::try_from(at).unwrap() * 7;
        *mapped = (*port < 40_020).then(|| addr(OUTSIDE, *port));
    }
    let text = |facts: &Facts| of(&assess(facts), Id::Range).text.clone();
    assert_eq!(
        text(&facts),
        "range_blocked: 40000-40050: 3 of 8 sampled ports get out, seen as themselves; \
         out: 40000, 40007, 40014; no answer: 40021, 40028, 40035, 40042, 40049"
    );
    // All of them, where the punch port gets out.
    for (_, mapped) in &mut facts.paths[0].sample {
        *mapped = None;
    }
    let report = assess(&facts);
    assert_eq!(remedy(&report, Id::Range), Some("range_blocked"));
    assert!(text(&facts).contains("0 of 8 sampled ports get out; no answer: 40000"));
    // One of them, where the punch port does not.
    facts.relays[0].legs[0].answer = Answer::Silent;
    facts.paths[0].seen.clear();
    facts.paths[0].sample[3].1 = Some(addr(OUTSIDE, 40_021));
    let report = assess(&facts);
    assert!(
        text(&facts).ends_with("; no answer to the punch port"),
        "{}",
        text(&facts)
    );
    assert_eq!(of(&report, Id::Udp).status, Status::Ok, "not udp_blocked");
    facts.relays[0].legs.truncate(1);
    let report = assess(&facts);
    assert_eq!(remedy(&report, Id::Relay), Some("range_blocked"));
    assert_eq!(report.reaches(), Reaches::Nobody);
}

#[test]
fn udp_is_blocked_only_where_the_same_relay_answers_over_tcp() {
    let blocked = answered(Answer::Silent, AFTER);
    let without_sample = |mut facts: Facts| {
        facts.paths[0].sample.clear();
        facts
    };
    let report = assess(&without_sample(blocked.clone()));
    assert_eq!(remedy(&report, Id::Udp), Some("udp_blocked"));
    // Two relays, each over one transport.
    let mut two = blocked;
    let tcp = two.relays[0].legs.split_off(1);
    two.relays.push(RelayFacts {
        relay: PeerId::random(),
        legs: tcp,
    });
    let report = assess(&without_sample(two.clone()));
    assert_eq!(of(&report, Id::Udp).status, Status::Unknown);
    two.relays.truncate(1);
    let report = assess(&without_sample(two));
    let text = &of(&report, Id::Udp).text;
    assert!(text.contains("it takes a TCP address"), "{text}");
}

#[test]
fn what_this_host_lacks_is_not_put_on_the_relay() {
    let mut facts = answered(Answer::NoRoute, Answer::NoRoute);
    facts.paths[0].sample.clear();
    let report = assess(&facts);
    assert_eq!(remedy(&report, Id::Relay), Some("no_route"));
    assert_eq!(of(&report, Id::Udp).status, Status::Unknown);
    let report = assess(&answered(AFTER, Answer::NoRoute));
    assert_eq!(of(&report, Id::Relay).status, Status::Ok);
    let report = assess(&answered(Answer::Fault(Fault::Files), Answer::NoRoute));
    assert_eq!(remedy(&report, Id::Relay), Some("open_files"));
    let no_socket = || Answer::NoSocket("exhausted".to_owned());
    let mut facts = answered(no_socket(), no_socket());
    assert_eq!(remedy(&assess(&facts), Id::Relay), Some("no_socket"));
    let holder = |by| p2pnode_transports::Holder {
        transport: Transport::Quic,
        port: 400,
        by,
    };
    for (by, id) in [
        (HeldBy::Refused("denied".to_owned()), "privileged_ports"),
        (HeldBy::Cooling, "exhausted"),
    ] {
        facts.host.unbound = Some(Exhausted {
            range: facts.range,
            holders: vec![holder(by)],
        });
        let report = assess(&facts);
        assert_eq!(remedy(&report, Id::Relay), Some(id));
        let host = of(&report, Id::Host);
        assert_eq!(host.status, Status::Fail);
        assert_eq!(host.remedy.as_ref().unwrap().id, id);
    }
    let none = HostFacts::default;
    for (host, id) in [
        (
            HostFacts {
                forbidden: 24,
                ..none()
            },
            "privileged_ports",
        ),
        (
            HostFacts {
                timestamps: Some(false),
                ..none()
            },
            "timestamps",
        ),
        (
            HostFacts {
                udp_timeout: Some(29),
                ..none()
            },
            "udp_timeout",
        ),
    ] {
        facts.host = host;
        assert_eq!(remedy(&assess(&facts), Id::Host), Some(id));
    }
    let long = HostFacts {
        timestamps: Some(true),
        udp_timeout: Some(30),
        ..none()
    };
    facts.host = long;
    assert_eq!(remedy(&assess(&facts), Id::Host), None);
}

#[test]
fn a_fault_of_this_host_is_never_the_networks() {
    for (fault, id) in [
        (Fault::Files, "open_files"),
        (Fault::InUse, "ports_in_use"),
        (Fault::Forbidden, "forbidden_here"),
        (Fault::Memory, "no_buffers"),
    ] {
        let mut few = facts(vec![LAB[3].1.path(2)]);
        few.paths[0].faults.insert(fault);
        few.paths[0].sample.truncate(3);
        let report = assess(&few);
        let range = of(&report, Id::Range);
        assert_eq!(range.status, Status::Unknown);
        assert!(range.text.contains(fault.as_str()), "{}", range.text);
        assert_eq!(range.remedy.as_ref().unwrap().id, id);
        // Nothing was sent: neither the relay nor UDP is to blame.
        few.paths[0].sample.clear();
        few.paths[0].seen.clear();
        few.relays[0].legs[0].answer = Answer::Fault(fault);
        let report = assess(&few);
        assert_eq!(remedy(&report, Id::Relay), Some(id));
        assert_eq!(of(&report, Id::Udp).status, Status::Unknown);
        assert!(!report.checks.iter().any(|check| check.id == Id::Range));
        // What was sent without an answer counts.
        let mut blocked = facts(vec![LAB[3].1.path(2)]);
        blocked.paths[0].faults.insert(fault);
        blocked.paths[0].sample[0].1 = None;
        assert_eq!(remedy(&assess(&blocked), Id::Range), Some("range_blocked"));
        // Without files this look itself is not whole.
        let host = of(&report, Id::Host).status;
        assert_eq!(host == Status::Fail, fault == Fault::Files);
    }
}

#[test]
fn a_punch_port_that_is_blocked_is_named_although_an_old_connection_stands() {
    let mut facts = facts(vec![LAB[3].1.path(2)]);
    facts.paths[0].seen.clear();
    facts.relays[0].legs[0].answer = Answer::Held;
    let report = assess(&facts);
    let range = of(&report, Id::Range);
    assert_eq!(range.status, Status::Fail);
    assert!(
        range.text.ends_with("; no answer to the punch port"),
        "{}",
        range.text
    );
    assert_eq!(remedy(&report, Id::Nat), Some("range_blocked"));
}

#[test]
fn the_direction_in_which_long_packets_are_lost_is_named() {
    let text = |transport, out, back| {
        let mut path = LAB[3].1.path(2);
        path.transport = transport;
        (path.payload, path.payload_in) = (Some(out), back);
        let mut facts = facts(vec![path]);
        facts.relays[0].legs[0].answer = UNPROVED;
        let report = assess(&facts);
        let mtu = of(&report, Id::Mtu);
        (mtu.status, mtu.text.clone())
    };
    let (quic, tcp) = (Transport::Quic, Transport::Tcp);
    for (transport, out, back, status, end) in [
        (quic, 1452, Some(1452), Status::Ok, "1452 bytes of payload"),
        (quic, 1452, None, Status::Ok, "1452 bytes of payload"),
        (
            quic,
            1420,
            Some(1252),
            Status::Warn,
            "1420 bytes of payload to the relay, 1252 from it",
        ),
        (
            quic,
            1452,
            Some(0),
            Status::Fail,
            "from the relay to this node",
        ),
        (quic, 0, None, Status::Fail, "from this node to the relay"),
        (
            tcp,
            1452,
            Some(0),
            Status::Fail,
            "from the relay to this node, and no handshake ends with short ones",
        ),
        (
            tcp,
            0,
            None,
            Status::Fail,
            "from this node to the relay, and no handshake ends with short ones",
        ),
        (
            tcp,
            1452,
            Some(1452),
            Status::Ok,
            "full segments get through",
        ),
    ] {
        let (is, text) = text(transport, out, back);
        assert!(is == status && text.ends_with(end), "{is:?} {text}");
    }
}

#[test]
fn a_nat_that_is_unknown_gets_the_remedy_that_shows_it() {
    let nat = |change: fn(&mut PathFacts)| {
        let mut path = LAB[2].1.path(2);
        change(&mut path);
        let report = assess(&facts(vec![path]));
        remedy(&report, Id::Nat).map(str::to_owned)
    };
    assert_eq!(nat(|_| {}), None);
    let unknown = |path: &mut PathFacts| {
        (path.from_other_port, path.from_other_address) = (None, None);
    };
    assert_eq!(nat(unknown).as_deref(), Some("second_relay"));
    let few_ports = |path: &mut PathFacts| {
        (path.from_other_port, path.from_other_address) = (None, None);
        path.lacks_port = true;
    };
    assert_eq!(nat(few_ports).as_deref(), Some("few_ports"));
    let strangers = |path: &mut PathFacts| {
        (path.from_other_address, path.has_partner) = (None, false);
    };
    assert_eq!(nat(strangers).as_deref(), Some("partners"));
    let nothing = |path: &mut PathFacts| {
        path.seen.clear();
        path.lacks_port = true;
    };
    assert_eq!(nat(nothing).as_deref(), Some("few_ports"));
}

#[test]
fn a_search_that_is_off_or_not_over_quic_finds_nobody() {
    use PeerClass::{EimApdf, Symmetric};
    let symmetric = LAB[6].1.path(2);
    let over_tcp = PathFacts {
        transport: Transport::Tcp,
        ..symmetric.clone()
    };
    let mut off = facts(vec![symmetric]);
    off.searches = false;
    for facts in [off, facts(vec![over_tcp])] {
        let report = assess(&facts);
        assert_eq!(report.verdict.relayed, [EimApdf, Symmetric]);
        assert!(report.verdict.search.is_empty());
        assert_eq!(report.reaches(), Reaches::Relayed);
    }
}

#[test]
fn a_clock_that_is_not_shown_has_the_right_reason() {
    let text = |facts: &Facts| of(&assess(facts), Id::Clock).text.clone();
    let mut facts = answered(AFTER, AFTER);
    facts.clock_ahead = None;
    assert!(text(&facts).contains("no relay has shown its clock"));
    for path in &mut facts.paths {
        path.seen.clear();
    }
    assert!(text(&facts).contains("no relay answers STUN"));
    for leg in &mut facts.relays[0].legs {
        leg.answer = Answer::Silent;
    }
    assert_eq!(text(&facts), "unknown: no relay answers");
}
