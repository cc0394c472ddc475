//! What leaves a node, leaves it from its range. Seen from the other end, on loopback.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::{
    collections::BTreeSet,
    net::{TcpListener, UdpSocket},
};

use common::{AS_LISTENER, NEW, ORDINARY, config, listener, node, range, socket, speak};
use futures::future::join_all;
use libp2p::Multiaddr;
use p2pnode_transports::{Config, Family, FamilyPolicy, HeldBy, Transport, find_exhausted};

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

#[tokio::test]
async fn dials_leave_from_the_punch_port_and_never_from_a_public_listener() {
    let (mut node, handle) = node(config("20000-20009"));
    let public_quic = node.listen(QUIC).await;
    let public_tcp = node.listen(TCP).await;
    for (transport, family, addr) in [
        (Transport::Quic, Family::Ip4, QUIC),
        (Transport::Tcp, Family::Ip4, TCP),
    ] {
        // Several remotes: with a listener and a punch socket in one instance, libp2p-quic would
        // choose between them by a hash of the remote's address.
        for _ in 0..6 {
            let (mut remote, addr) = listener(addr).await;
            let (peer, mut ours) = node.dial(&addr, ORDINARY).await.unwrap();
            assert_eq!(peer, remote.peer);
            let mut accepted = remote.accept().await;
            assert_eq!(accepted.peer, node.peer);
            let from = accepted.from;
            assert_eq!(
                from.port(),
                handle.punch_ports()[&(transport, family)],
                "{addr}"
            );
            assert!(range("20000-20009").contains(from.port()));
            assert_ne!(from.port(), socket(&public_quic).port());
            assert_ne!(from.port(), socket(&public_tcp).port());
            let sockets = handle.sockets(&addr).unwrap();
            assert_eq!((sockets.transport, sockets.local), (transport, from));
            assert_eq!(sockets.remote, socket(&addr));
            assert!(handle.kin().contains(&peer));
            speak(&mut ours, &mut accepted.muxer).await;
            speak(&mut accepted.muxer, &mut ours).await;
        }
    }
    let ports: BTreeSet<u16> = handle.punch_ports().into_values().collect();
    assert_eq!(ports.len(), 1, "one number serves all");
    // The swarm has learned of the two public listeners and of nothing else.
    assert!(node.listening.try_recv().is_err());
}

#[tokio::test]
async fn ipv6_is_dialed_from_the_same_port_or_refused_by_a_host_without_it() {
    let (node, handle) = node(config("20100-20109"));
    let host_has_it = UdpSocket::bind("[::1]:0").is_ok();
    for (transport, addr) in [
        (Transport::Quic, "/ip6/::1/udp/9/quic-v1"),
        (Transport::Tcp, "/ip6/::1/tcp/9"),
    ] {
        if !host_has_it {
            let error = node
                .dial(&addr.parse().unwrap(), ORDINARY)
                .await
                .err()
                .unwrap();
            let error = std::error::Error::source(&error).unwrap().to_string();
            assert!(error.starts_with("no route to [::1]:9: "), "{error}");
            continue;
        }
        let (mut remote, addr) = listener(&addr.replace("/9", "/0")).await;
        let _connection = node.dial(&addr, ORDINARY).await.unwrap();
        let from = remote.accept().await.from;
        assert_eq!(from.port(), handle.punch_ports()[&(transport, Family::Ip6)]);
        assert_eq!(from.port(), handle.punch_ports()[&(transport, Family::Ip4)]);
        assert_eq!(handle.sockets(&addr).unwrap().local, from);
    }
}

#[tokio::test]
async fn a_punch_port_accepts() {
    let (mut a, handle_a) = node(config("20010-20019"));
    let (b, handle_b) = node(config("20020-20029"));
    for (transport, text) in [
        (Transport::Quic, "udp/PORT/quic-v1"),
        (Transport::Tcp, "tcp/PORT"),
    ] {
        let port = handle_a.punch_ports()[&(transport, Family::Ip4)];
        let addr: Multiaddr = format!("/ip4/127.0.0.1/{}", text.replace("PORT", &port.to_string()))
            .parse()
            .unwrap();
        let (peer, _connection) = b.dial(&addr, ORDINARY).await.unwrap();
        assert_eq!(peer, a.peer);
        let accepted = a.accept().await;
        assert_eq!(
            accepted.from.port(),
            handle_b.punch_ports()[&(transport, Family::Ip4)]
        );
    }
}

