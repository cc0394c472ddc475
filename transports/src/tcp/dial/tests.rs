#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use libp2p::identity::Keypair;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    net::{
        budget::{Budgets, Class},
        kin::Kin,
        ports::Ports,
        range::PortRange,
    },
    tcp::{
        Dialer,
        moves::{Proposal, Why},
    },
    tls::Tls,
};

fn new_dial(dialer: &Dialer, remote: SocketAddr) -> Dial {
    dialer.dial(remote, None, Endpoint::Dialer, PortUse::Reuse)
}

fn punch_port(dialer: &Dialer) -> u16 {
    let shared = new_dial(dialer, ([127, 0, 0, 1], 1).into()).shared;
    let port = shared.ports.punch_port(Transport::Tcp, Family::Ip4);
    port.unwrap()
}

/// What comes of it while the punch sockets are polled.
async fn polled<T>(dialer: &mut Dialer, done: impl Future<Output = T>) -> T {
    let polls = async {
        loop {
            drop(poll_fn(|cx| dialer.poll(cx)).await);
        }
    };
    tokio::select! {
        done = done => done,
        () = polls => unreachable!(),
    }
}

/// A dial, with its port.
async fn dial(dialer: &mut Dialer, remote: SocketAddr) -> Result<(Connection, u16), Error> {
    let run = new_dial(dialer, remote).run();
    let (connection, sockets) = polled(dialer, run).await?;
    Ok((connection, sockets.local.port()))
}

/// Resets so many connections before it says anything, and authenticates itself in the others.
fn resets(remote: TcpListener, resets: u32) -> Arc<AtomicU32> {
    let left = Arc::new(AtomicU32::new(resets));
    let resets = Arc::clone(&left);
    tokio::spawn(async move {
        let server = upgrade();
        loop {
            let (stream, from) = remote.accept().await.unwrap();
            if resets.load(Relaxed) > 0 {
                resets.fetch_sub(1, Relaxed);
                socket::reset_on_close(&stream).unwrap();
                continue;
            }
            let stream = Stream::new(stream, None);
            tokio::spawn(server.apply(stream, from, Endpoint::Listener, Offer::Both));
        }
    });
    left
}

fn upgrade() -> Upgrade {
    let keypair = Keypair::generate_ed25519();
    let tls = Tls::new(&keypair, Kin::default()).unwrap();
    Upgrade::new(&keypair, tls, Budgets::new(Class::Carrying)).unwrap()
}

fn dialer(range: &str) -> (Dialer, PortRange) {
    let range = range.parse().unwrap();
    let shared = Shared::new(Ports::new(range, b"seed"));
    let mut dialer = Dialer::new(upgrade(), shared);
    dialer.open(Family::Ip4).unwrap();
    (dialer, range)
}

async fn connect(dialer: &Dialer, remote: SocketAddr) -> Result<(Stream, Sockets), Error> {
    let (stream, source) = new_dial(dialer, remote).connect(Segments::Full).await?;
    Ok((stream, source.sockets))
}

/// Connects, and closes at our end first, which leaves TIME_WAIT there.
async fn connect_and_close(dialer: &Dialer, remote: &TcpListener) -> Result<u16, Error> {
    let (stream, sockets) = connect(dialer, remote.local_addr().unwrap()).await?;
    let (mut accepted, from) = remote.accept().await.unwrap();
    assert_eq!(from, sockets.local);
    drop(stream);
    assert_eq!(accepted.read(&mut [0]).await.unwrap(), 0);
    Ok(from.port())
}

#[tokio::test]
async fn reconnecting_does_not_leave_the_range_whatever_time_wait_does() {
    let timestamps = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_timestamps").unwrap();
    let (dialer, range) = dialer("23000-23009");
    let remote = TcpListener::bind("127.0.0.1:0").await.unwrap();
    if timestamps.trim() != "0" {
        for _ in 0..200 {
            assert!(range.contains(connect_and_close(&dialer, &remote).await.unwrap()));
        }
        return;
    }
    // Without timestamps a port in TIME_WAIT cannot connect to the same remote for a minute. Each port
    // serves once; then the range is exhausted, which is right: leaving it would not be.
    let mut ports = BTreeSet::new();
    for _ in range.iter() {
        ports.insert(connect_and_close(&dialer, &remote).await.unwrap());
    }
    assert_eq!(ports, range.iter().collect::<BTreeSet<_>>());
    let error = connect_and_close(&dialer, &remote).await.unwrap_err();
    assert!(matches!(error, Error::Exhausted(_)), "{error}");
    // To another remote the punch port is as good as ever.
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(ports.contains(&connect_and_close(&dialer, &other).await.unwrap()));
}

#[tokio::test]
async fn a_second_connection_to_the_same_remote_takes_the_next_port() {
    let (dialer, range) = dialer("23010-23012");
    let remote = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = remote.local_addr().unwrap();
    let mut streams = Vec::new();
    let mut ports = BTreeSet::new();
    for _ in range.iter() {
        let (stream, sockets) = connect(&dialer, addr).await.unwrap();
        streams.push(stream);
        ports.insert(sockets.local.port());
    }
    assert_eq!(ports, range.iter().collect::<BTreeSet<_>>());
    let error = connect(&dialer, addr).await.map(drop).unwrap_err();
    assert_eq!(
        error.to_string(),
        "port range 23010-23012 exhausted: tcp 23010 held by a connection to the same remote in ESTABLISHED, \
         tcp 23011 held by a connection to the same remote in ESTABLISHED, \
         tcp 23012 held by a connection to the same remote in ESTABLISHED"
    );
}

