//! A wall clock that is set while a process runs: what was granted for a time stays or ends as it must, and a peer is found again.

use std::fs;

use anyhow::{Result, ensure};
use p2pnode_tests::{
    admin::{self, ADMIN},
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::{Bins, bins},
    clock::Clock,
    lab::{Host, Lab},
    node::Process,
    relay::Relay,
};
use tokio::process::Command;

p2pnode_tests::lab_tests!();

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A new peer finds it by its id within 10 s.
async fn finds(
    lab: &Lab,
    bins: &Bins,
    relay: &Relay,
    host: &Host,
    name: &str,
    peer: &str,
) -> Result<()> {
    let mut dial = NodeArgs::new(relay, host, &[Transport::Quic])
        .dial_within(bins, name, peer, "10s")
        .args(["--until", "connected", "--count", "1"])
        .start(&host.device, lab.artifacts())?;
    let status = dial.exit(PATIENCE).await?;
    ensure!(status.code() == Some(0), "{name}: {status}: {}", dial.log());
    Ok(())
}

async fn printed(program: &std::path::Path, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().await?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{args:?}: {error}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[tokio::test]
async fn a_token_ends_by_the_clock_of_its_relay_and_is_good_again_when_that_is_put_right()
-> Result<()> {
    let (bins, lab) = (bins()?, Lab::new("clock-of-relay").await?);
    let clock = Clock::new(lab.artifacts()).await?;
    let [library, offset] = clock.env()?;
    let env = [
        library,
        offset,
        ("RELAY_NODE_ACCESS_TOKENS", "true"),
        ("RELAY_NODE_ADMIN_LISTEN", ADMIN),
    ];
    let relay = Relay::start_with(&lab, &bins, "relay", &env).await?;
    let host = lab.public_host("host").await?;
    let [relay_key, node_key] = ["relay", "node"].map(|name| {
        let key = lab.artifacts().file(&format!("{name}.key"));
        key.to_string_lossy().into_owned()
    });
    let peer = printed(&bins.p2pnode, &["id", "--key", &node_key]).await?;
    let create = ["token", "create", "--peer", &peer, "--expires", "1h"];
    let create = [&create[..], &["--key", &relay_key]].concat();
    let tokens = lab.artifacts().file("tokens");
    fs::write(&tokens, printed(&bins.relay_node, &create).await?)?;
    let node = NodeArgs::new(&relay, &host, &[Transport::Quic])
        .run(&lab, &bins, "node")
        .env("P2PNODE_JOIN_TOKEN_FILE", &tokens)
        .start(&host.device, lab.artifacts())?;
    reserved(&node).await?;

    clock.set(2 * HOUR)?;
    node.event("reservation_lost", PATIENCE).await?;
    let refused = node.event("relay_refused", PATIENCE).await?;
    let reason = refused.text("/reason");
    for part in ["by the relay's clock", "set the clocks right"] {
        ensure!(reason.contains(part), "{part}: {reason}");
    }
    let metrics = admin::metrics(&relay.host).await?;
    for gone in ["relay_reservations", "relay_records"] {
        ensure!(metrics.sum(gone, &[]) == 0.0, "{gone}");
    }
    let seen = node.events().len();
    clock.set(0)?;
    node.event_after(seen, "reserved", PATIENCE * 2).await?;
    lab.succeeded();
    Ok(())
}

/// What a node says that has no reservation because its clock is wrong.
async fn is_told_of_its_clock(node: &Process) -> Result<()> {
    node.logged("Invalid expiration timestamp", PATIENCE * 2)
        .await
}

#[tokio::test]
async fn a_node_whose_clock_jumps_keeps_its_reservation_and_is_found_again_after_a_restart_of_its_relay()
-> Result<()> {
    let (bins, lab) = (bins()?, Lab::new("clock-of-node").await?);
    let clock = Clock::new(lab.artifacts()).await?;
    let mut relay = Relay::start(&lab, &bins, "relay").await?;
    let (host, other) = (
        lab.public_host("host").await?,
        lab.public_host("other").await?,
    );
    let node = NodeArgs::new(&relay, &host, &[Transport::Quic])
        .run(&lab, &bins, "node")
        // With one leg the end of the relay is the end of the reservation; two are missed one after the other.
        .env("P2PNODE_DIAL_FAMILY", "only-ip4");
    let node = clock
        .env()?
        .into_iter()
        .fold(node, |node, (name, value)| node.env(name, value));
    let node = node.start(&host.device, lab.artifacts())?;
    let id = reserved(&node).await?;

    for (number, jump) in [-DAY, 0].into_iter().enumerate() {
        clock.set(jump)?;
        finds(&lab, &bins, &relay, &other, &format!("still-{number}"), &id).await?;
        let lost = node
            .events()
            .iter()
            .filter(|event| event.name() == "reservation_lost")
            .count();
        ensure!(lost == number, "a reservation does not depend on the clock");
        // All that is asked of a relay when it comes back is asked with the clock as it is.
        let seen = node.events().len();
        relay.process.kill().await?;
        relay.restart(&lab, &bins).await?;
        node.event_after(seen, "reserved", PATIENCE).await?;
        finds(&lab, &bins, &relay, &other, &format!("again-{number}"), &id).await?;
    }

    // Ahead of the relay by more than a reservation lasts, the reservation is over for the node when it comes: it says so, and has
    // one as soon as the clock is right.
    clock.set(DAY)?;
    finds(&lab, &bins, &relay, &other, "ahead", &id).await?;
    let seen = node.events().len();
    relay.process.kill().await?;
    relay.restart(&lab, &bins).await?;
    is_told_of_its_clock(&node).await?;
    clock.set(0)?;
    node.event_after(seen, "reserved", PATIENCE * 2).await?;
    finds(&lab, &bins, &relay, &other, "right", &id).await?;
    lab.succeeded();
    Ok(())
}
