#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;

use libp2p::identity::Keypair;
use tokio::{io::AsyncReadExt, net::TcpListener};

use super::*;
use crate::{
    net::{
        budget::{Budgets, Class},
        kin::Kin,
        ports::Ports,
        range::PortRange,
    },
    tcp::Dialer,
    tls::Tls,
};

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
    let dial = dialer.dial(remote, None, Endpoint::Dialer, PortUse::Reuse);
    dial.connect(Segments::Full).await
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
    let (dialer, _) = dialer("23030-23039");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = listener.local_addr().unwrap();
    let dial = || dialer.dial(remote, None, Endpoint::Dialer, PortUse::Reuse);
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
    let dials = async { (dial().run().await.map(drop), dial().run().await.map(drop)) };
    let (segments, dialed) = tokio::join!(remote, dials);
    assert!(dialed.0.is_ok() && dialed.1.is_ok(), "{dialed:?}");
    let is_small: Vec<bool> = segments.iter().map(|segment| *segment <= 1188).collect();
    assert_eq!(is_small, [false, true, true], "{segments:?}");
}
