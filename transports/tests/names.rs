//! Names are resolved before a transport sees them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::error::Error as _;

use common::{ORDINARY, config, listener, node, socket};
use libp2p::{
    Multiaddr,
    core::transport::{Transport as _, TransportError},
    identity::Keypair,
};
use p2pnode_protocol::Reach;
use p2pnode_transports::{Config, FamilyPolicy, build};

#[tokio::test]
async fn localhost_is_dialed_from_the_range_and_its_sockets_are_known_by_the_name() {
    let (node, handle) = node(config("22000-22009"));
    for (listen, name) in [
        (
            "/ip4/127.0.0.1/udp/0/quic-v1",
            "/dns4/localhost/udp/PORT/quic-v1",
        ),
        ("/ip4/127.0.0.1/tcp/0", "/dns/localhost/tcp/PORT"),
    ] {
        let (mut remote, addr) = listener(listen).await;
        let name = name.replace("PORT", &socket(&addr).port().to_string());
        let name: Multiaddr = format!("{name}/p2p/{}", remote.peer).parse().unwrap();
        let (peer, _connection) = node.dial(&name, ORDINARY).await.unwrap();
        assert_eq!(peer, remote.peer);
        let accepted = remote.accept().await;
        let sockets = handle.sockets(&name).unwrap();
        assert_eq!(
            (sockets.local, sockets.remote),
            (accepted.from, socket(&addr))
        );
        assert!(handle.range().contains(sockets.local.port()));
    }
}

#[tokio::test]
async fn every_failure_of_a_name_is_told() {
    let (node, _) = node(Config {
        family: FamilyPolicy::OnlyIp4,
        ..config("22010-22019")
    });
    for (addr, text) in [
        (
            "/dns/no-such-host.invalid/tcp/1",
            "cannot resolve no-such-host.invalid: ",
        ),
        ("/dns6/localhost/tcp/1", "cannot resolve localhost: "),
        (
            "/dns/localhost/tcp/1",
            "cannot reach localhost: /ip4/127.0.0.1/tcp/1: tcp connection to 127.0.0.1:1 failed: ",
        ),
    ] {
        let error = node
            .dial(&addr.parse().unwrap(), ORDINARY)
            .await
            .err()
            .unwrap();
        let error = error.source().unwrap().to_string();
        assert!(error.starts_with(text), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[tokio::test]
async fn a_dial_on_a_remotes_word_sends_nothing_to_this_host_by_name_or_by_address() {
    let keypair = Keypair::generate_ed25519();
    let (mut transport, handle) = build(&keypair, config("22020-22029")).unwrap();
    let reach = |host| {
        Some(Reach {
            private: false,
            host,
        })
    };
    for (listen, names) in [
        (
            "/ip4/127.0.0.1/udp/0/quic-v1",
            [
                "/dns/localhost/udp/PORT/quic-v1",
                "/ip4/127.0.0.1/udp/PORT/quic-v1",
            ],
        ),
        (
            "/ip4/127.0.0.1/tcp/0",
            ["/dns4/localhost/tcp/PORT", "/ip4/127.0.0.1/tcp/PORT"],
        ),
        (
            "/ip6/::1/udp/0/quic-v1",
            [
                "/dns/localhost/udp/PORT/quic-v1",
                "/ip6/::1/udp/PORT/quic-v1",
            ],
        ),
        (
            "/ip6/::1/tcp/0",
            ["/dns/localhost/tcp/PORT", "/ip6/::1/tcp/PORT"],
        ),
    ] {
        let (remote, addr) = listener(listen).await;
        for name in names {
            let name = name.replace("PORT", &socket(&addr).port().to_string());
            let name: Multiaddr = format!("{name}/p2p/{}", remote.peer).parse().unwrap();
            let dial = handle.dial_within(reach(false), || transport.dial(name.clone(), ORDINARY));
            let error = match dial {
                Ok(dial) => dial.await.err().unwrap(),
                Err(TransportError::Other(error)) => error,
                Err(TransportError::MultiaddrNotSupported(addr)) => panic!("{addr}"),
            };
            let error = error.source().unwrap().to_string();
            assert!(
                error.ends_with(", where a remote's word does not lead"),
                "{error}"
            );
        }
        assert!(remote.accepted.is_empty(), "{listen}");
    }
    let unlimited = transport.dial("/ip4/127.0.0.1/tcp/1".parse().unwrap(), ORDINARY);
    assert!(unlimited.is_ok());
    let within = handle.dial_within(reach(true), || {
        transport.dial("/ip4/127.0.0.1/tcp/1".parse().unwrap(), ORDINARY)
    });
    assert!(within.is_ok());
}
