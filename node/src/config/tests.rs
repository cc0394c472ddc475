#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod punch;
mod service;
mod share;
mod target;
mod wrong;

use std::path::Path;

use p2pnode_daemon::config::{Document, Flags, Sources, load};
use p2pnode_transports::{Congestion, Transport};

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
listen: [/ip4/0.0.0.0/udp/443/quic-v1, /ip6/::/udp/443/quic-v1]
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
    assert_eq!(config.allowed_peers.len(), 2);
    assert_eq!(config.admin_listen, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(config.control_socket, Path::new("/srv/control.sock"));
    assert_eq!(config.log.level.to_string(), "info,p2pnode=debug");
    assert_eq!(config.log.format, logging::Format::Json);
}

#[test]
fn nothing_given_runs_unprivileged_and_many_on_one_host() {
    let config = read("", Purpose::Run).unwrap();
    assert!(matches!(config.key, Key::File(path) if path.ends_with("p2pnode/identity.key")));
    assert!(
        config.listen.is_empty() && config.relays.is_empty() && config.allowed_peers.is_empty()
    );
    assert_eq!(config.dial.port_range.to_string(), "40000-40050");
    assert!(config.dial.quic && config.dial.tcp && config.punch.enabled);
    assert_eq!((config.reservations, config.admin_listen), (2, None));
    assert!(config.discovery.is_off(), "nothing is multicast unasked");
    assert_eq!(
        config.log.level.to_string(),
        "info,libp2p_swarm=warn,yamux=error"
    );
}

#[test]
fn a_dial_beside_a_running_node_takes_nothing_of_its_file_that_only_one_can_have() {
    let config = read("", Purpose::Dial).unwrap();
    assert_eq!(config.key, Key::Throwaway { configured: None });
    let config = read(WHOLE, Purpose::Dial).unwrap();
    assert_eq!(
        config.key,
        Key::Throwaway {
            configured: Some("/srv/identity.key".into())
        }
    );
    assert!(config.listen.is_empty());
    assert_eq!(config.admin_listen, None);
    assert_eq!(config.discovery.mdns, Mdns::Ask);

    let listen = ["/ip4/127.0.0.1/udp/4001/quic-v1".to_owned()];
    let flags = Flags::default().many("listen", "--listen", &listen);
    let sources = sources(
        WHOLE,
        flags.one("identity.key_file", "--key", Some(&"given.key".to_owned())),
    );
    let loaded = load(&PROGRAM, &sources, |reader| {
        Config::read(reader, Purpose::Dial)
    })
    .unwrap();
    assert_eq!(loaded.config.listen.len(), 1);
    assert_eq!(loaded.config.key, Key::File("given.key".into()));
}

#[test]
fn an_address_of_a_relay_over_a_transport_that_is_off_is_skipped() {
    let relays = "relays: [/ip4/192.0.2.1/udp/1/quic-v1/p2p/$A, /ip4/192.0.2.1/tcp/1/p2p/$A]";
    for (transports, dialed) in [("[quic, tcp]", 2), ("[tcp]", 1), ("[quic]", 1)] {
        let file = format!("dial: {{ transports: {transports} }}\n{relays}");
        let config = read(&file, Purpose::Run).unwrap();
        assert_eq!(config.relays.len(), 2);
        let relays = config.dialed_relays();
        assert_eq!(relays.len(), dialed, "{transports}");
        let mut names = relays.iter().map(|relay| Transport::of(&relay.addr));
        assert!(names.all(|of| transports.contains(&of.unwrap().to_string())));
    }
}

