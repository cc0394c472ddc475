#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{net::Ipv4Addr, path::Path};

use p2pnode_daemon::config::{Document, Flags, Program, Sources, load, schema};

use super::*;

const A: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
const OWN: &str = "12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2";

fn peers() -> Peers {
    [("west".to_owned(), A.parse().unwrap())].into()
}

fn known() -> Known {
    Known {
        peers: peers(),
        lacks_peers: false,
        own: Some(OWN.parse().unwrap()),
        addresses: vec![Ipv4Addr::new(10, 0, 3, 7).into()],
    }
}

fn raw(target: &str) -> RawService {
    RawService {
        target: target.parse().unwrap(),
        allow: vec!["any".to_owned()],
        identity: Identity::None,
        protocol: None,
        source: Source::Any,
        udp_idle: None,
    }
}

fn checked(raw: RawService) -> Result<Service, String> {
    service("db".parse().unwrap(), raw, &known()).map_err(|faults| {
        let lines: Vec<_> = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.key, fault.problem))
            .collect();
        lines.join("\n")
    })
}

#[test]
fn addresses_are_printed_as_they_are_written() {
    for text in [
        "tcp://10.0.3.7:5432",
        "udp://[::1]:53",
        "unix:///run/app.sock",
        "tcp://db.example.net:1",
    ] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
    }
    for text in ["tcp://127.0.0.1:0", "udp://[::]:53", "unix:///run/app.sock"] {
        assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
    }
}

#[test]
fn an_address_that_is_wrong_is_named_with_the_reason_and_the_remedy() {
    for (text, why) in [
        ("", "names no transport"),
        ("10.0.3.7:5432", "names no transport"),
        ("http://10.0.3.7:80", "has the unknown transport \"http\""),
        ("tcp://10.0.3.7", "has no port"),
        ("tcp://10.0.3.7:+80", "has no port"),
        ("tcp://10.0.3.7:65536", "has no port"),
        ("tcp://10.0.3.7:0", "has port 0"),
        ("tcp://:80", "has no host"),
        ("tcp://10.0.3:80", "has no host"),
        ("tcp://::1:80", "has no host"),
        ("tcp://a b:80", "has no host"),
        ("unix://run/app.sock", "names no absolute path"),
        ("unix:///", "names no absolute path"),
        ("unix:///a\0", "names no absolute path"),
    ] {
        let error = text.parse::<Target>().unwrap_err();
        assert!(
            error.contains(why) && error.contains(';'),
            "{text}: {error}"
        );
    }
    let error = "tcp://localhost:80".parse::<Listen>().unwrap_err();
    assert!(error.contains("has no IP address"), "{error}");
    let long = format!("unix:///{}", "x".repeat(107));
    assert!(
        long.parse::<Target>()
            .unwrap_err()
            .contains("is longer than 107")
    );
}

#[test]
fn names_hold_lower_case_letters_digits_and_hyphens() {
    for name in ["a", "db-0", &"x".repeat(63)] {
        assert_eq!(name.parse::<ServiceName>().unwrap().as_str(), name);
    }
    for name in ["", "DB", "a_b", "a.b", "ä", "a b", &"x".repeat(64)] {
        assert!(name.parse::<ServiceName>().unwrap_err().contains("1 to 63"));
    }
    for name in ["/x/web", "/x/a/b-1"] {
        assert_eq!(name.parse::<RawProtocol>().unwrap().as_str(), name);
    }
    for name in ["", "web", "/x/", "/y/web", "/x/a b"] {
        assert!(name.parse::<RawProtocol>().unwrap_err().contains("/x/web"));
    }
}

#[test]
fn a_destination_is_a_service_and_a_peer() {
    let destination: Destination = "db@west".parse().unwrap();
    assert_eq!(destination.what, What::Service("db".parse().unwrap()));
    assert_eq!(destination.peer, "west");
    let raw: Destination = format!("/x/web@{A}").parse().unwrap();
    assert_eq!(raw.what, What::Raw("/x/web".parse().unwrap()));
    for text in ["db", "db@", "@west", "DB@west", "/x/@west"] {
        assert!(text.parse::<Destination>().is_err(), "{text}");
    }
}

#[test]
fn a_service_without_allow_is_a_fault_that_says_so() {
    let closed = RawService {
        allow: Vec::new(),
        ..raw("tcp://127.0.0.1:80")
    };
    assert!(
        checked(closed)
            .unwrap_err()
            .starts_with("allow: is missing")
    );
}

#[test]
fn only_those_that_allow_names_are_permitted() {
    let other = PeerId::random();
    let west = RawService {
        allow: vec!["west".to_owned()],
        ..raw("tcp://127.0.0.1:80")
    };
    let allow = checked(west).unwrap().allow;
    assert!(allow.permits(&A.parse().unwrap()) && !allow.permits(&other));
    assert!(Allow::Any.permits(&other));
    for (allow, why) in [
        (["east", A], "\"east\" is neither"),
        (["any", A], "\"any\" admits every peer"),
    ] {
        let wrong = RawService {
            allow: allow.map(str::to_owned).into(),
            ..raw("tcp://127.0.0.1:80")
        };
        assert!(checked(wrong).unwrap_err().contains(why));
    }
}