#[tokio::test]
async fn a_dial_waits_for_numbers_that_are_about_to_be_free() {
    let (dialer, _) = dialer("23020");
    let remote = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = remote.local_addr().unwrap();
    let (stream, _) = connect(&dialer, addr).await.unwrap();
    let (accepted, _) = remote.accept().await.unwrap();
    // The remote closes, so that no TIME_WAIT is left at our end.
    drop(accepted);
    let closing = async {
        tokio::time::sleep(AGAIN * 3).await;
        drop(stream);
    };
    let (again, ()) = tokio::join!(connect(&dialer, addr), closing);
    assert_eq!(again.unwrap().1.local.port(), 23020);
}

/// The MSS that the next connection has here, which is answered or not.
async fn serve(listener: &TcpListener, upgrade: Option<&Upgrade>) -> (u32, BoxFuture<'static, ()>) {
    let (stream, from) = listener.accept().await.unwrap();
    let segment = socket2::SockRef::from(&stream).tcp_mss().unwrap();
    let Some(upgrade) = upgrade else {
        let held = async move { drop((std::future::pending::<()>().await, stream)) };
        return (segment, held.boxed());
    };
    let stream = Stream::new(stream, None);
    let serving = upgrade.apply(stream, from, Endpoint::Listener, Offer::Both);
    (segment, serving.map(drop).boxed())
}

#[tokio::test]
async fn a_handshake_that_stops_is_made_again_with_small_segments_and_the_next_one_at_once() {
    let (mut dialer, _) = dialer("23030-23039");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = listener.local_addr().unwrap();
    let dials = [(); 2].map(|()| new_dial(&dialer, remote));
    let server = upgrade();
    let remote = async {
        let (large, _held) = serve(&listener, None).await;
        let mut segments = vec![large];
        for _ in 0..2 {
            let (segment, serving) = serve(&listener, Some(&server)).await;
            tokio::spawn(serving);
            segments.push(segment);
        }
        segments
    };
    let dials = async {
        let [first, second] = dials;
        (first.run().await.map(drop), second.run().await.map(drop))
    };
    let both = async { tokio::join!(remote, dials) };
    let (segments, dialed) = polled(&mut dialer, both).await;
    assert!(dialed.0.is_ok() && dialed.1.is_ok(), "{dialed:?}");
    let is_small: Vec<bool> = segments.iter().map(|segment| *segment <= 1188).collect();
    assert_eq!(is_small, [false, true, true], "{segments:?}");
}

#[tokio::test]
async fn a_remote_that_resets_a_handshake_does_not_move_the_punch_port() {
    let (mut dialer, _) = dialer("23040-23049");
    let before = punch_port(&dialer);
    let remote = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = remote.local_addr().unwrap();
    resets(remote, 1);
    let (_connection, port) = dial(&mut dialer, addr).await.unwrap();
    assert_ne!(port, before);
    assert_eq!(punch_port(&dialer), before);
}

#[tokio::test]
async fn a_punch_port_whose_4_tuple_is_held_moves_once_the_remote_has_proved_who_it_is() {
    let (mut dialer, _) = dialer("23050-23059");
    let before = punch_port(&dialer);
    let remote = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = remote.local_addr().unwrap();
    let earlier = socket::connect(before, addr, Segments::Full).await;
    let _accepted = remote.accept().await.unwrap();
    let mut held = earlier.unwrap();
    held.shutdown().await.unwrap();
    let resets = resets(remote, u32::MAX);
    assert!(dial(&mut dialer, addr).await.is_err());
    resets.store(0, Relaxed);
    assert_eq!(punch_port(&dialer), before);
    let (_connection, port) = dial(&mut dialer, addr).await.unwrap();
    assert_ne!(port, before);
    assert_eq!(punch_port(&dialer), port);
}

#[tokio::test]
async fn remotes_that_hold_connections_open_move_the_punch_port_eight_times_and_once_more_in_20_s()
{
    let (mut dialer, _) = dialer("23060-23089");
    let remote = ([127, 0, 0, 1], 1).into();
    let mut moves = 0;
    for _ in 0..12 {
        let Dial {
            moves: to, shared, ..
        } = new_dial(&dialer, remote);
        let lease = shared.ports.lease(Family::Ip4).unwrap();
        let proposal = Proposal::new(&lease, remote, Why::InUse).unwrap();
        polled(&mut dialer, to.propose(proposal)).await;
        moves += u32::from(punch_port(&dialer) == lease.port());
    }
    assert_eq!(moves, 8);
}

#[tokio::test]
async fn a_server_of_another_protocol_is_no_dialer() {
    let remote = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = remote.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = remote.accept().await.unwrap();
            // It reads as a message of the length that its first byte gives.
            let answer = "<!DOCTYPE HTML><html><title>Bad request</title>".repeat(4);
            // The dialer may be gone.
            let _read = stream.read(&mut [0; 4096]).await;
            let _sent = stream.write_all(answer.as_bytes()).await;
        }
    });
    let (mut dialer, _) = dialer("23180-23189");
    // The second dial does not begin with TLS alone.
    for _ in 0..2 {
        let error = dial(&mut dialer, at).await.err().unwrap();
        assert!(matches!(error, Error::Handshake { .. }), "{error}");
    }
}
