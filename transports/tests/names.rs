//! Names are resolved before a transport sees them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::error::Error as _;

use common::{ORDINARY, config, listener, node, socket};
use libp2p::Multiaddr;
use p2pnode_transports::{Config, FamilyPolicy};

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