#[test]
fn addresses_for_peers_need_an_ip4_target_on_this_host() {
    let with = |target| {
        checked(RawService {
            identity: Identity::Address,
            ..raw(target)
        })
    };
    for target in [
        "tcp://127.0.0.1:80",
        "udp://127.3.0.1:53",
        "tcp://10.0.3.7:80",
    ] {
        assert!(with(target).is_ok(), "{target}");
    }
    for (target, why) in [
        ("tcp://[::1]:80", "is IPv6"),
        ("tcp://10.0.3.8:80", "is not an address of this host"),
        ("tcp://localhost:80", "is a name"),
        ("unix:///run/a.sock", "has no addresses"),
    ] {
        let error = with(target).unwrap_err();
        assert!(error.contains(why) && error.contains("proxy-v2"), "{error}");
    }
}

#[test]
fn all_contradictions_of_a_service_are_named_at_once() {
    let error = checked(RawService {
        allow: Vec::new(),
        protocol: Some("/x/dns".parse().unwrap()),
        ..raw("udp://127.0.0.1:53")
    });
    let error = error.unwrap_err();
    assert!(error.contains("allow: ") && error.contains("protocol: /x/dns is a stream"));
    let error = checked(RawService {
        source: Source::Range,
        udp_idle: Some(UDP_IDLE),
        ..raw("unix:///a")
    });
    let error = error.unwrap_err();
    assert!(error.contains("source: range is for ports") && error.contains("udp_idle: 60s"));
}

#[test]
fn a_forward_keeps_the_order_and_names_each_wrong_destination() {
    let given = |to: &[&str]| {
        let raw = RawForward {
            listen: "udp://127.0.0.1:53".parse().unwrap(),
            to: to.iter().map(|to| to.parse().unwrap()).collect(),
        };
        forward(raw, &known())
    };
    let both = given(&["b@west", "a@west"]).unwrap();
    let names: Vec<_> = both.to.iter().map(|(what, _)| what.to_string()).collect();
    assert_eq!(names, ["b", "a"]);
    let wrong = given(&["a@west", "a@east", "/x/web@west", "a@west"]).unwrap_err();
    let items: Vec<_> = wrong.iter().map(|fault| fault.item.unwrap()).collect();
    assert_eq!(items, [1, 2, 3]);
    assert!(given(&[]).unwrap_err()[0].problem.contains("SERVICE@PEER"));
    let own = format!("a@{OWN}");
    let others = given(&[&own, "a@west"]).unwrap();
    assert_eq!(others.to, given(&["a@west"]).unwrap().to);
    let problem = &given(&[&own]).unwrap_err()[0].problem;
    assert!(problem.starts_with(&own) && problem.contains("is this node itself"));
}

const PROGRAM: Program = Program {
    name: "p2pnode",
    env: "P2PNODE",
};

fn loaded(file: &str) -> Result<Services, String> {
    let sources = Sources {
        file: Some(Document::parse(Path::new("f.yaml"), file.replace("$A", A)).unwrap()),
        env: Default::default(),
        flags: Flags::default(),
    };
    load(&PROGRAM, &sources, |reader| read(reader, &known()))
        .map(|loaded| loaded.config)
        .map_err(|faults| faults.to_string())
}

const WHOLE: &str = r#"
services:
  db:  { target: "tcp://10.0.3.7:5432", allow: [$A, west], identity: proxy-v2 }
  dns: { target: "udp://127.0.0.1:53", allow: any, identity: address, udp_idle: 5s }
  web: { target: "tcp://127.0.0.1:8080", allow: any, protocol: /x/web, source: range }
forwards:
  - { listen: "tcp://127.0.0.1:5432", to: db@$A }
  - { listen: "unix:///run/p2pnode/db.sock", to: [db@west, /x/web@west] }
socks: { listen: "127.0.0.1:1080" }
sessions: { linger: 10s, memory: 64MiB }
"#;

#[test]
fn every_key_arrives() {
    let config = loaded(WHOLE).unwrap();
    let names: Vec<_> = config.services.keys().map(ServiceName::as_str).collect();
    assert_eq!(names, ["db", "dns", "web"]);
    let service = |name: &str| &config.services[&name.parse::<ServiceName>().unwrap()];
    assert_eq!(service("db").name.as_str(), "db");
    assert_eq!(service("db").identity, Identity::ProxyV2);
    assert_eq!(
        service("db").allow,
        Allow::Peers([A.parse().unwrap()].into())
    );
    assert_eq!(service("dns").udp_idle, Duration::from_secs(5));
    assert_eq!(
        (service("dns").identity, &service("dns").allow),
        (Identity::Address, &Allow::Any)
    );
    assert_eq!(service("web").source, Source::Range);
    assert_eq!(service("web").protocol, Some("/x/web".parse().unwrap()));
    assert_eq!(config.forwards.len(), 2);
    assert_eq!(config.forwards[1].to.len(), 2);
    assert_eq!(config.socks, Some("127.0.0.1:1080".parse().unwrap()));
    assert_eq!(
        (config.linger, config.memory),
        (Duration::from_secs(10), 64 << 20)
    );
}

