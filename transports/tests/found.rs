//! A socket of the range that a search for ports has found becomes QUIC's: it dials and accepts with the one remote that it reaches.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::Duration;

use common::{AS_LISTENER, LONG, ORDINARY, config, listener, node, speak};
use libp2p::Multiaddr;
use p2pnode_protocol::port_search::{Key, Kind, Nonce, Part, Probe};
use p2pnode_transports::{Config, Family, Transport};

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

fn quic_only(range: &str) -> Config {
    Config {
        tcp: false,
        ..config(range)
    }
}

#[tokio::test]
async fn dials_of_its_remote_leave_from_it_and_all_others_from_the_punch_port() {
    let (node, handle) = node(quic_only("24000-24009"));
    let punch = handle.punch_ports()[&(Transport::Quic, Family::Ip4)];
    let (mut remote, addr) = listener(QUIC).await;
    let (mut other, other_addr) = listener(QUIC).await;
    let found = handle.claim_udp(Family::Ip4).unwrap();
    let port = found.port();
    found.set_hops(Some(3)).unwrap();
    handle.adopt(found, common::socket(&addr)).unwrap();

    let (_, mut ours) = node.dial(&addr, ORDINARY).await.unwrap();
    let mut accepted = remote.accept().await;
    assert_eq!(accepted.from.port(), port);
    assert_eq!(handle.sockets(&addr).unwrap().local.port(), port);
    speak(&mut ours, &mut accepted.muxer).await;
    node.dial(&other_addr, ORDINARY).await.unwrap();
    assert_eq!(other.accept().await.from.port(), punch);
}

#[tokio::test]
async fn it_accepts_the_remotes_dial_and_its_port_is_free_once_nothing_uses_it() {
    let (one, handle) = node(quic_only("24100-24109"));
    let (other, other_handle) = node(quic_only("24200-24209"));
    let addr = |port: u16| -> Multiaddr {
        let text = format!("/ip4/127.0.0.1/udp/{port}/quic-v1");
        text.parse().unwrap()
    };
    let theirs = other_handle.punch_ports()[&(Transport::Quic, Family::Ip4)];
    let found = handle.claim_udp(Family::Ip4).unwrap();
    let (port, free) = (found.port(), handle.pool_counts().free);
    handle
        .adopt(found, ([127, 0, 0, 1], theirs).into())
        .unwrap();
    let with = |addr: Multiaddr, peer| addr.with(libp2p::multiaddr::Protocol::P2p(peer));
    let (ours, theirs) = (with(addr(theirs), other.peer), with(addr(port), one.peer));
    // The side that opens dials as the listener, as in a punch.
    let _guard = handle.expect_punch(
        std::slice::from_ref(&ours),
        p2pnode_transports::Remote::TakesTls,
    );
    let (opened, dialed) =
        tokio::join!(one.dial(&ours, AS_LISTENER), other.dial(&theirs, ORDINARY));
    let (opened, dialed) = (opened.unwrap(), dialed.unwrap());
    assert_eq!((opened.0, dialed.0), (other.peer, one.peer));
    drop((opened, dialed));
    // It is looked at every 15 s.
    let freed = async {
        while handle.pool_counts().free <= free {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(LONG * 2, freed).await.unwrap();
}

#[tokio::test]
async fn probes_that_come_to_the_punch_socket_are_taken_off_and_do_not_disturb_quic() {
    let (one, handle) = node(quic_only("24300-24309"));
    let port = handle.punch_ports()[&(Transport::Quic, Family::Ip4)];
    let mut probes = handle.stun().probes();
    let key = Key::new(Nonce([1; 16]), Nonce([2; 16]));
    let probe = Probe {
        kind: Kind::Probe,
        seq: 7,
    };
    let bytes = key.write(Part::Asker, probe);
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&bytes, ("127.0.0.1", port)).unwrap();
    let (from, got) = tokio::time::timeout(LONG, probes.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(from, stranger.local_addr().unwrap());
    assert_eq!(key.read(Part::Asker, &got), Some(probe));
    let (mut remote, addr) = listener(QUIC).await;
    one.dial(&addr, ORDINARY).await.unwrap();
    remote.accept().await;
}
