//! A relay on loopback and plain libp2p peers.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod harness;
mod peer;

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use harness::{config, free_port, reserve, start};
use libp2p::{PeerId, identity::Keypair, multiaddr::Protocol, ping, swarm::SwarmEvent};
use peer::{BehaviourEvent, until};
use relay_node::{Config, Format};

#[tokio::test]
async fn peers_learn_of_a_shutdown_at_once() {
    let relay = start(config(free_port())).await;
    let (mut quic, _) = reserve(relay.peer, relay.quic()).await;
    let (mut tcp, _) = reserve(relay.peer, relay.tcp()).await;
    let stopped = tokio::spawn(relay.stop());
    let asked = Instant::now();
    for swarm in [&mut quic, &mut tcp] {
        until(swarm, |event| match event {
            SwarmEvent::ConnectionClosed { .. } => Some(()),
            _ => None,
        })
        .await;
    }
    // QUIC's idle timeout is 10 s.
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "after {:?}",
        asked.elapsed()
    );
    stopped.await.expect("stopped");
}

/// libp2p's ping answers the second ping only when the answering side pings by itself, here after 15 s.
#[tokio::test]
async fn every_ping_of_a_peer_over_quic_is_answered_when_it_comes() {
    let relay = start(config(free_port())).await;
    let often = ping::Config::new().with_interval(Duration::from_millis(10));
    let mut swarm = peer::swarm_with(Keypair::generate_ed25519(), often);
    swarm.dial(relay.quic().clone()).expect("an address");
    let mut answered = 0;
    until(&mut swarm, |event| {
        if let SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { result: Ok(_), .. })) =
            event
        {
            answered += 1;
        }
        (answered == 10).then_some(())
    })
    .await;
    relay.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_not_allowed_gets_nothing() {
    let mut config = config(free_port());
    config.access.allow = vec![PeerId::random()];
    let relay = start(config).await;
    let mut stranger = peer::swarm(Keypair::generate_ed25519());
    stranger
        .listen_on(relay.quic().clone().with(Protocol::P2pCircuit))
        .expect("a circuit address");
    let reserved = until(&mut stranger, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Relay(_)) => Some(true),
        SwarmEvent::ListenerClosed { .. } => Some(false),
        _ => None,
    })
    .await;
    assert!(!reserved);
    relay.stop().await;
}

#[tokio::test]
async fn a_wildcard_listener_serves_without_an_external_address_being_given() {
    let port = free_port();
    let mut config = config(port);
    config.listen.addrs = vec![
        format!("/ip4/0.0.0.0/udp/{port}/quic-v1")
            .parse()
            .expect("a multiaddr"),
    ];
    let relay = start(config).await;
    let loopback = format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{}", relay.peer);
    reserve(relay.peer, &loopback.parse().expect("a multiaddr")).await;
    relay.stop().await;
}

#[tokio::test]
async fn an_occupied_port_is_an_error_that_names_the_address() {
    let port = free_port();
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("free");
    let error = refused(&config(port)).await;
    assert!(
        error.contains(&format!("/ip4/127.0.0.1/udp/{port}/quic-v1")) && error.contains("in use"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
    drop(held);

    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("free");
    let error = refused(&config(port)).await;
    assert!(
        error.contains(&format!("/ip4/127.0.0.1/tcp/{port}")) && error.contains("in use"),
        "{error}"
    );
    drop(held);
}

#[tokio::test]
async fn two_relays_cannot_share_a_tcp_port() {
    let mut config = config(free_port());
    config.listen.addrs.remove(0);
    let first = start(config.clone()).await;
    let error = refused(&config).await;
    assert!(error.contains("in use"), "{error}");
    first.stop().await;
}

/// Why a relay with that configuration does not start.
async fn refused(config: &Config) -> String {
    let key = Keypair::generate_ed25519();
    let error = relay_node::run(&key, config, Format::Text, std::future::pending())
        .await
        .expect_err("refused");
    error.to_string()
}