#[tokio::test]
async fn a_new_port_is_another_port_of_the_range() {
    let (node, handle) = node(config("20030-20033"));
    let (mut remote, addr) = listener(TCP).await;
    let mut ports = BTreeSet::new();
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(node.dial(&addr, NEW).await.unwrap());
        let from = remote.accept().await.from;
        assert_eq!(handle.sockets(&addr).unwrap().local, from);
        ports.insert(from.port());
    }
    let punch = handle.punch_ports()[&(Transport::Tcp, Family::Ip4)];
    let others: BTreeSet<u16> = range("20030-20033")
        .iter()
        .filter(|port| *port != punch)
        .collect();
    assert_eq!(ports, others);
    assert_eq!(
        (handle.pool_counts().in_use, handle.pool_counts().free),
        (4, 0)
    );
    // None is left, and none becomes free while the connections live.
    let error = node.dial(&addr, NEW).await.err().unwrap();
    let holder = &find_exhausted(&error).unwrap().holders[0].by;
    assert!(matches!(holder, HeldBy::Connection { .. }), "{holder:?}");
    assert!(handle.exhausted().is_some());
    drop(connections);
    // They cool, and the dial waits for that.
    let _connection = node.dial(&addr, NEW).await.unwrap();
    assert_eq!(handle.exhausted(), None);

    let (mut remote, addr) = listener(QUIC).await;
    let _connection = node.dial(&addr, NEW).await.unwrap();
    assert_eq!(
        remote.accept().await.from.port(),
        handle.punch_ports()[&(Transport::Quic, Family::Ip4)]
    );
}

#[tokio::test]
async fn a_range_of_one_port_carries_both_transports_to_many_peers() {
    let (node, handle) = node(config("20040"));
    let mut remotes = Vec::new();
    for _ in 0..21 {
        for addr in [QUIC, TCP] {
            remotes.push(listener(addr).await);
        }
    }
    let dials = remotes.iter().map(|(_, addr)| node.dial(addr, ORDINARY));
    let connections = join_all(dials).await;
    for ((remote, _), connection) in remotes.iter_mut().zip(&connections) {
        assert_eq!(connection.as_ref().unwrap().0, remote.peer);
        assert_eq!(remote.accept().await.from.port(), 20040);
    }
    assert_eq!(handle.pool_counts().in_use, 1);
    // The same four numbers twice cannot be; and the range has no other port.
    let (_, addr) = &remotes[1];
    let error = node.dial(addr, ORDINARY).await.err().unwrap();
    assert_eq!(find_exhausted(&error).unwrap().range, range("20040"));
    let error = node.dial(addr, NEW).await.err().unwrap();
    assert!(
        error.to_string().is_empty(),
        "libp2p shows nothing of the inner error"
    );
    let exhausted = find_exhausted(&error).unwrap().to_string();
    // In which state depends on what the remote has done with it.
    let held =
        "port range 20040-20040 exhausted: tcp 20040 held by a connection to the same remote in ";
    assert!(exhausted.starts_with(held), "{exhausted}");
}

#[tokio::test]
async fn a_range_wholly_taken_fails_each_dial_and_works_once_it_is_free() {
    // In both families, as a wildcard socket that is not restricted to IPv6 is.
    let taken = UdpSocket::bind("[::]:20050").or_else(|_| UdpSocket::bind("0.0.0.0:20050"));
    let taken = taken.unwrap();
    let (node, handle) = node(config("20050"));
    assert!(handle.punch_ports().is_empty());
    for addr in [QUIC, TCP] {
        let (mut remote, addr) = listener(addr).await;
        for opts in [ORDINARY, NEW, AS_LISTENER] {
            let error = node.dial(&addr, opts).await.err().unwrap();
            let exhausted = find_exhausted(&error).unwrap();
            assert_eq!(
                exhausted.holders[0].by,
                HeldBy::ThisNode,
                "this process holds it"
            );
            assert!(
                exhausted
                    .to_string()
                    .starts_with("port range 20050-20050 exhausted: udp 20050 "),
                "{exhausted}"
            );
        }
        assert!(handle.exhausted().is_some());
        assert!(remote.accepted.try_recv().is_err());
    }
    drop(taken);
    for addr in [QUIC, TCP] {
        let (mut remote, addr) = listener(addr).await;
        let _connection = node.dial(&addr, ORDINARY).await.unwrap();
        assert_eq!(remote.accept().await.from.port(), 20050);
    }
    assert_eq!(handle.exhausted(), None);
}

