//! `relay-node status` of a relay that runs.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod harness;
mod peer;
mod process;

use std::{os::unix::fs::PermissionsExt as _, process::Stdio};

use harness::reserve;
use libp2p::{identity::Keypair, swarm::SwarmEvent};
use peer::until_with;
use process::{Home, PATIENCE};
use serde_json::Value as Json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::timeout,
};

#[tokio::test]
async fn a_relay_tells_what_it_holds_carries_and_denies_and_how_far_its_drain_is() {
    let home = Home::new();
    home.configure("limits: { reservations: 1, circuit_bytes: 1GiB, circuit_duration: 2h }\ndrain: { timeout: 10m }\n");
    let mut relay = home.start().await;
    let socket = home.path("control.sock").metadata().expect("a socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);

    let (mut holder, circuit) = reserve(home.peer(), &home.addr("quic")).await;
    let mut dialer = peer::swarm(Keypair::generate_ed25519());
    dialer.dial(circuit).expect("a circuit address");
    let id = *holder.local_peer_id();
    until_with(&mut dialer, &mut holder, |event| match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } => (*peer_id == id).then_some(()),
        _ => None,
    })
    .await;
    let status = home.status().await;
    let expect = |pointer: &str, value: Json| {
        assert_eq!(
            status.pointer(pointer),
            Some(&value),
            "{pointer} of {status}"
        );
    };
    expect("/peer_id", home.peer().to_string().into());
    expect(
        "/listen/0",
        format!("/ip4/127.0.0.1/tcp/{}", home.port).into(),
    );
    expect("/connections", 2.into());
    expect("/connections_by/quic~1ip4", 2.into());
    expect("/peers", 2.into());
    expect("/reservations", 1.into());
    expect("/reservations_by/quic~1ip4", 1.into());
    expect("/circuits", 1.into());
    expect("/circuits_closed", 0.into());
    expect("/draining", false.into());
    expect("/drain", Json::Null);
    expect("/limits/reservations", 1.into());
    expect("/limits/circuit_bytes", (1_u64 << 30).into());
    expect("/limits/circuit_duration", 7200.into());
    assert!(status["memory_bytes"].as_u64().is_some(), "{status}");
    assert!(status["uptime_s"].as_u64().is_some(), "{status}");
    assert!(!status.to_string().contains(&id.to_string()), "{status}");
    let text = home.output(&["status"]).await;
    assert!(!text.contains('\x1b'), "{text}");
    // How wide the columns are depends on what stands in them.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = text.lines().map(words).collect();
    for line in [
        "state serving",
        "reservations 1 1 quic/ip4 1",
        "circuits 1 4096 0 closed",
    ] {
        assert!(
            lines.iter().any(|known| known == line),
            "{line} is not in\n{text}"
        );
    }

    // A pipe has everything that was, a line each.
    let watch = home
        .command(&["status", "--json", "--watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut watch = watch.expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    relay.signal("-TERM").await;
    relay.logs(&["draining"]).await;
    let drained = async {
        loop {
            let line = lines.next_line().await.expect("stdout").expect("a line");
            let status: Json = serde_json::from_str(&line).expect("an object");
            if status["draining"] == true {
                return status;
            }
        }
    };
    let status = timeout(PATIENCE, drained).await.expect("in time");
    assert_eq!(status["drain"]["circuits_left"], 1, "{status}");
    assert_eq!(status["drain"]["reservations_left"], 1, "{status}");
    let left = status["drain"]["seconds_left"].as_u64().expect("seconds");
    assert!((1..=600).contains(&left), "{status}");
    drop((dialer, holder));
    relay.logs(&["closing"]).await;
    // Without a relay it waits for the next one.
    let mut errors = BufReader::new(watch.stderr.take().expect("a pipe")).lines();
    let gone = timeout(PATIENCE, errors.next_line())
        .await
        .expect("in time");
    let gone = gone.expect("stderr").expect("a line");
    assert!(
        gone.contains("the relay") || gone.contains("no relay"),
        "{gone}"
    );
    assert!(watch.try_wait().expect("it runs").is_none());
}
