//! How a connection ended, as both transports report it: read from the type of the error, whatever its words.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::{future::poll_fn, io, pin::Pin, time::Duration};

use common::{LONG, Node, ORDINARY, config, listener, node, noise_only};
use libp2p::{
    Transport as _,
    core::{
        muxing::{StreamMuxerBox, StreamMuxerExt as _},
        transport::{ListenerId, TransportEvent},
    },
    identity::Keypair,
    multiaddr::{Multiaddr, Protocol},
};
use p2pnode_transports::{Closed, build, closed, innermost, server, tokio_runtime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// The error that a connection fails with. Polls it as a swarm does.
async fn end(muxer: &mut StreamMuxerBox) -> io::Error {
    let ended = poll_fn(|cx| {
        if let std::task::Poll::Ready(Err(error)) = muxer.poll_unpin(cx) {
            return std::task::Poll::Ready(error);
        }
        muxer
            .poll_inbound_unpin(cx)
            .map(|stream| stream.err().unwrap())
    });
    tokio::time::timeout(LONG, ended).await.unwrap()
}

/// No text of a library or of the kernel, and no link to documentation.
fn are_own_words(words: &str, begin: &str) {
    assert!(words.starts_with(begin), "{words}");
    for foreign in ["os error", "://", "close_notify", "ConnectionError"] {
        assert!(!words.contains(foreign), "{words}");
    }
}

async fn close(muxer: &mut StreamMuxerBox) {
    let closing = poll_fn(|cx| muxer.poll_close_unpin(cx));
    tokio::time::timeout(LONG, closing).await.unwrap().unwrap();
}

/// Both ends of a new connection, which have exchanged a word.
async fn connected(dialer: &Node, listener: &mut Node, addr: &Multiaddr) -> [StreamMuxerBox; 2] {
    let (_, mut dialed) = dialer.dial(addr, ORDINARY).await.unwrap();
    let mut accepted = listener.accept().await.muxer;
    common::speak(&mut dialed, &mut accepted).await;
    [dialed, accepted]
}

#[tokio::test]
async fn a_graceful_close_is_the_peers_there_and_ours_here() {
    for (addr, range) in [(QUIC, "21240-21249"), (TCP, "21250-21259")] {
        let (mut server, addr) = listener(addr).await;
        let (client, _) = node(config(range));
        let [mut dialed, mut accepted] = connected(&client, &mut server, &addr).await;
        let (there, ()) = tokio::join!(end(&mut dialed), close(&mut accepted));
        assert_eq!(closed(&there), Some(Closed::ByPeer), "{addr}: {there:?}");
        assert_eq!(innermost(&there), "closed by peer", "{addr}");
        let here = end(&mut accepted).await;
        assert_eq!(innermost(&here), "closed by this node", "{addr}");
        assert_eq!(closed(&here), Some(Closed::Local), "{addr}: {here:?}");
    }
}

#[tokio::test]
async fn a_tcp_stream_that_ends_without_close_notify_is_no_graceful_close() {
    let (mut server, addr) = listener(TCP).await;
    let (client, _) = node(config("21260-21269"));
    let [mut dialed, accepted] = connected(&client, &mut server, &addr).await;
    drop(accepted);
    let error = end(&mut dialed).await;
    assert_eq!(closed(&error), Some(Closed::Reset), "{error:?}");
    are_own_words(&innermost(&error), "ended without a graceful close");
}

#[tokio::test]
async fn noise_has_no_close_notify_so_the_goaway_of_yamux_decides() {
    let (mut ours, addr) = listener(TCP).await;
    let foreign = noise_only();
    let [mut dialed, mut accepted] = connected(&foreign, &mut ours, &addr).await;
    let (error, ()) = tokio::join!(end(&mut accepted), close(&mut dialed));
    assert_eq!(closed(&error), Some(Closed::ByPeer), "{error:?}");

    let [dialed, mut accepted] = connected(&foreign, &mut ours, &addr).await;
    drop(dialed);
    let error = end(&mut accepted).await;
    assert_eq!(closed(&error), Some(Closed::Reset), "{error:?}");
}

/// A middlebox: forwards one connection to `port` until it is dropped, and then resets both of its halves.
async fn middlebox(port: u16) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().port();
    let forwarding = tokio::spawn(async move {
        let (mut from, _) = listener.accept().await.unwrap();
        let mut to = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        for half in [&from, &to] {
            socket2::SockRef::from(half)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    });
    (at, forwarding)
}

#[tokio::test]
async fn a_reset_of_tcp_is_one() {
    let (mut server, addr) = listener(TCP).await;
    let (client, _) = node(config("21270-21279"));
    let (at, forwarding) = middlebox(common::socket(&addr).port()).await;
    let through = Multiaddr::from(std::net::Ipv4Addr::LOCALHOST)
        .with(Protocol::Tcp(at))
        .with(Protocol::P2p(server.peer));
    let [mut dialed, mut accepted] = connected(&client, &mut server, &through).await;
    forwarding.abort();
    for muxer in [&mut dialed, &mut accepted] {
        let error = end(muxer).await;
        assert_eq!(closed(&error), Some(Closed::Reset), "{error:?}");
        are_own_words(&innermost(&error), "");
    }
}

#[tokio::test]
async fn a_refused_dial_is_neither_closed_nor_timed_out() {
    let (client, _) = node(config("21280-21289"));
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let addr: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let error = client.dial(&addr, ORDINARY).await.err().unwrap();
    assert_eq!(closed(&error), None, "{error:?}");
    assert!(!p2pnode_transports::timed_out(&error), "{error:?}");
    are_own_words(&innermost(&error), "connection refused");
}

#[tokio::test]
async fn a_quic_dial_that_nobody_answers_has_timed_out() {
    let (client, _) = node(config("21290-21299"));
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let addr: Multiaddr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1")
        .parse()
        .unwrap();
    let error = client.dial(&addr, ORDINARY).await.err().unwrap();
    assert!(p2pnode_transports::timed_out(&error), "{error:?}");
}

/// A peer that has no room ends what it accepted, by a reset or, if its kernel sees to it, by a FIN: before or after it read
/// something. Neither is a peer that speaks none of the protocols.
#[tokio::test]
async fn a_tcp_peer_that_ends_a_connection_without_an_answer_has_closed_it() {
    let (client, _) = node(config("21310-21339"));
    for (linger, reads, words) in [
        (None, false, ""),
        (None, true, "ended without a graceful close"),
        (Some(Duration::ZERO), false, "reset by the peer"),
        (Some(Duration::ZERO), true, "reset by the peer"),
    ] {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let addr: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        // Each: one that is reset is dialed again, from another port.
        let ends = async {
            loop {
                let (mut stream, _) = silent.accept().await.unwrap();
                let of = socket2::SockRef::from(&stream);
                of.set_linger(linger).unwrap();
                if reads {
                    // All that the dialer sends before an answer: what is unread makes the kernel send a reset.
                    let mut flight = [0; 4096];
                    while !flight.windows(10).any(|part| part == b"/tls/1.0.0") {
                        assert_ne!(stream.read(&mut flight).await.unwrap(), 0);
                    }
                }
            }
        };
        let error = tokio::select! {
            dialed = client.dial(&addr, ORDINARY) => dialed.err().unwrap(),
            () = ends => unreachable!(),
        };
        let case = format!("{linger:?} {reads}: {error:?}");
        assert_eq!(closed(&error), Some(Closed::Reset), "{case}");
        are_own_words(&innermost(&error), "");
        assert!(innermost(&error).contains(words), "{case}");
    }
}

/// A swarm that refuses a connection drops its upgrade. The kernel would send a FIN where nothing has arrived, and a reset where
/// something has; the dialer reads the same in both cases.
#[tokio::test]
async fn a_tcp_connection_that_is_refused_is_reset_whether_something_arrived_or_not() {
    let keypair = Keypair::generate_ed25519();
    let dialer = build(&keypair, config("21340-21349")).unwrap().0;
    for mut transport in [server(&keypair, tokio_runtime()).unwrap(), dialer] {
        for says in [&b""[..], b"\x13/multistream/1.0.0\n"] {
            let at = TCP.parse().unwrap();
            transport.listen_on(ListenerId::next(), at).unwrap();
            let mut next = async || poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await;
            let port = loop {
                if let TransportEvent::NewAddress { listen_addr, .. } = next().await {
                    break common::socket(&listen_addr).port();
                }
            };
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(says).await.unwrap();
            let refused = loop {
                if let TransportEvent::Incoming { upgrade, .. } = next().await {
                    break upgrade;
                }
            };
            drop(refused);
            let read = stream.read(&mut [0; 1]).await;
            let kind = read.map_err(|error| error.kind());
            assert_eq!(kind, Err(io::ErrorKind::ConnectionReset), "{says:?}");
        }
    }
}

/// yamux wakes no stream when its connection is closed on this side.
#[tokio::test]
async fn a_stream_that_waits_for_data_fails_when_its_connection_is_closed_here() {
    for (addr, range) in [(QUIC, "21950-21959"), (TCP, "21960-21969")] {
        let (mut server, addr) = listener(addr).await;
        let (client, _) = node(config(range));
        let [mut dialed, _accepted] = connected(&client, &mut server, &addr).await;
        let opened = poll_fn(|cx| dialed.poll_outbound_unpin(cx)).await;
        let mut stream = opened.unwrap();
        let mut read = Box::pin(async move {
            let mut byte = [0];
            futures::AsyncReadExt::read(&mut stream, &mut byte).await
        });
        // It waits before the close, and has to be woken.
        assert!(futures::poll!(&mut read).is_pending());
        let read = tokio::spawn(read);
        close(&mut dialed).await;
        let read = tokio::time::timeout(LONG, read).await.unwrap().unwrap();
        assert!(read.is_err(), "{addr}: {read:?}");
    }
}
