//! Ends, resets and refusals: what the other side, and the operator, see of them.

use std::time::Duration;

use p2pnode_services::wire::ResetReason;
use tokio::time::timeout;

use super::*;
use crate::services::{Hub, lines::Sink};

/// Longer than anything here takes, and shorter than sessions linger.
const SOON: Duration = Duration::from_secs(30);

/// Two nodes over `transport`, the second of which knows the first as `a`. Also the configuration of both.
async fn over(transport: &str, first_port: u16) -> (Node, Node, libp2p::PeerId, [String; 2]) {
    let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let a_id = a.public().to_peer_id();
    let dial = |first: u16| {
        let last = first + 9;
        format!("dial: {{ port_range: {first}-{last}, transports: [{transport}] }}\n")
    };
    let a_config = dial(first_port);
    let a = Node::start(&a, &Config::from_yaml(&a_config).unwrap()).unwrap();
    let status = a.handle().status().await.unwrap();
    let port = status.punch_ports.values().next().copied().unwrap();
    let at = match transport {
        "quic" => format!("/ip4/127.0.0.1/udp/{port}/quic-v1"),
        _ => format!("/ip4/127.0.0.1/tcp/{port}"),
    };
    let peers = format!("peers: {{ a: {{ id: {a_id}, addrs: [{at}] }} }}\n");
    let b_config = dial(first_port + 10) + &peers;
    let b = Node::start(&b, &Config::from_yaml(&b_config).unwrap()).unwrap();
    (a, b, a_id, [a_config, b_config])
}

fn offer(hub: &Hub, name: &str, target: &str, allow: &str) -> Offering {
    offer_to(hub, name, target, allow, None)
}

fn offer_to(hub: &Hub, name: &str, target: &str, allow: &str, sink: Option<Sink>) -> Offering {
    let raw = RawService {
        target: target.parse().unwrap(),
        allow: vec![allow.to_owned()],
        identity: Identity::None,
        protocol: (!target.starts_with("udp")).then(|| format!("/x/{name}").parse().unwrap()),
        source: Source::Any,
        udp_idle: None,
    };
    let service = config::service(name.parse().unwrap(), raw, &Known::default()).unwrap();
    hub.offer(service, Goal::Target, sink).unwrap()
}

async fn bring(hub: &Hub, to: &str) -> (Forwarding, std::net::SocketAddr) {
    bring_there(hub, forward("tcp://127.0.0.1:0", to)).await
}

async fn bring_there(hub: &Hub, there: config::Forward) -> (Forwarding, std::net::SocketAddr) {
    let (sink, mut lines) = reports();
    let forwarding = hub.forward(there, false, Some(sink)).unwrap();
    let Report::Listening { listen, .. } = lines.recv().await.unwrap().report else {
        panic!("it listens first");
    };
    let at = listen.strip_prefix("tcp://").unwrap().parse().unwrap();
    (forwarding, at)
}

/// Why the next session ended.
async fn reason_of(lines: &mut tokio::sync::mpsc::Receiver<crate::services::Line>) -> String {
    loop {
        let line = timeout(SOON, lines.recv()).await.unwrap().unwrap();
        let Report::Session(session) = line.report else {
            continue;
        };
        if let Some(reason) = session.reason {
            return reason;
        }
    }
}

/// A client and its target, connected.
async fn connected(at: std::net::SocketAddr, target: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(at).await.unwrap();
    client.write_all(b"?").await.unwrap();
    let (mut served, _) = target.accept().await.unwrap();
    served.read_exact(&mut [0; 1]).await.unwrap();
    (client, served)
}

async fn a_raw_stream_is_reset(transport: &str, first_port: u16) {
    let (a, b, a_id, _) = over(transport, first_port).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp://{}", target.local_addr().unwrap());
    let _offering = offer(a.handle().hub(), "it", &at, "any");
    let (_forwarding, at) = bring(b.handle().hub(), &format!("/x/it@{a_id}")).await;
    for client_resets in [true, false] {
        let (client, served) = connected(at, &target).await;
        let (mut resets, reads) = match client_resets {
            true => (client, served),
            false => (served, client),
        };
        resets.write_all(&[7; 20_000]).await.unwrap();
        resets.set_zero_linger().unwrap();
        drop(resets);
        let got = timeout(SOON, read_to_reset(reads)).await.unwrap();
        assert_eq!(got.len(), 20_000);
    }
    // An end is still an end.
    let (mut client, mut served) = connected(at, &target).await;
    client.shutdown().await.unwrap();
    assert_eq!(served.read(&mut [0; 8]).await.unwrap(), 0);
    served.write_all(b"bye").await.unwrap();
    drop(served);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "bye");
    // The serving node counts it under no name that a peer chooses.
    let (client, served) = connected(at, &target).await;
    let sessions = a.handle().hub().open_sessions(None);
    assert!(sessions.iter().any(|session| session.service == "/x/it"));
    // Either node stops.
    b.stop().await.unwrap();
    timeout(SOON, read_to_reset(served)).await.unwrap();
    timeout(SOON, read_to_reset(client)).await.unwrap();
    a.stop().await.unwrap();
}

