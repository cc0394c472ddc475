//! TCP and QUIC dialed from both ends at once, on loopback.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{AS_LISTENER, Node, ORDINARY, config, node, speak};
use futures::{AsyncWriteExt, future::poll_fn};
use libp2p::{Multiaddr, core::muxing::StreamMuxerExt, multiaddr::Protocol};
use p2pnode_transports::{Family, Handle, Remote, Transport, find_exhausted};

fn punch_addr(node: &Node, handle: &Handle, transport: Transport) -> Multiaddr {
    let port = handle.punch_ports()[&(transport, Family::Ip4)];
    let addr = match transport {
        Transport::Quic => format!("/ip4/127.0.0.1/udp/{port}/quic-v1"),
        Transport::Tcp => format!("/ip4/127.0.0.1/tcp/{port}"),
    };
    addr.parse::<Multiaddr>()
        .unwrap()
        .with(Protocol::P2p(node.peer))
}

#[tokio::test]
async fn a_tcp_punch_from_both_ends_is_one_connection_with_both_roles() {
    let (a, handle_a) = node(config("21000-21009"));
    let (b, handle_b) = node(config("21010-21019"));
    let (addr_a, addr_b) = (
        punch_addr(&a, &handle_a, Transport::Tcp),
        punch_addr(&b, &handle_b, Transport::Tcp),
    );
    for round in 0..20 {
        // Who does not wait for the other's consent has to come to the same.
        let remote = match round % 4 {
            0 | 1 => Remote::Unknown,
            _ => Remote::TakesTls,
        };
        let _guards = (
            handle_a.expect_punch(std::slice::from_ref(&addr_b), remote),
            handle_b.expect_punch(std::slice::from_ref(&addr_a), remote),
        );
        // Who is first differs, and so does whose listener has the connection.
        let (from_a, from_b) = if round % 2 == 0 {
            tokio::join!(a.dial(&addr_b, ORDINARY), b.dial(&addr_a, AS_LISTENER))
        } else {
            let (from_b, from_a) =
                tokio::join!(b.dial(&addr_a, AS_LISTENER), a.dial(&addr_b, ORDINARY));
            (from_a, from_b)
        };
        let ((peer_b, mut from_a), (peer_a, mut from_b)) = (from_a.unwrap(), from_b.unwrap());
        assert_eq!((peer_a, peer_b), (a.peer, b.peer));
        let (sockets_a, sockets_b) = (
            handle_a.sockets(&addr_b).unwrap(),
            handle_b.sockets(&addr_a).unwrap(),
        );
        assert_eq!(
            (sockets_a.local, sockets_a.remote),
            (sockets_b.remote, sockets_b.local)
        );
        speak(&mut from_a, &mut from_b).await;
        speak(&mut from_b, &mut from_a).await;
    }
}

#[tokio::test]
async fn two_sides_that_both_take_the_dialers_role_notice_it() {
    let (a, handle_a) = node(config("21200-21209"));
    let (b, handle_b) = node(config("21210-21219"));
    let (addr_a, addr_b) = (
        punch_addr(&a, &handle_a, Transport::Tcp),
        punch_addr(&b, &handle_b, Transport::Tcp),
    );
    for remote in [Remote::Unknown, Remote::TakesTls] {
        let _guards = (
            handle_a.expect_punch(std::slice::from_ref(&addr_b), remote),
            handle_b.expect_punch(std::slice::from_ref(&addr_a), remote),
        );
        let both = tokio::join!(a.dial(&addr_b, ORDINARY), b.dial(&addr_a, ORDINARY));
        // One of them may try again while the other has given up and listens, and get through.
        let errors: Vec<_> = [both.0, both.1]
            .into_iter()
            .filter_map(Result::err)
            .collect();
        assert!(!errors.is_empty());
        for error in errors {
            assert!(p2pnode_transports::both_dialed(&error), "{error}");
        }
    }
}

#[tokio::test]
async fn a_remote_that_connects_and_takes_the_dialers_role_as_well_ends_the_punch() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    // As go-libp2p before 0.48, where the NAT lets it in before this side has connected.
    let (a, handle_a) = node(config("21250-21259"));
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let remote: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let remote = remote.with(Protocol::P2p(libp2p::PeerId::random()));
    let _guard = handle_a.expect_punch(std::slice::from_ref(&remote), Remote::Unknown);
    let at = handle_a.punch_ports()[&(Transport::Tcp, Family::Ip4)];
    let mut stream = socket.connect(([127, 0, 0, 1], at).into()).await.unwrap();
    let offer = b"\x13/multistream/1.0.0\n\x07/noise\n";
    stream.write_all(offer).await.unwrap();
    let reads = async { stream.read_to_end(&mut Vec::new()).await };
    let (dialed, _ended) = tokio::join!(a.dial(&remote, ORDINARY), reads);
    let error = dialed.err().unwrap();
    assert!(p2pnode_transports::both_dialed(&error), "{error}");
}