#[tokio::test]
async fn ports_that_others_have_are_passed_over() {
    // All but the last, each in one of the ways that count.
    let _udp = UdpSocket::bind("127.0.0.1:20060").unwrap();
    let _tcp = TcpListener::bind("0.0.0.0:20061").unwrap();
    let config = Config {
        family: FamilyPolicy::OnlyIp4,
        ..config("20060-20062")
    };
    let (node, handle) = node(config);
    for addr in [QUIC, TCP] {
        let (mut remote, addr) = listener(addr).await;
        let _connection = node.dial(&addr, ORDINARY).await.unwrap();
        let port = remote.accept().await.from.port();
        assert!(
            port == 20062 || (addr.to_string().contains("udp") && port == 20061),
            "{port}"
        );
    }
    assert_eq!(handle.punch_ports()[&(Transport::Tcp, Family::Ip4)], 20062);
}

#[tokio::test]
async fn two_hundred_reconnects_over_tcp_stay_in_the_range() {
    let (node, _handle) = node(config("20070-20079"));
    let (mut remote, addr) = listener(TCP).await;
    for _ in 0..200 {
        let (_, mut ours) = node.dial(&addr, ORDINARY).await.unwrap();
        let mut accepted = remote.accept().await;
        assert!(range("20070-20079").contains(accepted.from.port()));
        speak(&mut ours, &mut accepted.muxer).await;
        drop(ours);
    }
}

#[tokio::test]
async fn tcp_alone_keeps_its_number_from_others() {
    let config = Config {
        quic: false,
        family: FamilyPolicy::OnlyIp4,
        ..config("20080")
    };
    let (_node, handle) = node(config);
    assert_eq!(handle.punch_ports()[&(Transport::Tcp, Family::Ip4)], 20080);
    assert!(UdpSocket::bind("0.0.0.0:20080").is_err());
}

#[tokio::test]
async fn what_is_disabled_is_refused_by_name() {
    let only4 = Config {
        quic: false,
        family: FamilyPolicy::OnlyIp4,
        ..config("20081-20082")
    };
    let (node, _handle) = node(only4);
    let refusal = |error: libp2p::core::transport::TransportError<std::io::Error>| {
        std::error::Error::source(&error).unwrap().to_string()
    };
    let dial = |addr: &'static str| {
        let addr: Multiaddr = addr.parse().unwrap();
        let node = &node;
        async move { node.dial(&addr, ORDINARY).await.err().unwrap() }
    };
    let quic = refusal(dial("/ip4/127.0.0.1/udp/1/quic-v1").await);
    assert!(quic.starts_with("transport quic is disabled"), "{quic}");
    assert_eq!(
        refusal(dial("/ip6/::1/tcp/1").await),
        "ip6 is disabled by the family policy only-ip4"
    );
    let dnsaddr = refusal(dial("/dnsaddr/relay.example.net").await);
    assert!(
        dnsaddr.starts_with("/dnsaddr/relay.example.net is not supported"),
        "{dnsaddr}"
    );
    let refused = refusal(dial("/ip4/127.0.0.1/tcp/1").await);
    assert!(
        refused.starts_with("tcp connection to 127.0.0.1:1 failed: Connection refused"),
        "{refused}"
    );
    let own = refusal(dial("/ip4/127.0.0.1/tcp/20081").await);
    let own2 = refusal(dial("/ip4/127.0.0.1/tcp/20082").await);
    assert!(
        [own, own2]
            .iter()
            .any(|error| error.ends_with("is our own socket"))
    );
}

#[tokio::test]
async fn a_public_listener_on_the_punch_port_is_refused() {
    let (node, _handle) = node(config("20090"));
    for addr in ["/ip4/0.0.0.0/tcp/20090", "/ip4/127.0.0.1/udp/20090/quic-v1"] {
        let error = node.try_listen(addr).await.unwrap_err();
        let error = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            error.starts_with(&format!(
                "cannot listen on {addr}: the node dials from port 20090"
            )),
            "{error}"
        );
    }
}
