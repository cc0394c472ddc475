#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod ends;
mod full;
mod hostile;

use libp2p::identity::Keypair;
use p2pnode_services::{
    config::{self, Identity, Known, RawForward, RawService, Source},
    identity::proxy::{TYPE_PEER, TYPE_SERVICE},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket, UnixStream},
};

use super::{Goal, Report, State, forward::Forwarding, offering::Offering, reports};
use crate::{Config, Node};

/// Two nodes on loopback, the second of which knows where the first is.
async fn pair(first_port: u16) -> (Node, Node, libp2p::PeerId, libp2p::PeerId) {
    let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (a_id, b_id) = (a.public().to_peer_id(), b.public().to_peer_id());
    let a = Node::start(&a, &Config::from_yaml(&range(first_port)).unwrap()).unwrap();
    let b = Node::start(&b, &b_config(&a, a_id, first_port + 10).await).unwrap();
    (a, b, a_id, b_id)
}

fn range(first: u16) -> String {
    format!("dial: {{ port_range: {first}-{} }}", first + 9)
}

/// A node that knows where `a` is.
async fn b_config(a: &Node, a_id: libp2p::PeerId, first_port: u16) -> Config {
    let status = a.handle().status().await.unwrap();
    let port = status.punch_ports.values().next().copied().unwrap();
    let config = format!(
        "{}\npeers: {{ a: {{ id: {a_id}, addrs: [/ip4/127.0.0.1/udp/{port}/quic-v1] }} }}",
        range(first_port)
    );
    Config::from_yaml(&config).unwrap()
}

fn forward(listen: &str, to: &str) -> config::Forward {
    let raw = RawForward {
        listen: listen.parse().unwrap(),
        to: vec![to.parse().unwrap()],
    };
    config::forward(raw, &Known::default()).unwrap()
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
    let service = config::service("who".parse().unwrap(), raw, &Known::default()).unwrap();
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

/// The service `it` of the first node at `target`, and where the second node brings it.
async fn served(
    (a, b, a_id): (&Node, &Node, libp2p::PeerId),
    target: &str,
    source: Source,
) -> (Offering, Forwarding, std::net::SocketAddr) {
    let raw = RawService {
        target: target.parse().unwrap(),
        allow: vec!["any".to_owned()],
        identity: Identity::None,
        protocol: None,
        source,
        udp_idle: None,
    };
    let service = config::service("it".parse().unwrap(), raw, &Known::default()).unwrap();
    let offering = a.handle().hub().offer(service, Goal::Target, None).unwrap();
    let (scheme, _) = target.split_once(':').unwrap();
    let (sink, mut lines) = reports();
    let there = forward(&format!("{scheme}://127.0.0.1:0"), &format!("it@{a_id}"));
    let forwarding = b.handle().hub().forward(there, false, Some(sink)).unwrap();
    let Report::Listening { listen, .. } = lines.recv().await.unwrap().report else {
        panic!("it listens first");
    };
    let at = listen.split_once("://").unwrap().1.parse().unwrap();
    (offering, forwarding, at)
}

/// Reads until the end, which has to be a reset.
async fn read_to_reset(mut socket: TcpStream) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match socket.read(&mut piece).await {
            Ok(0) => panic!("a clean end after {} bytes", all.len()),
            Ok(read) => all.extend_from_slice(&piece[..read]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                return all;
            }
        }
    }
}