#[tokio::test]
async fn a_raw_stream_over_quic_is_reset_both_ways() {
    a_raw_stream_is_reset("quic", 45_860).await;
}

#[tokio::test]
async fn a_raw_stream_over_tcp_is_reset_both_ways() {
    a_raw_stream_is_reset("tcp", 45_880).await;
}

#[tokio::test]
async fn the_node_of_the_service_stops_and_the_client_sees_a_reset() {
    for (transport, first_port) in [("quic", 45_900), ("tcp", 45_920)] {
        let (a, b, a_id, _) = over(transport, first_port).await;
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("tcp://{}", target.local_addr().unwrap());
        let _offering = offer(a.handle().hub(), "it", &at, "any");
        let mut sessions = Vec::new();
        for to in [format!("/x/it@{a_id}"), format!("it@{a_id}")] {
            let (forwarding, at) = bring(b.handle().hub(), &to).await;
            sessions.push((forwarding, connected(at, &target).await));
        }
        a.stop().await.unwrap();
        for (_forwarding, (client, served)) in sessions {
            timeout(SOON, read_to_reset(client)).await.unwrap();
            timeout(SOON, read_to_reset(served)).await.unwrap();
        }
        b.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_forward_that_leads_elsewhere_keeps_its_listener_and_the_sessions_that_it_still_has() {
    let (a, b, _, [_, b_config]) = over("quic", 45_940).await;
    let mut targets = Vec::new();
    let mut offerings = Vec::new();
    for name in ["one", "two"] {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("tcp://{}", target.local_addr().unwrap());
        offerings.push(offer(a.handle().hub(), name, &at, "any"));
        targets.push(target);
    }
    let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = format!("udp://{}", datagrams.local_addr().unwrap());
    offerings.push(offer(a.handle().hub(), "dns", &at, "any"));
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s").display().to_string();
    let port = 45_858;
    let configure = |tcp: &str, udp: &str| {
        let forwards = format!(
            "forwards:\n- {{ listen: 'tcp://127.0.0.1:{port}', to: {tcp} }}\n- {{ listen: 'unix://{path}', to: {tcp} }}\n- {{ listen: 'udp://127.0.0.1:{port}', to: {udp} }}\n"
        );
        let config = Config::from_yaml(&(b_config.clone() + &forwards)).unwrap();
        let failed = b.handle().set_services(&config);
        assert!(failed.is_empty(), "{failed:?}");
    };
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    configure("one@a", "no@a");
    let (mut first, mut served) = connected(at, &targets[0]).await;
    configure("[two@a, one@a]", "[no@a, dns@a]");
    // It goes on, and the next one goes to the other service.
    served.write_all(b"!").await.unwrap();
    first.read_exact(&mut [0; 1]).await.unwrap();
    drop(connected(at, &targets[1]).await);
    let mut local = UnixStream::connect(&path).await.unwrap();
    local.write_all(b"?").await.unwrap();
    targets[1].accept().await.unwrap();
    // The first destination refuses, and what waited goes to the next one.
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"first", at).await.unwrap();
    let mut bytes = [0; 8];
    let (length, _) = datagrams.recv_from(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..length], b"first");
    configure("two@a", "dns@a");
    timeout(SOON, read_to_reset(first)).await.unwrap();
    // The socket of a forward that is gone is free at once.
    let none = Config::from_yaml(&b_config).unwrap();
    assert!(b.handle().set_services(&none).is_empty());
    drop(std::net::TcpListener::bind(at).unwrap());
    drop(std::net::UdpSocket::bind(at).unwrap());
    assert!(!home.path().join("s").exists());
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_is_refused_is_named_to_the_command_that_serves() {
    let (a, b, a_id, b_id) = pair(45_960).await;
    let raw = RawService {
        target: "tcp://127.0.0.1:9".parse().unwrap(),
        allow: vec![a_id.to_string()],
        identity: Identity::None,
        protocol: None,
        source: Source::Any,
        udp_idle: None,
    };
    let service = config::service("it".parse().unwrap(), raw, &Known::default()).unwrap();
    let (sink, mut lines) = reports();
    let hub = a.handle().hub().clone();
    let _offering = hub.offer(service, Goal::Target, Some(sink)).unwrap();
    let (_forwarding, at) = bring(b.handle().hub(), &format!("it@{a_id}")).await;
    for _ in 0..3 {
        let client = TcpStream::connect(at).await.unwrap();
        timeout(SOON, read_to_reset(client)).await.unwrap();
    }
    let Report::Session(report) = lines.recv().await.unwrap().report else {
        panic!("a session was refused");
    };
    assert_eq!((report.state, report.peer), (State::Refused, b_id));
    assert_eq!(
        (report.role.as_str(), report.service.as_str()),
        ("service", "it")
    );
    assert!(report.reason.unwrap().contains("`allow`"));
    // It is named once.
    assert!(lines.try_recv().is_err());
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

#[tokio::test]
async fn sessions_of_a_peer_that_may_connect_no_longer_are_reset_before_its_connection_closes() {
    let (a, b, a_id, [a_config, _]) = over("quic", 45_980).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp://{}", target.local_addr().unwrap());
    let _offering = offer(a.handle().hub(), "it", &at, "any");
    let (_forwarding, at) = bring(b.handle().hub(), &format!("it@{a_id}")).await;
    let (client, _served) = connected(at, &target).await;
    let other = libp2p::PeerId::random();
    let closed = format!("{a_config}access: {{ allow: [{other}] }}\n");
    let closed = Config::from_yaml(&closed).unwrap();
    a.handle().reload(closed).await.unwrap();
    timeout(SOON, read_to_reset(client)).await.unwrap();
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

/// The first service never answers, since its target drops every SYN: its queue of connections is full.
#[tokio::test]
async fn a_client_of_a_silent_service_gets_the_next_one_with_all_that_it_has_sent() {
    let (a, b, a_id, _) = pair(45_800).await;
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(0).unwrap();
    let at = full.local_addr().unwrap();
    let _first = TcpStream::connect(at).await.unwrap();
    let hub = a.handle().hub().clone();
    let (serves, mut served_lines) = reports();
    let at = format!("tcp://{at}");
    let _silent = offer_to(&hub, "silent", &at, "any", Some(serves));
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = format!("tcp://{}", target.local_addr().unwrap());
    let _good = offer(&hub, "good", &good, "any");
    let raw = RawForward {
        listen: "tcp://127.0.0.1:0".parse().unwrap(),
        to: ["silent", "good"]
            .map(|name| format!("{name}@{a_id}").parse().unwrap())
            .to_vec(),
    };
    let there = config::forward(raw, &Known::default()).unwrap();
    let (brings, mut brought) = reports();
    let _forwarding = b
        .handle()
        .hub()
        .forward(there, false, Some(brings))
        .unwrap();
    let Report::Listening { listen, .. } = brought.recv().await.unwrap().report else {
        panic!("it listens first");
    };
    let listen = listen.strip_prefix("tcp://").unwrap();
    let mut client = TcpStream::connect(listen).await.unwrap();
    let sent: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();
    let (mut served, _) = timeout(SOON, target.accept()).await.unwrap().unwrap();
    let mut got = Vec::new();
    served.read_to_end(&mut got).await.unwrap();
    assert!(got == sent);
    for (lines, says) in [
        (
            &mut served_lines,
            "the caller waited no longer for the target",
        ),
        (
            &mut brought,
            "the peer, or its target, did not answer in time",
        ),
    ] {
        assert_eq!(reason_of(lines).await, says);
    }
    // The silent one is informed in the background.
    while hub.sessions() > 1 {
        tokio::task::yield_now().await;
    }
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_of_another_protocol_gets_an_answer_of_its_own_from_the_socks_server() {
    let (a, b, _, [a_config, _]) = over("quic", 45_820).await;
    let at = "127.0.0.1:45857";
    let config = format!("{a_config}socks: {{ listen: '{at}' }}\n");
    let failed = a
        .handle()
        .set_services(&Config::from_yaml(&config).unwrap());
    assert!(failed.is_empty(), "{failed:?}");
    // The connection ends cleanly, though there is more than the server has read.
    let host = b"it.no.p2p";
    let named = [
        &[5, 1, 0, 5, 1, 0, 3, host.len() as u8],
        &host[..],
        &[0, 80],
    ]
    .concat();
    let own = format!(
        "it.{}.p2p",
        p2pnode_protocol::addr::base36(&a.handle().peer_id())
    );
    let own = [
        &[5, 1, 0, 5, 1, 0, 3, own.len() as u8],
        own.as_bytes(),
        &[0, 80],
    ]
    .concat();
    let unreachable = [5, 0, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0];
    for (asks, begins) in [
        (
            &b"\x04\x01\0\x50\0\0\0\x01user\0west.p2p\0"[..],
            &[0, 91][..],
        ),
        (b"GET http://west.p2p/ HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
        (b"\x16\x03\x01\x02\0", b""),
        (&[5, 1, 2], &[5, 0xff]),
        (&named, &unreachable),
        (&own, &unreachable),
    ] {
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(asks).await.unwrap();
        let mut answer = vec![0; begins.len()];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, begins, "{asks:?}");
        client.shutdown().await.unwrap();
        client.read_to_end(&mut answer).await.unwrap();
    }
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

/// A reload takes the service from its caller, changes what it leads to, and removes it: raw streams end as sessions do.
async fn a_reload_ends_raw_streams(transport: &str, first_port: u16) {
    let (a, b, a_id, _) = over(transport, first_port).await;
    let (b_id, other) = (b.handle().peer_id(), libp2p::PeerId::random());
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp://{}", target.local_addr().unwrap());
    let service = |allow: &str, rest: &str| {
        format!("services: {{ it: {{ target: \"{at}\", allow: {allow}, {rest} }} }}")
    };
    let configure = |text: &str| {
        let config = Config::from_yaml(&format!("{}\n{text}", range(first_port))).unwrap();
        a.handle()
            .hub()
            .configure(&config.services, Default::default(), Default::default())
            .unwrap();
    };
    let named = |peer: libp2p::PeerId| format!("[{peer}]");
    let raw = "protocol: /x/it";
    let before = service(&named(b_id), raw);
    for (after, reason) in [
        (service(&named(other), raw), ResetReason::NotAllowed),
        (
            service(&named(b_id), "protocol: /x/other"),
            ResetReason::ServiceGone,
        ),
        (
            service(&named(b_id), "protocol: /x/it, identity: proxy-v2"),
            ResetReason::ServiceGone,
        ),
        (String::new(), ResetReason::ServiceGone),
    ] {
        configure(&before);
        let (_forwarding, listen) = bring(b.handle().hub(), &format!("/x/it@{a_id}")).await;
        let (client, served) = connected(listen, &target).await;
        let hub = a.handle().hub().clone();
        let raw = hub.state().running.values().next().cloned().unwrap();
        configure(&after);
        assert_eq!(raw.left_reset(), Some(reason));
        timeout(SOON, read_to_reset(served)).await.unwrap();
        timeout(SOON, read_to_reset(client)).await.unwrap();
    }
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

#[tokio::test]
async fn a_reload_ends_raw_streams_over_quic() {
    a_reload_ends_raw_streams("quic", 46_060).await;
}

#[tokio::test]
async fn a_reload_ends_raw_streams_over_tcp() {
    a_reload_ends_raw_streams("tcp", 46_080).await;
}

#[tokio::test]
async fn a_target_that_refuses_is_the_reason_at_both_nodes() {
    let (a, b, a_id, _) = over("quic", 46_100).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp://{}", closed.local_addr().unwrap());
    drop(closed);
    let (serves, mut served) = reports();
    let _offering = offer_to(a.handle().hub(), "it", &at, "any", Some(serves));
    let (brings, mut brought) = reports();
    let there = forward("tcp://127.0.0.1:0", &format!("it@{a_id}"));
    let _forwarding = b
        .handle()
        .hub()
        .forward(there, false, Some(brings))
        .unwrap();
    let Report::Listening { listen, .. } = brought.recv().await.unwrap().report else {
        panic!("it listens first");
    };
    let client = TcpStream::connect(listen.strip_prefix("tcp://").unwrap())
        .await
        .unwrap();
    timeout(SOON, read_to_reset(client)).await.unwrap();
    for (lines, says) in [
        (&mut served, "the target refused the connection"),
        (&mut brought, "the peer's target refused the connection"),
    ] {
        let reason = reason_of(lines).await;
        assert!(reason.starts_with(says), "{reason}");
    }
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}
