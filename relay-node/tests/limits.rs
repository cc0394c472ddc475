//! What a relay refuses when it is full, and when it drains; what it does not.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod harness;
mod peer;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use harness::{config, free_port, get, reserve, start};
use libp2p::{Multiaddr, Swarm, identity::Keypair, multiaddr::Protocol, relay, swarm::SwarmEvent};
use p2pnode_protocol::draining::Draining;
use peer::{Behaviour, BehaviourEvent, until, until_with};
use relay_node::Config;

fn with_admin() -> (Config, SocketAddr) {
    let mut config = config(free_port());
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    config.admin = Some(admin);
    (config, admin)
}

/// Asks for a reservation at `address`, which is not granted.
async fn is_refused(address: &Multiaddr) {
    let mut swarm = peer::swarm(Keypair::generate_ed25519());
    swarm
        .listen_on(address.clone().with(Protocol::P2pCircuit))
        .expect("a circuit address");
    let granted = until(&mut swarm, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Relay(_)) => Some(true),
        SwarmEvent::ListenerClosed { .. } => Some(false),
        _ => None,
    })
    .await;
    assert!(!granted, "granted");
}

async fn renewed(swarm: &mut Swarm<Behaviour>) {
    until(swarm, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Relay(
            relay::client::Event::ReservationReqAccepted { renewal: true, .. },
        )) => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_full_source_renews_and_gets_nothing_new() {
    let (mut config, admin) = with_admin();
    // Renewed after three seconds.
    config.limits.reservation_duration = Duration::from_secs(4);
    config.limits.reservations_per_source.ip4 = 1;
    let relay = start(config).await;
    let (mut holder, _) = reserve(relay.peer, relay.quic()).await;
    is_refused(relay.tcp()).await;
    renewed(&mut holder).await;
    let metrics = get(admin, "/metrics").await;
    assert!(metrics.contains("relay_reservations 1\n"), "{metrics}");
    let denied = "relay_denied_total{reason=\"source_reservation_limit\"} 1\n";
    assert!(metrics.contains(denied), "{metrics}");
    relay.stop().await;
}

#[tokio::test]
async fn a_source_and_a_relay_have_as_many_connections_as_their_limits_say_and_no_more() {
    type Set = fn(&mut Config);
    let limits: [(Set, &str); 2] = [
        (
            |config| config.limits.connections_per_source.ip4 = 1,
            "source_connection_limit",
        ),
        (|config| config.limits.connections = 1, "connection_limit"),
    ];
    for (limit, reason) in limits {
        let (mut config, admin) = with_admin();
        limit(&mut config);
        let relay = start(config).await;
        let (_holder, _) = reserve(relay.peer, relay.quic()).await;
        for address in [relay.quic(), relay.tcp()] {
            let mut other = peer::swarm(Keypair::generate_ed25519());
            other.dial(address.clone()).expect("an address");
            // Over QUIC the handshake ends on this side before the relay refuses.
            until(&mut other, |event| match event {
                SwarmEvent::OutgoingConnectionError { .. }
                | SwarmEvent::ConnectionClosed { .. } => Some(()),
                _ => None,
            })
            .await;
        }
        let metrics = get(admin, "/metrics").await;
        let denied = format!("relay_denied_total{{reason=\"{reason}\"}} 2\n");
        assert!(metrics.contains(&denied), "{metrics}");
        assert!(metrics.contains("relay_reservations 1\n"), "{metrics}");
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_relay_that_drains_says_so_refuses_everything_and_ends() {
    let (mut config, admin) = with_admin();
    config.drain_timeout = Duration::from_secs(30);
    let relay = start(config).await;
    let (mut holder, circuit) = reserve(relay.peer, relay.quic()).await;
    let (id, quic, tcp) = (relay.peer, relay.quic().clone(), relay.tcp().clone());
    let ready = get(admin, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let ended = relay.ask_to_end();
    until(&mut holder, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Draining(Draining { peer, .. })) => {
            (*peer == id).then_some(())
        }
        _ => None,
    })
    .await;
    let ready = get(admin, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.contains("\ndraining: "), "{ready}");
    is_refused(&quic).await;
    is_refused(&tcp).await;
    let mut dialer = peer::swarm(Keypair::generate_ed25519());
    dialer.dial(circuit).expect("a circuit address");
    let refusal = until_with(&mut dialer, &mut holder, |event| match event {
        SwarmEvent::OutgoingConnectionError { error, .. } => Some(format!("{error:?}")),
        _ => None,
    })
    .await;
    assert!(refusal.contains("ResourceLimitExceeded"), "{refusal}");
    let metrics = get(admin, "/metrics").await;
    for line in [
        "relay_draining 1\n",
        "relay_denied_total{reason=\"draining\"} 3\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    ended.await.expect("no panic").expect("a clean end");
}
