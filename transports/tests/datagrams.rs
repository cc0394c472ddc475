//! QUIC datagrams between two nodes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::Duration;

use common::{LONG, ORDINARY, config, listener, node, socket, speak};
use futures::FutureExt as _;
use p2pnode_transports::{DatagramError, DatagramPath, Datagrams};

async fn receive(datagrams: &Datagrams) -> (libp2p::PeerId, Vec<u8>) {
    let (peer, datagram) = tokio::time::timeout(LONG, datagrams.receive())
        .await
        .unwrap();
    (peer, datagram.to_vec())
}

fn send(path: &DatagramPath, bytes: &[u8]) -> Result<(), DatagramError> {
    path.send(bytes.to_vec().into())
}

#[tokio::test]
async fn datagrams_go_both_ways_once_their_peer_is_admitted_and_end_with_the_connection() {
    let (mut server, server_handle) = node(config("21240-21249"));
    let (client, client_handle) = node(config("21250-21259"));
    let addr = server.listen("/ip4/127.0.0.1/udp/0/quic-v1").await;
    let (_, mut dialed) = client.dial(&addr, ORDINARY).await.unwrap();
    let mut accepted = server.accept().await;
    let [ours, theirs] = [&client_handle, &server_handle].map(|handle| handle.datagrams());
    let to_server = ours.path(&server.peer, socket(&addr)).unwrap();
    let to_client = theirs.path(&client.peer, accepted.from).unwrap();
    assert!(ours.path(&client.peer, socket(&addr)).is_none());
    assert!(ours.path(&server.peer, accepted.from).is_none());

    // It is taken off the connection even though nobody wants it.
    send(&to_server, b"unwanted").unwrap();
    let unwanted = async {
        while theirs.dropped() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, unwanted).await.unwrap();
    theirs.admit(client.peer);
    ours.admit(server.peer);
    assert!(theirs.receive().now_or_never().is_none());

    for bytes in [&b"one"[..], b"", b"two"] {
        send(&to_server, bytes).unwrap();
        assert_eq!(receive(theirs).await, (client.peer, bytes.to_vec()));
        send(&to_client, bytes).unwrap();
        assert_eq!(receive(ours).await, (server.peer, bytes.to_vec()));
    }
    let longest = vec![7; to_server.max_size().unwrap()];
    assert!(longest.len() >= 1100);
    send(&to_server, &longest).unwrap();
    assert_eq!(receive(theirs).await, (client.peer, longest));
    assert_eq!(send(&to_server, &[0; 65_507]), Err(DatagramError::TooLong));

    speak(&mut dialed, &mut accepted.muxer).await;
    drop(dialed);
    assert_eq!(to_server.max_size(), None);
    assert_eq!(send(&to_server, b"late"), Err(DatagramError::Closed));
    assert!(ours.path(&server.peer, socket(&addr)).is_none());
    let closed = async {
        while send(&to_client, b"late") != Err(DatagramError::Closed) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, closed).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_offers_no_datagrams_gets_none() {
    let (mut server, addr) = listener("/ip4/127.0.0.1/udp/0/quic-v1").await;
    let (client, handle) = node(config("21260-21269"));
    let (_, mut dialed) = client.dial(&addr, ORDINARY).await.unwrap();
    let mut accepted = server.accept().await.muxer;
    let path = handle
        .datagrams()
        .path(&server.peer, socket(&addr))
        .unwrap();
    assert_eq!(path.max_size(), None);
    assert_eq!(send(&path, b"one"), Err(DatagramError::Unsupported));
    speak(&mut dialed, &mut accepted).await;
}

#[tokio::test]
async fn more_than_a_path_takes_at_once_costs_datagrams_and_never_the_connection() {
    const SENT: usize = 20_000;
    let (mut server, server_handle) = node(config("21270-21279"));
    let (client, client_handle) = node(config("21280-21289"));
    let addr = server.listen("/ip4/127.0.0.1/udp/0/quic-v1").await;
    let (_, mut dialed) = client.dial(&addr, ORDINARY).await.unwrap();
    let mut accepted = server.accept().await;
    let datagrams = server_handle.datagrams().clone();
    datagrams.admit(client.peer);
    let path = client_handle.datagrams();
    let path = path.path(&server.peer, socket(&addr)).unwrap();
    let send = |bytes: &[u8]| match send(&path, bytes) {
        Ok(()) | Err(DatagramError::Congested) => {}
        Err(error) => panic!("{error}"),
    };
    for number in 0..SENT {
        send(&number.to_be_bytes().repeat(100));
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let last = (SENT - 1).to_be_bytes().repeat(100);
    let mut received = 0;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(1), datagrams.receive());
        match next.await {
            Ok((_, datagram)) if datagram == last => break,
            Ok(_) => received += 1,
            // It was lost, as any may be.
            Err(_) => send(&last),
        }
    }
    assert!(received < SENT, "{received} of {SENT}");
    speak(&mut dialed, &mut accepted.muxer).await;
}