/// What one side has sent before it resets its socket reaches the other side, as on a connection without nodes in between.
#[tokio::test]
async fn what_was_sent_before_a_reset_arrives_before_the_reset() {
    let (a, b, a_id, _) = pair(45_560).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp://{}", target.local_addr().unwrap());
    let (_offering, _forwarding, listen) = served((&a, &b, a_id), &at, Source::Any).await;
    // As much as the kernel of the node takes at once.
    let sent: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
    for round in 0..20 {
        let mut client = TcpStream::connect(listen).await.unwrap();
        client.write_all(b"?").await.unwrap();
        let (mut served, _) = target.accept().await.unwrap();
        served.read_exact(&mut [0; 1]).await.unwrap();
        let (mut resets, reads) = match round % 2 {
            0 => (served, client),
            _ => (client, served),
        };
        resets.write_all(&sent).await.unwrap();
        if round % 4 < 2 {
            resets.set_zero_linger().unwrap();
            drop(resets);
            assert!(read_to_reset(reads).await == sent, "round {round}");
            continue;
        }
        // A node that writes learns of the reset before it has read what came.
        let (mut from, mut to) = reads.into_split();
        let writes = tokio::spawn(async move {
            while to.write_all(&[7; 100]).await.is_ok() {
                tokio::task::yield_now().await;
            }
            to
        });
        resets.set_zero_linger().unwrap();
        drop(resets);
        let mut got = vec![0; sent.len()];
        from.read_exact(&mut got).await.unwrap();
        assert!(got == sent, "round {round}");
        drop(writes.await.unwrap());
    }
    // A target that has reset the connection before the node looks whether it is connected.
    let client = TcpStream::connect(listen).await.unwrap();
    let (mut served, _) = target.accept().await.unwrap();
    served.write_all(&sent).await.unwrap();
    served.set_zero_linger().unwrap();
    drop(served);
    assert!(read_to_reset(client).await == sent);
    // A client that is gone before its session is open.
    let mut client = TcpStream::connect(listen).await.unwrap();
    client.write_all(&sent).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    let (served, _) = target.accept().await.unwrap();
    assert!(read_to_reset(served).await == sent);
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

#[tokio::test]
async fn a_target_that_asks_for_the_range_is_dialed_from_its_ports() {
    let (a, b, a_id, _) = pair(45_580).await;
    let range = 45_580..=45_589;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp://{}", target.local_addr().unwrap());
    let (offering, _forwarding, listen) = served((&a, &b, a_id), &at, Source::Range).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(listen).await.unwrap();
        client.write_all(b"?").await.unwrap();
        let (mut served, from) = target.accept().await.unwrap();
        served.read_exact(&mut [0; 1]).await.unwrap();
        assert!(range.contains(&from.port()), "{from}");
        clients.push((client, served));
    }
    for (mut client, mut served) in clients {
        served.write_all(b"!").await.unwrap();
        drop(served);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "!");
    }
    drop(offering);
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = format!("udp://{}", target.local_addr().unwrap());
    let (_offering, _udp, listen) = served((&a, &b, a_id), &at, Source::Range).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"?", listen).await.unwrap();
    let mut bytes = [0; 8];
    let (_, from) = target.recv_from(&mut bytes).await.unwrap();
    assert!(range.contains(&from.port()), "{from}");
    target.send_to(b"!", from).await.unwrap();
    let (length, from) = client.recv_from(&mut bytes).await.unwrap();
    assert_eq!((&bytes[..length], from), (&b"!"[..], listen));
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

#[tokio::test]
async fn a_unix_forward_whose_socket_somebody_removes_listens_again_and_leaves_anothers_alone() {
    let (a, b, a_id, _) = pair(45_400).await;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/s");
    let directory = path.parent().unwrap();
    std::fs::create_dir(directory).unwrap();
    let listen = format!("unix://{}", path.display());
    let there = forward(&listen, &format!("no@{a_id}"));
    let forwarding = b.handle().hub().forward(there, false, None).unwrap();
    for with_directory in [false, true] {
        if with_directory {
            std::fs::remove_dir_all(directory).unwrap();
            std::fs::create_dir(directory).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let mut client = loop {
            match UnixStream::connect(&path).await {
                Ok(client) => break client,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        // The service is not there, so the client is refused.
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    }
    std::fs::remove_file(&path).unwrap();
    let other = tokio::net::UnixListener::bind(&path).unwrap();
    // The node looks whether it may have the path.
    other.accept().await.unwrap();
    drop(forwarding);
    let client = UnixStream::connect(&path);
    let (client, accepted) = tokio::join!(client, other.accept());
    client.unwrap();
    accepted.unwrap();
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}