#[test]
fn nothing_given_offers_and_brings_nothing() {
    let config = loaded("").unwrap();
    assert!(config.services.is_empty() && config.forwards.is_empty() && config.socks.is_none());
    assert_eq!((config.linger, config.memory), (LINGER, MEMORY));
}

#[test]
fn all_faults_are_named_at_once_with_their_lines() {
    let file = r#"
services:
  DB: { target: "tcp://127.0.0.1:1", allow: any }
  db: { target: "tcp://127.0.0.1" }
  dns: { target: "udp://127.0.0.1:53", allow: [], identity: proxy-v3 }
  web: { target: "tcp://127.0.0.1:1", allow: [west, east] }
forwards:
  - { listen: "tcp://localhost:1", to: db@east }
  - { listen: "tcp://127.0.0.1:1" }
  - { listen: "tcp://127.0.0.1:2", to: db@east, from: x }
sessions: { memory: 10KiB, linger: 0s }
"#;
    let faults = loaded(file).unwrap_err();
    for fault in [
        "f.yaml:3:3: services: \"DB\" is not a name for a service",
        "f.yaml:4:17: services.db.target: \"tcp://127.0.0.1\" has no port",
        "services.db.allow: is missing; give a peer id, a name under `peers:`, or any",
        "services.dns.allow: is missing; list peer ids",
        "services.dns.identity: \"proxy-v3\" is none of none, proxy-v2, address",
        "f.yaml:6:53: services.web.allow: \"east\" is neither a peer id nor a name",
        "forwards.0.listen: \"tcp://localhost:1\" has no IP address",
        "forwards.1.to: is missing; give a service and its peer",
        "forwards.2.to: \"east\" is neither a peer id nor a name under `peers:`",
        "forwards.2.from: is not a key",
        "sessions.memory: \"10KiB\" is too little for sessions",
        "sessions.linger: \"0s\" is zero",
    ] {
        assert!(faults.contains(fault), "{fault}\n{faults}");
    }
}

#[test]
fn what_contradicts_itself_is_named() {
    let file = r#"
services:
  a: { target: "tcp://127.0.0.1:1", allow: any, protocol: /x/a }
  b: { target: "tcp://127.0.0.1:2", allow: any, protocol: /x/a }
forwards:
  - { listen: "tcp://127.0.0.1:1", to: db@west }
  - { listen: "tcp://127.0.0.1:1", to: dns@west }
socks: { listen: "127.0.0.1:1" }
"#;
    let faults = loaded(file).unwrap_err();
    for fault in [
        "services.b.protocol: a and b both have the protocol /x/a",
        "forwards.1.listen: two forwards listen on tcp://127.0.0.1:1",
        "f.yaml:4:",
        "f.yaml:7:",
        "socks.listen: a forward listens on tcp://127.0.0.1:1 as well",
    ] {
        assert!(faults.contains(fault), "{fault}\n{faults}");
    }
}

#[test]
fn the_schema_has_every_key() {
    let schema = schema(&PROGRAM, |reader| read(reader, &known()));
    let schema = serde_json::to_value(&schema).unwrap();
    let service = &schema["properties"]["services"]["additionalProperties"];
    assert_eq!(service["required"], serde_json::json!(["target", "allow"]));
    let forward = &schema["properties"]["forwards"]["items"];
    assert_eq!(forward["required"], serde_json::json!(["listen", "to"]));
}

#[test]
fn listeners_clash_where_the_system_would_refuse_the_second() {
    for (one, other, clash) in [
        ("tcp://0.0.0.0:7", "tcp://127.0.0.1:7", true),
        ("tcp://[::]:7", "tcp://127.0.0.1:7", true),
        ("tcp://[::]:7", "tcp://[::1]:7", true),
        ("tcp://0.0.0.0:7", "tcp://[::1]:7", false),
        ("tcp://127.0.0.1:7", "tcp://127.0.0.2:7", false),
        ("tcp://127.0.0.1:7", "udp://127.0.0.1:7", false),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", false),
        ("unix:///x/u.sock", "unix:///x//u.sock", true),
        ("unix:///x/u.sock", "unix:///x/./y/../u.sock", true),
        ("unix:///x/u.sock", "unix:///y/u.sock", false),
    ] {
        let [one, other] = [one, other].map(|text| text.parse::<Listen>().unwrap());
        assert_eq!(one.clashes(&other), clash, "{one} {other}");
        assert_eq!(other.clashes(&one), clash, "{one} {other}");
    }
}
