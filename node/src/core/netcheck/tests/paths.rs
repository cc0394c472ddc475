//! What a path shows beyond mapping and filtering.

use super::*;
use crate::config::Rotate;

fn text(report: &Report, id: Id) -> (Status, String) {
    let check = report.checks.iter().find(|check| check.id == id).unwrap();
    (check.status, check.text.clone())
}

#[test]
fn two_mappings_at_two_relays_are_symmetric_although_their_kind_is_unknown() {
    let (_, nat) = LAB[6];
    let mut path = nat.path(2);
    // The second port of the first relay has not answered.
    path.seen.remove(1);
    let report = assess(&facts(vec![path]));
    let nat = nat_of(&report);
    assert_eq!((nat.mapping, nat.kind), (Mapping::Several, Kind::Symmetric));
    assert_eq!(nat.mapping.is_stable(), Some(false));
    assert_eq!(report.reaches(), Reaches::Relayed);
    let json = serde_json::to_value(&report).unwrap();
    let checks = json["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == "nat").unwrap();
    assert_eq!(check["mapping"], "unknown");
    assert!(serde_json::from_value::<Report>(json).is_ok());
}

#[test]
fn lifetimes_are_named_where_they_were_looked_at() {
    let report = |rotate, idle_alive, idle_dead, age| {
        let path = PathFacts {
            lifetime: Some(Lifetime {
                idle_alive,
                idle_dead,
                age,
            }),
            ..LAB[3].1.path(2)
        };
        assess(&Facts {
            rotate,
            ..facts(vec![path])
        })
    };
    let lifetime = |alive, dead, age| text(&report(Rotate::Auto, alive, dead, age), Id::Lifetime);
    let (status, text) = lifetime(Some(300), None, None);
    assert_eq!(
        (status, text.as_str()),
        (Status::Ok, "idle mappings live for 300 s or longer")
    );
    let (status, text) = lifetime(Some(30), Some(60), None);
    assert_eq!(
        (status, text.as_str()),
        (Status::Ok, "idle mappings end between 30 and 60 s")
    );
    let (status, text) = lifetime(None, Some(15), None);
    assert_eq!(
        (status, text.as_str()),
        (Status::Warn, "idle mappings end within 15 s")
    );
    let (status, text) = lifetime(Some(300), None, Some(60));
    assert_eq!(status, Status::Warn);
    assert!(
        text.starts_with("mappings end after 60 s of age although they are used"),
        "{text}"
    );
    // What a running node has measured, without a look of its own.
    let remedy = |rotate| {
        let report = report(rotate, None, None, Some(60));
        let check = report.checks.iter().find(|check| check.id == Id::Lifetime);
        let check = check.unwrap().clone();
        let text = "mappings end after 60 s of age although they are used";
        assert_eq!(check.text, text);
        (
            check.status,
            check.remedy.map(|remedy| (remedy.id, remedy.text)),
        )
    };
    let text = "set punch.rotate to 60s: direct paths then leave each mapping before its end";
    let named = Some(("punch_rotate".to_owned(), text.to_owned()));
    let after = |seconds| Rotate::After(Duration::from_secs(seconds));
    for rotate in [Rotate::Auto, Rotate::Off, after(90)] {
        assert_eq!(remedy(rotate), (Status::Warn, named.clone()));
    }
    assert_eq!(remedy(after(60)), (Status::Ok, None));
    assert_eq!(lifetime(None, None, None).0, Status::Unknown);
    let report = assess(&facts(vec![LAB[3].1.path(2)]));
    assert!(!report.checks.iter().any(|check| check.id == Id::Lifetime));
}

#[test]
fn what_autonat_shows_stands_where_no_router_maps_the_port() {
    let reached = |is_reached| {
        let path = PathFacts {
            reached: Some((addr(OUTSIDE, PORT), is_reached)),
            ..LAB[1].1.path(2)
        };
        text(&assess(&facts(vec![path])), Id::Mapping).1
    };
    assert_eq!(
        reached(true),
        "none needed: a relay reaches 203.0.113.7:40017 from another port (AutoNAT)"
    );
    assert_eq!(
        reached(false),
        "none: no relay reaches 203.0.113.7:40017 unasked (AutoNAT)"
    );
}

#[test]
fn behind_a_nat64_nothing_is_promised_with_peers_of_ip4() {
    let mut path = LAB[3].1.path(2);
    path.family = Family::Ip6;
    let report = assess(&facts(vec![path.clone()]));
    assert_eq!(text(&report, Id::Nat64).0, Status::Warn);
    assert!(report.verdict.direct.is_empty() && report.verdict.is_hard());
    assert_eq!(report.verdict.unknown, [PeerClass::Public]);
    assert_eq!(report.reaches(), Reaches::Relayed);
    // Another relay shows what IPv6 itself is worth.
    for seen in &mut path.seen {
        seen.mapped = Some("[2001:db8::7]:40017".parse().unwrap());
        seen.local = seen.mapped;
    }
    let report = assess(&facts(vec![path]));
    assert!(report.verdict.direct.contains(&PeerClass::EimApdf));
}

#[test]
fn a_dns64_is_named_by_its_prefix() {
    let of = |nat64| {
        let facts = Facts {
            nat64,
            ..facts(vec![LAB[3].1.path(2)])
        };
        text(&assess(&facts), Id::Nat64)
    };
    assert_eq!(of(Nat64::None).0, Status::Ok);
    assert_eq!(of(Nat64::Unknown).0, Status::Ok, "IPv4 gets out");
    let mut without = facts(vec![LAB[3].1.path(2)]);
    without.nat64 = Nat64::Unknown;
    without.relays[0].legs[0].family = Family::Ip6;
    assert_eq!(text(&assess(&without), Id::Nat64).0, Status::Unknown);
    let mut answer = p2pnode_protocol::dns64::question(7);
    (answer[2], answer[7]) = (0x81, 1);
    answer.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16]);
    let ip: std::net::Ipv6Addr = "64:ff9b::192.0.0.170".parse().unwrap();
    answer.extend(ip.octets());
    let prefix = p2pnode_protocol::dns64::answer(7, &answer)
        .unwrap()
        .unwrap();
    let (_, text) = of(Nat64::Prefix(prefix));
    assert!(text.starts_with("yes, 64:ff9b::/96"), "{text}");
}

