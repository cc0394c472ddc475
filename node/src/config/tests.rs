#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{net::IpAddr, path::Path};

use libp2p::multiaddr::Protocol;
use p2pnode_daemon::config::{Document, Flags, Sources, load};
use p2pnode_transports::{Congestion, Family, Transport};
use proptest::prelude::*;

use super::*;

const A: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
const B: &str = "12D3KooWGrWn9wdGcHi6Ut1ZQTvw9YwMRGZNhpLBgyCxHbNrpjKi";

fn sources(file: &str, flags: Flags) -> Sources {
    let file = file.replace("$A", A).replace("$B", B);
    Sources {
        file: Some(Document::parse(Path::new("f.yaml"), file).unwrap()),
        env: [("HOME".to_owned(), "/home/ann".to_owned())].into(),
        flags,
    }
}

fn read(file: &str, purpose: Purpose) -> Result<Config, String> {
    load(&PROGRAM, &sources(file, Flags::default()), |reader| {
        Config::read(reader, purpose)
    })
    .map(|loaded| loaded.config)
    .map_err(|faults| faults.to_string())
}

fn target(file: &str, peer: &str, addrs: &[&str]) -> Result<Target, String> {
    let peer = peer.replace("$A", A).replace("$B", B);
    let addrs: Vec<_> = addrs
        .iter()
        .map(|addr| addr.replace("$A", A).replace("$B", B))
        .collect();
    load(&PROGRAM, &sources(file, Flags::default()), |reader| {
        let config = Config::read(reader, Purpose::Dial);
        Target::read(reader, &config, &peer, &addrs)
    })
    .map(|loaded| loaded.config.unwrap())
    .map_err(|faults| faults.to_string())
}

const WHOLE: &str = r#"
identity: { key_file: /srv/identity.key }
listen: [/ip4/0.0.0.0/udp/443/quic-v1, /ip4/0.0.0.0/tcp/443]
dial:   { port_range: 50000-50001, family: prefer-ip6, transports: [quic], congestion: bbr }
relays: [/dns/relay.example.net/udp/443/quic-v1/p2p/$A, /ip4/203.0.113.10/udp/443/quic-v1/p2p/$A]
reservations: 0
punch:  { enabled: false, advertise: ["/ip4/198.51.100.7/udp/{port}/quic-v1"], allow: [0.0.0.0/0], deny: [10.0.0.0/8 tcp] }
discovery: { dns: [p2pnode.ns.svc.cluster.local:443], mdns: true }
peers:  { db: { id: $B, addrs: [/ip4/192.0.2.7/tcp/4001/p2p/$B] } }
access: { allow: [$A, $B] }
admin:  { listen: 127.0.0.1:9464 }
control: { socket: /srv/control.sock }
log:    { level: "info,p2pnode=debug", format: json }
"#;