#[tokio::test]
async fn a_connection_that_comes_before_the_dial_is_kept_for_it() {
    let (mut a, handle_a) = node(config("21020-21029"));
    let (b, handle_b) = node(config("21030-21039"));
    let (addr_a, addr_b) = (
        punch_addr(&a, &handle_a, Transport::Tcp),
        punch_addr(&b, &handle_b, Transport::Tcp),
    );
    let guard = handle_a.expect_punch(std::slice::from_ref(&addr_b), Remote::Unknown);
    let dialing = b.dial(&addr_a, AS_LISTENER);
    tokio::pin!(dialing);
    // B is connected, and waits for A to speak: A is to be the dialer.
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut dialing).await;
    assert!(early.is_err());
    let (from_a, from_b) = tokio::join!(a.dial(&addr_b, ORDINARY), dialing);
    let ((_, mut from_a), (_, mut from_b)) = (from_a.unwrap(), from_b.unwrap());
    speak(&mut from_a, &mut from_b).await;
    drop(guard);
    assert!(a.accepted.try_recv().is_err());
}

#[tokio::test]
async fn a_remote_that_accepts_and_knows_of_no_punch_is_spoken_to() {
    // As plain libp2p on a public address: our SYN is there before it dials itself, and its listener takes it.
    let (mut a, handle_a) = node(config("21160-21169"));
    let (b, _) = node(config("21170-21179"));
    let addr_a = punch_addr(&a, &handle_a, Transport::Tcp);
    let (from_b, from_a) = tokio::join!(b.dial(&addr_a, AS_LISTENER), a.accept());
    let ((peer, mut from_b), mut from_a) = (from_b.unwrap(), from_a);
    assert_eq!((peer, from_a.peer), (a.peer, b.peer));
    speak(&mut from_b, &mut from_a.muxer).await;
}

#[tokio::test]
async fn a_connection_from_the_ip_but_another_port_completes_the_punch() {
    // As through a symmetric NAT: A knows an address of B where nobody is, and B comes from elsewhere.
    let (a, handle_a) = node(config("21040-21049"));
    let (b, _handle_b) = node(config("21050-21059"));
    let nobody: Multiaddr = "/ip4/127.0.0.1/tcp/21999".parse().unwrap();
    let nobody = nobody.with(Protocol::P2p(b.peer));
    let addr_a = punch_addr(&a, &handle_a, Transport::Tcp);
    let _guard = handle_a.expect_punch(std::slice::from_ref(&nobody), Remote::Unknown);
    let (from_a, from_b) = tokio::join!(a.dial(&nobody, ORDINARY), b.dial(&addr_a, AS_LISTENER));
    let ((peer, mut from_a), (_, mut from_b)) = (from_a.unwrap(), from_b.unwrap());
    assert_eq!(peer, b.peer);
    speak(&mut from_b, &mut from_a).await;
}

#[tokio::test]
async fn an_unexpected_connection_from_the_same_ip_is_nobodys_dial() {
    let (mut a, handle_a) = node(config("21060-21069"));
    let (b, handle_b) = node(config("21070-21079"));
    let addr_a = punch_addr(&a, &handle_a, Transport::Tcp);
    // A punch towards the IP is announced and given up before it is dialed: what came is an ordinary connection.
    let guard = handle_a.expect_punch(
        &[punch_addr(&b, &handle_b, Transport::Tcp)],
        Remote::Unknown,
    );
    let dial = b.dial(&addr_a, ORDINARY);
    tokio::pin!(dial);
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut dial).await;
    assert!(early.is_err());
    drop(guard);
    let (peer, _connection) = dial.await.unwrap();
    assert_eq!(peer, a.peer);
    assert_eq!(a.accept().await.peer, b.peer);
}

#[tokio::test]
async fn another_peer_at_the_ip_is_passed_on_and_the_punch_goes_on() {
    let (mut a, handle_a) = node(config("21080-21089"));
    let (b, _) = node(config("21090-21099"));
    let (stranger, _) = node(config("21100-21109"));
    let addr_a = punch_addr(&a, &handle_a, Transport::Tcp);
    let nobody: Multiaddr = "/ip4/127.0.0.1/tcp/21999".parse().unwrap();
    let nobody = nobody.with(Protocol::P2p(b.peer));
    let punch = a.dial(&nobody, AS_LISTENER);
    let others = async {
        // An ordinary dial, as any peer behind the same NAT might make at that moment.
        let (peer, from_stranger) = stranger.dial(&addr_a, ORDINARY).await.unwrap();
        let from_b = b.dial(&addr_a, ORDINARY).await.unwrap();
        (peer, from_stranger, from_b)
    };
    let (punched, (peer, _from_stranger, _from_b)) = tokio::join!(punch, others);
    assert_eq!(peer, a.peer);
    assert_eq!(punched.unwrap().0, b.peer);
    assert_eq!(a.accept().await.peer, stranger.peer);
}

