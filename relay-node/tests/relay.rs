//! A relay on loopback and plain libp2p peers.

#![allow(missing_docs, unreachable_pub, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod harness;
mod peer;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use harness::{Relay, config, free_port, get, reserve, start};
use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol, ping, swarm::SwarmEvent};
use peer::{BehaviourEvent, until, until_with};
use relay_node::{Config, Format};

/// More than libp2p's default relay lets through (128 KiB).
const BYTES: usize = 1024 * 1024;

async fn carries(listener_over: fn(&Relay) -> &Multiaddr, dialer_over: fn(&Relay) -> &Multiaddr) {
    let relay = start(config(free_port())).await;
    let (mut listener, _) = reserve(relay.peer, listener_over(&relay)).await;
    let destination = *listener.local_peer_id();
    let circuit = dialer_over(&relay)
        .clone()
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(destination));

    let mut dialer = peer::swarm(Keypair::generate_ed25519());
    dialer.dial(circuit).expect("a circuit address");
    until_with(&mut dialer, &mut listener, |event| match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } => {
            (*peer_id == destination).then_some(())
        }
        _ => None,
    })
    .await;
    dialer.behaviour_mut().transfer.send(destination, BYTES);
    let received = until_with(&mut listener, &mut dialer, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Transfer(bytes)) => Some(*bytes),
        _ => None,
    })
    .await;
    assert_eq!(received, BYTES);
    relay.stop().await;
}

#[tokio::test]
async fn a_circuit_over_quic_carries_more_than_the_defaults_of_libp2p() {
    carries(Relay::quic, Relay::quic).await;
}

#[tokio::test]
async fn a_circuit_over_tcp_carries_more_than_the_defaults_of_libp2p() {
    carries(Relay::tcp, Relay::tcp).await;
}

#[tokio::test]
async fn a_circuit_may_cross_from_tcp_to_quic() {
    carries(Relay::quic, Relay::tcp).await;
}

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
async fn probes_and_metrics_tell_what_the_relay_does() {
    let mut config = config(free_port());
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    config.admin = Some(admin);
    let relay = start(config).await;
    let (_swarm, _) = reserve(relay.peer, relay.quic()).await;
    let ready = get(admin, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let metrics = get(admin, "/metrics").await;
    assert!(metrics.contains("relay_reservations 1\n"), "{metrics}");
    relay.stop().await;
}

#[tokio::test]
async fn a_peer_has_as_many_circuits_as_its_limit_says_and_no_more() {
    let mut config = config(free_port());
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    config.admin = Some(admin);
    config.limits.circuits_per_peer = 1;
    let relay = start(config).await;
    let (mut first, one) = reserve(relay.peer, relay.quic()).await;
    let (_second, two) = reserve(relay.peer, relay.quic()).await;

    let mut dialer = peer::swarm(Keypair::generate_ed25519());
    dialer.dial(one).expect("a circuit address");
    let destination = *first.local_peer_id();
    until_with(&mut dialer, &mut first, |event| match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } => {
            (*peer_id == destination).then_some(())
        }
        _ => None,
    })
    .await;
    dialer.dial(two).expect("a circuit address");
    until_with(&mut dialer, &mut first, |event| match event {
        SwarmEvent::OutgoingConnectionError { .. } => Some(()),
        _ => None,
    })
    .await;
    let metrics = get(admin, "/metrics").await;
    assert!(metrics.contains("relay_circuits 1\n"), "{metrics}");
    assert!(
        metrics.contains("relay_denied_total{reason=\"circuit_limit\"} 1\n"),
        "{metrics}"
    );
    relay.stop().await;
}

#[tokio::test]
async fn a_circuit_to_a_peer_without_reservation_is_denied_and_counted() {
    let mut config = config(free_port());
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    config.admin = Some(admin);
    let relay = start(config).await;
    let mut dialer = peer::swarm(Keypair::generate_ed25519());
    let nobody = relay
        .quic()
        .clone()
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(PeerId::random()));
    dialer.dial(nobody).expect("a circuit address");
    until(&mut dialer, |event| match event {
        SwarmEvent::OutgoingConnectionError { .. } => Some(()),
        _ => None,
    })
    .await;
    let metrics = get(admin, "/metrics").await;
    assert!(
        metrics.contains("relay_denied_total{reason=\"no_reservation\"} 1\n"),
        "{metrics}"
    );
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