#[test]
fn the_json_is_that_of_the_contract() {
    let report = assess(&facts(vec![LAB[4].1.path(2)]));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["event"], "netcheck");
    let nat = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["id"] == "nat")
        .unwrap();
    assert_eq!(nat["transport"], "quic");
    assert_eq!(nat["family"], "ip4");
    assert_eq!(
        (&nat["mapping"], &nat["filtering"]),
        (&"eim".into(), &"apdf".into())
    );
    assert_eq!(
        (&nat["preserved"], &nat["kind"]),
        (&false.into(), &"eim-apdf-rewrite".into())
    );
    assert_eq!(nat["allocation"]["kind"], "block");
    assert!(nat["allocation"]["step"].is_null() && nat["status"] == "warn");
    assert_eq!(json["verdict"]["relayed"], serde_json::json!(["symmetric"]));
    assert_eq!(json["verdict"]["search"], serde_json::json!([]));
    let read: Report = serde_json::from_value(json).unwrap();
    assert_eq!(read, report);
}

#[test]
fn a_name_that_is_not_resolved_is_a_fault_of_the_resolver_and_not_of_the_relay() {
    let why = "cannot resolve relay.example.net within 1 s";
    let unresolved = Leg {
        transport: Transport::Quic,
        family: Family::Ip4,
        answer: Answer::Unresolved(why.to_owned()),
    };
    let of = |facts: &Facts| {
        let report = assess(facts);
        let check = report.checks.iter().find(|check| check.id == Id::Relay);
        let check = check.unwrap();
        assert!(check.text.contains(why), "{}", check.text);
        assert_eq!(check.remedy.as_ref().unwrap().id, "resolver");
        (check.status, report.reaches())
    };
    let mut facts = facts(vec![LAB[3].1.path(2)]);
    facts.relays[0].legs.push(unresolved.clone());
    // It answers where the node has it.
    assert_eq!(of(&facts), (Status::Warn, Reaches::Directly));
    facts.relays[0].legs = vec![unresolved];
    assert_eq!(of(&facts), (Status::Fail, Reaches::Nobody));
}