#[tokio::test]
async fn a_quic_punch_from_both_ends_connects_both_dials() {
    let (a, handle_a) = node(config("21110-21119"));
    let (b, handle_b) = node(config("21120-21129"));
    let (addr_a, addr_b) = (
        punch_addr(&a, &handle_a, Transport::Quic),
        punch_addr(&b, &handle_b, Transport::Quic),
    );
    let (from_a, from_b) = tokio::join!(a.dial(&addr_b, ORDINARY), b.dial(&addr_a, AS_LISTENER));
    assert_eq!(from_a.unwrap().0, b.peer);
    assert_eq!(from_b.unwrap().0, a.peer);
    assert_eq!(
        handle_b.sockets(&addr_a).unwrap().local.port(),
        handle_b.punch_ports()[&(Transport::Quic, Family::Ip4)]
    );
}

#[tokio::test]
async fn the_remotes_dial_outlives_a_quic_punch() {
    let (a, handle_a) = node(config("21140-21149"));
    let (mut b, handle_b) = node(config("21150-21159"));
    let (addr_a, addr_b) = (
        punch_addr(&a, &handle_a, Transport::Quic),
        punch_addr(&b, &handle_b, Transport::Quic),
    );
    for round in 0..30 {
        let (from_b, from_a) =
            tokio::join!(b.dial(&addr_a, AS_LISTENER), a.dial(&addr_b, ORDINARY));
        let ((_, mut from_a), (_, mut from_b)) = (from_a.unwrap(), from_b.unwrap());
        // Its other end is what B's dial has come to, or a connection that came in at B.
        let mut stream = poll_fn(|cx| from_a.poll_outbound_unpin(cx)).await.unwrap();
        stream.write_all(b"word").await.unwrap();
        stream.flush().await.unwrap();
        let closed = poll_fn(|cx| from_a.poll_inbound_unpin(cx));
        let arrived = poll_fn(|cx| from_b.poll_inbound_unpin(cx));
        let came_in = async {
            let mut came_in = b.accept().await;
            assert_eq!(came_in.peer, a.peer);
            poll_fn(|cx| came_in.muxer.poll_inbound_unpin(cx)).await
        };
        tokio::select! {
            _ = closed => panic!("round {round}: closed"),
            Ok(_) = arrived => {}
            stream = came_in => drop(stream.unwrap()),
        }
    }
}

/// How many datagrams the ClientHello of a handshake with a post-quantum key exchange is sent in.
const FLIGHT: usize = 2;

/// Carries datagrams between `to` and the first sender. It drops that sender's first datagrams: they come before the NAT is open.
async fn nat_that_opens_late(to: std::net::SocketAddr) -> std::net::SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let local = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let mut inside = None;
        let mut early = 0;
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            if from == to {
                let inside = inside.unwrap();
                let _lost_as_any = socket.send_to(&buffer[..length], inside).await;
                continue;
            }
            inside = Some(from);
            early += 1;
            if early > FLIGHT {
                let _lost_as_any = socket.send_to(&buffer[..length], to).await;
            }
        }
    });
    local
}

#[tokio::test]
async fn a_quic_punch_that_is_too_early_for_the_remotes_nat_is_repeated() {
    let (a, handle_a) = node(config("21180-21189"));
    let (b, handle_b) = node(config("21190-21199"));
    let port = handle_b.punch_ports()[&(Transport::Quic, Family::Ip4)];
    let nat = nat_that_opens_late(([127, 0, 0, 1], port).into()).await;
    let addr: Multiaddr = format!("/ip4/127.0.0.1/udp/{}/quic-v1/p2p/{}", nat.port(), b.peer)
        .parse()
        .unwrap();
    let _guard = handle_a.expect_punch(std::slice::from_ref(&addr), Remote::Unknown);
    let (peer, _connection) = a.dial(&addr, ORDINARY).await.unwrap();
    assert_eq!(peer, b.peer);
}

#[tokio::test]
async fn a_punch_towards_nobody_ends_with_the_reason() {
    let (a, _) = node(config("21130-21139"));
    let peer = libp2p::PeerId::random();
    let nobody: Multiaddr = format!("/ip4/127.0.0.1/tcp/21999/p2p/{peer}")
        .parse()
        .unwrap();
    let error = a.dial(&nobody, AS_LISTENER).await.err().unwrap();
    assert!(find_exhausted(&error).is_none());
    let error = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        error.starts_with("tcp connection to 127.0.0.1:21999 failed: Connection refused"),
        "{error}"
    );
}