#[test]
fn each_contradiction_is_reported_at_the_value_that_causes_it() {
    for line in [
        "listen: [/ip4/0.0.0.0/tcp/443, /ip4/0.0.0.0/udp/40050/quic-v1] => \
         f.yaml:1:32: listen: /ip4/0.0.0.0/udp/40050/quic-v1 is in the dial range 40000-40050, whose ports are for dialing \
         and punching; listen on a port outside it",
        "admin: { listen: 127.0.0.1:40000 } => \
         f.yaml:1:18: admin.listen: 127.0.0.1:40000 is in the dial range 40000-40050, whose ports are for dialing and \
         punching; listen on a port outside it",
        "dial: { transports: [] } => \
         f.yaml:1:21: dial.transports: is an empty list; give quic, tcp or both, or leave the key out",
        "dial: { transports: [tcp] }\nrelays:\n- /ip4/192.0.2.1/tcp/1/p2p/$A\n- /ip4/192.0.2.1/udp/1/quic-v1/p2p/$B => \
         f.yaml:4:3: relays: relay /ip4/192.0.2.1/udp/1/quic-v1/p2p/$B cannot be dialed: dial.transports has no quic; add \
         it, or give an address of another transport",
        "dial: { family: only-ip6 }\nrelays: [/ip4/192.0.2.1/tcp/1/p2p/$A] => \
         f.yaml:2:10: relays: relay /ip4/192.0.2.1/tcp/1/p2p/$A cannot be dialed: dial.family is only-ip6 and the address \
         is ip4; change one of them",
        "dial: { transports: [quic] }\npunch: { advertise: ['/ip4/192.0.2.1/tcp/{port}'] } => \
         f.yaml:2:22: punch.advertise: /ip4/192.0.2.1/tcp/{port} cannot be punched: dial.transports has no tcp; add it, or \
         give an address of another transport",
        "peers: { db: { id: $A, addrs: [/ip4/192.0.2.1/tcp/1/p2p/$B] } } => \
         f.yaml:1:82: peers.db.addrs: /ip4/192.0.2.1/tcp/1/p2p/$B names the peer $B, not $A; drop /p2p/$B or give the right \
         address",
        "discovery: { dns: [a.example:443, b.example:443, A.example.:443] } => \
         f.yaml:1:50: discovery.dns: A.example.:443 is given twice; give it once",
        "discovery: { dns: [a:1, b:1, c:1, d:1, e:1, f:1, g:1, h:1, i:1] } => \
         f.yaml:1:19: discovery.dns: has 9 names, and each dial resolves all of them; put the peers behind at most 8 \
         names",
        "discovery: { mdns: true }\ndial: { port_range: 40000 } => \
         f.yaml:1:20: discovery.mdns: is true and needs a second port, and dial.port_range 40000-40000 has one; widen the \
         range, or set false",
        "peers: { my.db: { id: $A } } => \
         f.yaml:1:10: peers: \"my.db\" is not a name for a peer; use 1 to 63 letters, digits, hyphens and underscores",
        "peers: { $A: { id: $A } } => f.yaml:1:10: peers: $A is a peer id, not a name; write `NAME: { id: $A }`",
        "relays: [/ip4/192.0.2.1/tcp/1] => \
         f.yaml:1:10: relays: relay \"/ip4/192.0.2.1/tcp/1\" names no peer id; append /p2p/<id>, as `relay-node id` prints it",
        "dial: { port_range: 80-79 } => \
         f.yaml:1:21: dial.port_range: invalid port range `80-79`: the last port is below the first; give a port or \
         first-last, as in 40000-40050",
        "dial: { family: ip4 } => \
         f.yaml:1:17: dial.family: unknown family policy `ip4`; give auto, prefer-ip4, prefer-ip6, only-ip4 or only-ip6",
        "dial: { congestion: reno } => f.yaml:1:21: dial.congestion: unknown congestion control `reno`; give cubic or bbr",
        "peers:\n  West: { id: $A }\n  west: { id: $B } => f.yaml:3:15: peers.west.id: West and west differ in case only; rename one of them",
        "control: { socket: /x/c.sock }\npeers: { w: { id: $A } }\nforwards: [{ listen: 'unix:///x//c.sock', to: a@w }] => \
         f.yaml:1:20: control.socket: a forward listens on unix:///x//c.sock as well; choose another address for one",
        "admin: { listen: 127.0.0.1:7 }\npeers: { w: { id: $A } }\nforwards: [{ listen: 'tcp://0.0.0.0:7', to: a@w }] => \
         f.yaml:1:18: admin.listen: a forward listens on tcp://0.0.0.0:7 as well; choose another address for one",
        "admin: { listen: 127.0.0.1:7 }\nsocks: { listen: 127.0.0.1:7 } => \
         f.yaml:1:18: admin.listen: socks.listen is tcp://127.0.0.1:7 as well; choose another address for one",
        "listen: [/ip4/127.0.0.1/udp/7/quic-v1]\npeers: { w: { id: $A } }\nforwards: [{ listen: 'udp://127.0.0.1:7', to: a@w }] => \
         f.yaml:1:10: listen: a forward listens on udp://127.0.0.1:7 as well; choose another address for one",
        "peers: { any: { id: $A } } => f.yaml:1:10: peers: any is no name for a peer: `allow: any` admits every peer; choose another name",
    ] {
        let (file, fault) = line.split_once(" => ").unwrap();
        let fault = fault.replace("$A", A).replace("$B", B);
        assert_eq!(read(file, Purpose::Run).unwrap_err(), fault, "{file}");
    }
    // A relay that has another address, which can be dialed, is none.
    let file = "dial: { transports: [tcp] }\nrelays: [/ip4/192.0.2.1/tcp/1/p2p/$A, /ip4/192.0.2.1/udp/1/quic-v1/p2p/$A]";
    assert_eq!(read(file, Purpose::Run).unwrap().relays.len(), 2);
}