#[test]
fn every_key_of_the_file_arrives() {
    let config = read(WHOLE, Purpose::Run).unwrap();
    assert_eq!(config.key, Key::File("/srv/identity.key".into()));
    assert_eq!(config.listen.len(), 2);
    assert_eq!(
        config.dial.port_range,
        PortRange::new(50000, 50001).unwrap()
    );
    assert_eq!(config.dial.family, FamilyPolicy::PreferIp6);
    assert_eq!((config.dial.quic, config.dial.tcp), (true, false));
    assert_eq!(config.dial.congestion, Congestion::Bbr);
    assert_eq!(config.relays.len(), 2);
    assert_eq!(config.relays[0].peer.to_string(), A);
    assert_eq!(
        config.relays[1].addr,
        "/ip4/203.0.113.10/udp/443/quic-v1".parse().unwrap()
    );
    assert_eq!(config.reservations, 0);
    assert!(!config.punch.enabled);
    let services: Vec<_> = config
        .discovery
        .dns
        .iter()
        .map(Service::to_string)
        .collect();
    assert_eq!(services, ["p2pnode.ns.svc.cluster.local:443"]);
    assert_eq!(config.discovery.mdns, Mdns::AskAndAnswer);
    let db = &config.peers["db"];
    assert_eq!(
        (db.id.to_string().as_str(), db.addrs.clone()),
        (B, vec!["/ip4/192.0.2.7/tcp/4001".parse().unwrap()])
    );
    assert_eq!(config.access.len(), 2);
    assert_eq!(config.admin, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(config.control, Path::new("/srv/control.sock"));
    assert_eq!(config.log.level.to_string(), "info,p2pnode=debug");
    assert_eq!(config.log.format, logging::Format::Json);
}

#[test]
fn nothing_given_runs_unprivileged_and_many_on_one_host() {
    let config = read("", Purpose::Run).unwrap();
    assert!(matches!(config.key, Key::File(path) if path.ends_with("p2pnode/identity.key")));
    assert!(config.listen.is_empty() && config.relays.is_empty() && config.access.is_empty());
    assert_eq!(config.dial.port_range.to_string(), "40000-40050");
    assert!(config.dial.quic && config.dial.tcp && config.punch.enabled);
    assert_eq!((config.reservations, config.admin), (2, None));
    assert!(config.discovery.is_off(), "nothing is multicast unasked");
    assert_eq!(
        config.log.level.to_string(),
        "info,libp2p_swarm=warn,yamux=error"
    );
}

#[test]
fn a_dial_beside_a_running_node_takes_nothing_of_its_file_that_only_one_can_have() {
    let config = read("", Purpose::Dial).unwrap();
    assert_eq!(config.key, Key::Throwaway);
    let config = read(WHOLE, Purpose::Dial).unwrap();
    assert_eq!(config.key, Key::File("/srv/identity.key".into()));
    assert!(config.listen.is_empty());
    assert_eq!(config.admin, None);
    assert_eq!(config.discovery.mdns, Mdns::Ask);

    let listen = ["/ip4/127.0.0.1/tcp/4001".to_owned()];
    let sources = sources(WHOLE, Flags::default().many("listen", "--listen", &listen));
    let loaded = load(&PROGRAM, &sources, |reader| {
        Config::read(reader, Purpose::Dial)
    })
    .unwrap();
    assert_eq!(loaded.config.listen.len(), 1);
}

#[test]
fn each_contradiction_is_told_at_the_value_that_causes_it() {
    for (file, fault) in [
        (
            "listen: [/ip4/0.0.0.0/tcp/443, /ip4/0.0.0.0/udp/40050/quic-v1]",
            "f.yaml:1:32: listen: /ip4/0.0.0.0/udp/40050/quic-v1 is in the dial range 40000-40050, whose ports are for dialing \
             and punching; listen on a port outside it",
        ),
        (
            "admin: { listen: 127.0.0.1:40000 }",
            "f.yaml:1:18: admin.listen: 127.0.0.1:40000 is in the dial range 40000-40050, whose ports are for dialing and \
             punching; listen on a port outside it",
        ),
        (
            "dial: { transports: [] }",
            "f.yaml:1:21: dial.transports: is an empty list; give quic, tcp or both, or leave the key out",
        ),
        (
            "dial: { transports: [tcp] }\nrelays:\n- /ip4/192.0.2.1/tcp/1/p2p/$A\n- /ip4/192.0.2.1/udp/1/quic-v1/p2p/$B",
            "f.yaml:4:3: relays: relay /ip4/192.0.2.1/udp/1/quic-v1/p2p/$B cannot be dialed: dial.transports has no quic; add \
             it, or give an address of another transport",
        ),
        (
            "dial: { family: only-ip6 }\nrelays: [/ip4/192.0.2.1/tcp/1/p2p/$A]",
            "f.yaml:2:10: relays: relay /ip4/192.0.2.1/tcp/1/p2p/$A cannot be dialed: dial.family is only-ip6 and the address \
             is ip4; change one of them",
        ),
        (
            "dial: { transports: [quic] }\npunch: { advertise: ['/ip4/192.0.2.1/tcp/{port}'] }",
            "f.yaml:2:22: punch.advertise: /ip4/192.0.2.1/tcp/{port} cannot be punched: dial.transports has no tcp; add it, or \
             give an address of another transport",
        ),
        (
            "peers: { db: { id: $A, addrs: [/ip4/192.0.2.1/tcp/1/p2p/$B] } }",
            "f.yaml:1:82: peers.db.addrs: /ip4/192.0.2.1/tcp/1/p2p/$B names the peer $B but is to reach $A; drop /p2p/$B or give \
             the right address",
        ),
        (
            "discovery: { dns: [a.example:443, b.example:443, A.example.:443] }",
            "f.yaml:1:50: discovery.dns: A.example.:443 is given twice; give it once",
        ),
        (
            "discovery: { dns: [a:1, b:1, c:1, d:1, e:1, f:1, g:1, h:1, i:1] }",
            "f.yaml:1:19: discovery.dns: has 9 names, more than 8, of which each is resolved for each dial; put the peers behind \
             fewer names",
        ),
        (
            "discovery: { mdns: true }\ndial: { port_range: 40000 }",
            "f.yaml:1:20: discovery.mdns: is true, and its questions leave from a port of their own: dial.port_range 40000-40000 has \
             but one; widen it, or set false",
        ),
        (
            "peers: { my.db: { id: $A } }",
            "f.yaml:1:10: peers: \"my.db\" is no name for a peer; use 1 to 63 letters, digits, hyphens and underscores",
        ),
        (
            "peers: { $A: { id: $A } }",
            "f.yaml:1:10: peers: $A is a peer id, not a name; write `NAME: { id: $A }`",
        ),
        (
            "relays: [/ip4/192.0.2.1/tcp/1]",
            "f.yaml:1:10: relays: relay \"/ip4/192.0.2.1/tcp/1\" names no peer id; append /p2p/<id>, as `relay-node id` prints it",
        ),
        (
            "dial: { port_range: 80-79 }",
            "f.yaml:1:21: dial.port_range: invalid port range `80-79`: the last port is below the first; give a port or \
             first-last, as in 40000-40050",
        ),
        (
            "dial: { family: ip4 }",
            "f.yaml:1:17: dial.family: unknown family policy `ip4`; give auto, prefer-ip4, prefer-ip6, only-ip4 or only-ip6",
        ),
        (
            "dial: { congestion: reno }",
            "f.yaml:1:21: dial.congestion: unknown congestion control `reno`; give cubic or bbr",
        ),
    ] {
        let fault = fault.replace("$A", A).replace("$B", B);
        assert_eq!(read(file, Purpose::Run).unwrap_err(), fault, "{file}");
    }
    // A relay that has another address, which can be dialed, is none.
    let file = "dial: { transports: [tcp] }\nrelays: [/ip4/192.0.2.1/tcp/1/p2p/$A, /ip4/192.0.2.1/udp/1/quic-v1/p2p/$A]";
    assert_eq!(read(file, Purpose::Run).unwrap().relays.len(), 2);
}

#[test]
fn a_target_is_an_id_or_a_name_with_the_addresses_of_both_places() {
    let peers = "relays: [/ip4/192.0.2.1/tcp/1/p2p/$A]\npeers: { db: { id: $B, addrs: [/ip4/192.0.2.7/tcp/1] } }";
    let expected = Target {
        peer: B.parse().unwrap(),
        addrs: ["/ip4/192.0.2.8/tcp/2", "/ip4/192.0.2.7/tcp/1"]
            .map(|addr| addr.parse().unwrap())
            .to_vec(),
    };
    for peer in ["db", "$B"] {
        assert_eq!(
            target(peers, peer, &["/ip4/192.0.2.8/tcp/2/p2p/$B"]).unwrap(),
            expected
        );
    }
    assert!(target(peers, "$A", &[]).unwrap().addrs.is_empty());
    for discovery in [
        "discovery: { dns: [a.example:443] }",
        "discovery: { mdns: true }",
    ] {
        assert!(target(discovery, "$A", &[]).unwrap().addrs.is_empty());
    }
    assert_eq!(
        target("", "$A", &["/ip4/192.0.2.8/tcp/2"])
            .unwrap()
            .addrs
            .len(),
        1
    );
}

#[test]
fn each_target_that_cannot_be_dialed_is_told_with_what_to_give() {
    let peers = "peers: { db: { id: $B } }";
    for (file, peer, addrs, fault) in [
        (
            peers,
            "bd",
            &[][..],
            "PEER: \"bd\" is neither a peer id nor a name under `peers:`; give an id such as 12D3KooW..., as `p2pnode id` prints it on that host, or one of db",
        ),
        (
            peers,
            "db",
            &[],
            "PEER: $B cannot be found: no relay and no address of it is known; give --relay MULTIADDR or --addr MULTIADDR, or set \
             discovery.dns or discovery.mdns",
        ),
        (
            "",
            "$A",
            &["/ip4/192.0.2.8/tcp/2/p2p/$B"],
            "--addr: /ip4/192.0.2.8/tcp/2/p2p/$B names the peer $B but is to reach $A; drop /p2p/$B or give the right address",
        ),
        (
            "",
            "$A",
            &["/ip4/192.0.2.8/tcp/0"],
            "--addr: \"/ip4/192.0.2.8/tcp/0\" has port 0, which cannot be dialed; give the port of the listener",
        ),
        (
            "access: { allow: [$B] }",
            "$A",
            &["/ip4/192.0.2.8/tcp/2"],
            "PEER: $A is not in access.allow, which refuses it; add it there",
        ),
    ] {
        let fault = fault.replace("$A", A).replace("$B", B);
        assert_eq!(target(file, peer, addrs).unwrap_err(), fault);
    }
    let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
    assert!(check_not_own(a, b).is_ok());
    assert!(
        check_not_own(a, a)
            .unwrap_err()
            .to_string()
            .contains("own id")
    );
}

#[test]
fn a_template_takes_the_punch_port_where_it_says_so() {
    for (text, at_40017, transport, family) in [
        (
            "/ip4/198.51.100.7/udp/{port}/quic-v1",
            "/ip4/198.51.100.7/udp/40017/quic-v1",
            Transport::Quic,
            Family::Ip4,
        ),
        (
            "/ip6/2001:db8::7/tcp/{port}",
            "/ip6/2001:db8::7/tcp/40017",
            Transport::Tcp,
            Family::Ip6,
        ),
        (
            "/ip4/198.51.100.7/tcp/51234",
            "/ip4/198.51.100.7/tcp/51234",
            Transport::Tcp,
            Family::Ip4,
        ),
    ] {
        let template: AdvertiseTemplate = text.parse().unwrap();
        assert_eq!(template.to_string(), text);
        assert_eq!(template.with_port(40017).to_string(), at_40017);
        assert_eq!(
            (template.transport(), template.family()),
            (transport, family)
        );
    }
    for (text, what) in [
        ("/ip4/198.51.100.{port}/tcp/1", "where no port stands"),
        ("/ip4/198.51.100.7/tcp/{port}{port}", "twice"),
        ("/ip4/198.51.100.7/tcp/{prot}", "is no address to advertise"),
        ("/ip4/198.51.100.7/tcp/1{port}", "where no port stands"),
        ("/ip4/198.51.100.7/tcp/{port}1", "where no port stands"),
        ("/dns/example.net/tcp/{port}", "names a host"),
        ("/ip4/0.0.0.0/tcp/{port}", "is no address to advertise"),
        ("/ip4/198.51.100.7/tcp/0", "port 0"),
        ("/ip4/198.51.100.7/udp/{port}", "is no address to advertise"),
        ("{port}", "is no address to advertise"),
        ("", "is not a multiaddr"),
    ] {
        let error = text.parse::<AdvertiseTemplate>().unwrap_err();
        assert!(error.contains(what), "{text}: {error}");
    }
    let with_peer = format!("/ip4/198.51.100.7/tcp/{{port}}/p2p/{A}");
    assert!(
        with_peer
            .parse::<AdvertiseTemplate>()
            .unwrap_err()
            .contains("drop /p2p/<id>")
    );
}

#[test]
fn a_service_is_a_name_and_a_port() {
    for text in [
        "db:1",
        "a-b._tcp.example.net:65535",
        "p2pnode.ns.svc.cluster.local.:443",
    ] {
        assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
    }
    let long = format!("{}:443", "abcdefgh.".repeat(32));
    for (text, what) in [
        ("", "has no port"),
        ("p2pnode.ns.svc", "has no port"),
        ("p2pnode.ns.svc:", "has no port from 1 to 65535"),
        ("p2pnode.ns.svc:0", "has port 0, which cannot be dialed"),
        ("p2pnode.ns.svc:+1", "has no port from 1 to 65535"),
        ("p2pnode.ns.svc:65536", "has no port from 1 to 65535"),
        ("p2pnode.ns.svc:https", "has no port from 1 to 65535"),
        (":443", "has no name that the DNS could hold"),
        ("a..b:443", "has no name that the DNS could hold"),
        ("-a:443", "has no name that the DNS could hold"),
        ("a b:443", "has no name that the DNS could hold"),
        ("http://a:443", "has no name that the DNS could hold"),
        (long.as_str(), "has no name that the DNS could hold"),
        (
            "10.0.0.1:443",
            "is an address, which belongs under peers.NAME.addrs",
        ),
        (
            "10.0.0.1",
            "is an address, which belongs under peers.NAME.addrs",
        ),
        (
            "[fd00::1]:443",
            "is an address, which belongs under peers.NAME.addrs",
        ),
        (
            "fd00::1",
            "is an address, which belongs under peers.NAME.addrs",
        ),
        ("/dns/a/tcp/443", "is a multiaddr"),
    ] {
        let error = text.parse::<Service>().unwrap_err();
        assert!(error.contains(what), "{text}: {error}");
        assert!(
            error.ends_with("as in p2pnode.default.svc.cluster.local:443"),
            "{error}"
        );
    }
}

#[test]
fn filters_match_by_network_and_transport() {
    let matches = |filter: &str, addr: &str| {
        filter
            .parse::<PunchFilter>()
            .unwrap()
            .matches(&addr.parse().unwrap())
    };
    assert!(matches("10.0.0.0/8", "/ip4/10.1.2.3/tcp/1"));
    assert!(matches("10.0.0.0/8", "/ip4/10.1.2.3/udp/1/quic-v1"));
    assert!(!matches("10.0.0.0/8", "/ip4/11.1.2.3/tcp/1"));
    assert!(matches("10.0.0.0/8 tcp", "/ip4/10.1.2.3/tcp/1"));
    assert!(!matches("10.0.0.0/8 tcp", "/ip4/10.1.2.3/udp/1/quic-v1"));
    assert!(matches("fd00::/8  quic", "/ip6/fd00::1/udp/1/quic-v1"));
    assert!(matches("0.0.0.0/0", "/ip4/1.2.3.4/tcp/1"));
    assert!(!matches("0.0.0.0/0", "/ip6/fd00::1/tcp/1"));
    assert!(matches("192.0.2.1", "/ip4/192.0.2.1/tcp/1"));
    assert!(!matches("192.0.2.1", "/ip4/192.0.2.2/tcp/1"));
    assert!(matches("10.0.0.0/8", "/ip6/::ffff:10.0.0.1/tcp/1"));
    assert!(!matches("0.0.0.0/0", "/dns/example.net/tcp/1"));
    for (text, remedy) in [
        ("", "write 10.0.0.0/8"),
        ("10.0.0.0/33", "write 10.0.0.0/8"),
        ("10.0.0.1/8", "write 10.0.0.0/8 or 10.0.0.1"),
        ("10.0.0.0/8 udp", "neither quic nor tcp"),
        ("10.0.0.0/8 tcp quic", "write 10.0.0.0/8"),
        ("example.net", "write 10.0.0.0/8"),
    ] {
        let error = text.parse::<PunchFilter>().unwrap_err();
        assert!(error.contains(remedy), "{error}");
    }
}

#[test]
fn deny_beats_allow_and_no_allow_permits_all() {
    let permits = |allow: &[&str], deny: &[&str], addr: &str| {
        let filters = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let punch = Punch {
            enabled: true,
            advertise: Vec::new(),
            allow: filters(allow),
            deny: filters(deny),
        };
        punch.permits(&addr.parse().unwrap())
    };
    assert!(permits(&[], &[], "/ip4/10.0.0.1/tcp/1"));
    assert!(!permits(&["192.0.2.0/24"], &[], "/ip4/10.0.0.1/tcp/1"));
    assert!(permits(
        &["192.0.2.0/24", "10.0.0.0/8"],
        &[],
        "/ip4/10.0.0.1/tcp/1"
    ));
    assert!(!permits(
        &["10.0.0.0/8"],
        &["10.0.0.1"],
        "/ip4/10.0.0.1/tcp/1"
    ));
    assert!(permits(&[], &["10.0.0.0/8 quic"], "/ip4/10.0.0.1/tcp/1"));
}

proptest! {
    #[test]
    fn templates_and_filters_print_as_they_parse_and_never_panic(
        text in "\\PC{0,30}|[a-z.-]{0,9}:[0-9]{0,6}|/(ip4/1\\.2\\.3\\.4|ip6/::2)/(tcp|udp)/(\\{port\\}|[0-9]{1,6})(/quic-v1)?|[0-9a-f.:]{0,20}(/[0-9]{1,3})?( quic| tcp)?"
    ) {
        if let Ok(template) = text.parse::<AdvertiseTemplate>() {
            prop_assert_eq!(template.to_string().parse(), Ok(template));
        }
        if let Ok(service) = text.parse::<Service>() {
            prop_assert_eq!(service.to_string().parse(), Ok(service));
        }
        if let Ok(filter) = text.parse::<PunchFilter>() {
            prop_assert_eq!(filter.to_string().parse(), Ok(filter));
        }
    }

    #[test]
    fn a_network_matches_what_is_in_it(ip in any::<IpAddr>(), other in any::<IpAddr>(), bits in 0..=32u8, port in 1..u16::MAX) {
        // IPv4 within IPv6 is IPv4 by the filter's rule.
        let (ip, other) = (ip.to_canonical(), other.to_canonical());
        let net = ipnet::IpNet::new(ip, bits).unwrap().trunc();
        let filter: PunchFilter = net.to_string().parse().unwrap();
        let addr = |ip: IpAddr| Multiaddr::from(ip).with(Protocol::Tcp(port));
        prop_assert!(filter.matches(&addr(ip)));
        prop_assert_eq!(filter.matches(&addr(other)), net.contains(&other));
    }

    #[test]
    fn no_argument_of_a_dial_panics(peer in "\\PC{0,60}", addr in "\\PC{0,20}|/ip4/1\\.2\\.3\\.4/tcp/[0-9]{1,5}") {
        let _ = target("", &peer, &[&addr]);
    }
}

#[test]
fn nodes_that_share_a_range_have_a_part_each_and_one_firewall() {
    const SHARED: &str = "dial: { port_range: 40000-40049, ports_per_ordinal: 10, ordinal: 3 }";
    for purpose in [Purpose::Run, Purpose::Dial] {
        let dial = read(SHARED, purpose).unwrap().dial;
        assert_eq!(dial.port_range.to_string(), "40030-40039");
        assert_eq!(dial.shared_range.to_string(), "40000-40049");
    }
    let dial = read(&SHARED.replace(", ordinal: 3", ""), Purpose::Firewall)
        .unwrap()
        .dial;
    assert_eq!(dial.port_range, dial.shared_range);

    let fault = read(
        &SHARED.replace("ordinal: 3 }", "ordinal: 5 }"),
        Purpose::Run,
    )
    .unwrap_err();
    assert!(
        fault.starts_with("f.yaml:1:") && fault.contains("dial.ordinal: 5 has no ports"),
        "{fault}"
    );
    // A listener among the ports of another node would take them on the same host.
    let beside = format!("{SHARED}\nadmin: {{ listen: 0.0.0.0:40001 }}");
    let fault = read(&beside, Purpose::Run).unwrap_err();
    assert!(
        fault.contains("is in the dial range 40000-40049"),
        "{fault}"
    );
}

#[test]
fn a_range_that_a_flag_gives_is_taken_as_it_is() {
    let flags = Flags::default().one("dial.port_range", "--port-range", Some(&"50000".to_owned()));
    let file = "dial: { ports_per_ordinal: 10 }";
    let loaded = load(&PROGRAM, &sources(file, flags), |reader| {
        Config::read(reader, Purpose::Dial)
    });
    assert_eq!(
        loaded.unwrap().config.dial.port_range.to_string(),
        "50000-50000"
    );
}
