//! A relay that reads its configuration again while it runs.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod harness;
mod peer;
mod process;

use harness::{get, reserve};
use libp2p::{PeerId, swarm::SwarmEvent};
use peer::{Behaviour, until};
use process::Home;

async fn is_disconnected(swarm: &mut libp2p::Swarm<Behaviour>) {
    until(swarm, |event| match event {
        SwarmEvent::ConnectionClosed {
            num_established: 0, ..
        } => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn what_access_allows_changes_while_the_relay_runs_and_a_wrong_file_changes_nothing() {
    let home = Home::new();
    home.configure("");
    let mut relay = home.start().await;
    let (mut first, _) = reserve(home.peer(), &home.addr("quic")).await;
    let (mut second, _) = reserve(home.peer(), &home.addr("tcp")).await;
    let kept = *first.local_peer_id();

    // The relay reports every fault, and the old rules hold.
    home.configure("access: { allow: [nobody] }\nlimits: { circuits: -1 }\n");
    relay.signal("-HUP").await;
    relay.logs(&["relay.yaml:", "access.allow", "nobody"]).await;
    relay.logs(&["limits.circuits"]).await;
    relay.logs(&["the old rules hold"]).await;
    assert_eq!(home.status().await["reservations"], 2);

    // The file alone is enough; who is not named any more is let go of at once, and keys that need a restart are named.
    home.configure(&format!(
        "access: {{ allow: [{kept}] }}\nlimits: {{ circuits: 7 }}\n"
    ));
    is_disconnected(&mut second).await;
    relay
        .logs(&["rules of access", "allowed=1", "disconnected=1"])
        .await;
    relay.logs(&["limits.circuits", "restart"]).await;
    let status = home.status().await;
    assert_eq!(status["reservations"], 1, "{status}");
    assert_eq!(status["access"]["open"], false, "{status}");
    assert_eq!(status["limits"]["circuits"], 4096, "{status}");

    // An empty file is no permission for everybody.
    home.write("relay.yaml", "");
    relay.signal("-HUP").await;
    relay.logs(&["relay.yaml: is empty"]).await;
    assert_eq!(home.status().await["access"]["open"], false);

    // Neither is one that is cut short.
    home.configure("access:\n");
    relay.signal("-HUP").await;
    relay.logs(&["access.allow", "would open the relay"]).await;
    assert_eq!(home.status().await["access"]["open"], false);

    home.configure(&format!("access: {{ allow: [{}] }}\n", PeerId::random()));
    relay.signal("-HUP").await;
    is_disconnected(&mut first).await;
    let metrics = get(home.admin, "/metrics").await;
    // How often depends on whether a change was seen before its signal.
    for name in ["refused", "applied"] {
        let line = format!("relay_reloads_total{{outcome=\"{name}\"}} ");
        let count = metrics.lines().find_map(|known| known.strip_prefix(&line));
        let count = count.and_then(|count| count.parse().ok());
        assert!(count >= Some(2), "{line} is not in\n{metrics}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn above_its_memory_a_relay_keeps_what_it_has_and_takes_no_more() {
    let home = Home::new();
    home.configure("limits: { memory: 1 KiB }\n");
    let relay = home.start().await;
    let mut stranger = peer::swarm(libp2p::identity::Keypair::generate_ed25519());
    stranger.dial(home.addr("tcp")).expect("an address");
    until(&mut stranger, |event| match event {
        SwarmEvent::OutgoingConnectionError { .. } => Some(()),
        _ => None,
    })
    .await;
    let status = home.status().await;
    assert_eq!(status["denied"]["memory"], 1, "{status}");
    relay.stop().await;
}
