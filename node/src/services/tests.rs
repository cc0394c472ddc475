#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use libp2p::identity::Keypair;
use p2pnode_services::{
    config::{self, Identity, Peers, RawForward, RawService, Source},
    identity::proxy::{TYPE_PEER, TYPE_SERVICE},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
};

use super::{Goal, Report, State, reports};
use crate::{Config, Node};

/// Two nodes on loopback, the second of which knows where the first is.
async fn pair(first_port: u16) -> (Node, Node, libp2p::PeerId, libp2p::PeerId) {
    let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (a_id, b_id) = (a.public().to_peer_id(), b.public().to_peer_id());
    let range = |first: u16| format!("dial: {{ port_range: {first}-{} }}", first + 9);
    let a = Node::start(&a, &Config::from_yaml(&range(first_port)).unwrap()).unwrap();
    let status = a.handle().status().await.unwrap();
    let port = status.punch_ports.values().next().copied().unwrap();
    let b_config = format!(
        "{}\npeers: {{ a: {{ id: {a_id}, addrs: [/ip4/127.0.0.1/udp/{port}/quic-v1] }} }}",
        range(first_port + 10)
    );
    let b = Node::start(&b, &Config::from_yaml(&b_config).unwrap()).unwrap();
    (a, b, a_id, b_id)
}

fn forward(listen: &str, to: &str) -> config::Forward {
    let raw = RawForward {
        listen: listen.parse().unwrap(),
        to: vec![to.parse().unwrap()],
    };
    config::forward(raw, &Peers::new()).unwrap()
}

#[tokio::test]
async fn a_target_reads_who_calls_before_the_first_byte_and_the_client_sees_a_half_close() {
    let (a, b, a_id, b_id) = pair(45_360).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let raw = RawService {
        target: format!("tcp://{}", target.local_addr().unwrap())
            .parse()
            .unwrap(),
        allow: vec![b_id.to_string()],
        identity: Identity::ProxyV2,
        protocol: None,
        source: Source::Any,
        udp_idle: None,
    };
    let service = config::service("who".parse().unwrap(), raw, &Peers::new(), &[]).unwrap();
    let _offering = a.handle().hub().offer(service, Goal::Target, None).unwrap();
    let (sink, mut lines) = reports();
    let there = forward("tcp://127.0.0.1:0", &format!("who@{a_id}"));
    let _forwarding = b.handle().hub().forward(there, false, Some(sink)).unwrap();
    let Report::Listening { listen, .. } = lines.recv().await.unwrap().report else {
        panic!("it listens first");
    };
    let mut client = TcpStream::connect(listen.strip_prefix("tcp://").unwrap())
        .await
        .unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut served, _) = target.accept().await.unwrap();
    let mut bytes = Vec::new();
    served.read_to_end(&mut bytes).await.unwrap();
    assert!(
        bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11"),
        "{bytes:?}"
    );
    assert_eq!(
        bytes[24..26],
        client.local_addr().unwrap().port().to_be_bytes()
    );
    let peer = [&[TYPE_PEER, 0, 52], b_id.to_string().as_bytes()].concat();
    let name = [&[TYPE_SERVICE, 0, 3], &b"whohello"[..]].concat();
    assert!(bytes.ends_with(&[peer, name].concat()), "{bytes:?}");
    // The other direction is still open.
    served.write_all(b"bye").await.unwrap();
    drop(served);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "bye");
    let mut states = Vec::new();
    while states.last() != Some(&State::Closed) {
        if let Report::Session(session) = lines.recv().await.unwrap().report {
            assert_eq!(session.reason, None);
            states.push(session.state);
        }
    }
    assert_eq!(states, [State::Opened, State::Closed]);
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

#[tokio::test]
async fn a_unix_forward_replaces_a_dead_socket_keeps_other_files_and_goes_with_its_command() {
    let (a, b, a_id, _) = pair(45_380).await;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s");
    let there = || forward(&format!("unix://{}", path.display()), &format!("no@{a_id}"));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let hub = b.handle().hub().clone();
    let forwarding = hub.forward(there(), false, None).unwrap();
    let taken = hub.forward(there(), false, None).unwrap_err().to_string();
    assert!(taken.contains("stop the other process"), "{taken}");
    // The service is not there, so the client is refused.
    let mut client = UnixStream::connect(&path).await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    drop(forwarding);
    while path.exists() {
        tokio::task::yield_now().await;
    }
    std::fs::write(&path, "a file").unwrap();
    let other = hub.forward(there(), false, None).unwrap_err().to_string();
    assert!(other.contains("a file that is no socket"), "{other}");
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}
