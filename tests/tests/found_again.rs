//! What led to a peer is gone and comes back: a dial finds the peer again within 10 s, its own `--timeout`.

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{PATIENCE, Transport, reserved},
    faults::Traffic,
    nat::NatKind,
    node::Process,
    running::{Both, Node, Running},
};

p2pnode_tests::lab_tests!();

/// What is promised, from the return of what was gone.
const WITHIN: &str = "10s";

async fn found(both: &Both, name: &str) -> Result<()> {
    let dial = both.a.control.dial_within(name, &both.b.id, WITHIN);
    let mut dial: Process = dial.start(&both.a.host.device, both.lab.artifacts())?;
    let status = dial.exit(PATIENCE).await?;
    let events = dial.events();
    let result = events.iter().find(|event| event.name() == "result");
    let result = result.context("there is no result")?;
    ensure!(
        status.code() == Some(0) && result.text("/outcome") == "direct",
        "{status}: {}; {}",
        result.line,
        both.a.process.log()
    );
    Ok(())
}

/// The relay is cut off, dies unheard, and comes back: neither node was told, nor the new relay that the old one had
/// reservations.
async fn relay_vanishes(name: &str, transport: Transport) -> Result<()> {
    let mut both = Running::new(name, NatKind::EimApdf, NatKind::EimApdfRewrite)
        .transports(&[transport])
        .start()
        .await?;
    let relay = [Traffic::With(both.relay.host.ip(false)?)];
    for side in [&both.a_side, &both.b_side] {
        side.site.cut(&relay).await?;
    }
    both.relay.process.kill().await?;
    for side in [&both.a_side, &both.b_side] {
        side.site.mend().await?;
    }
    both.relay.restart(&both.lab, &both.bins).await?;
    found(&both, "a-dial").await?;
    for side in [&both.a_side, &both.b_side] {
        side.settle().await?;
        let strays = side.strays();
        ensure!(strays.is_empty(), "{strays:?}");
    }
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_peer_is_found_again_after_its_quic_relay_has_vanished_without_a_word() -> Result<()> {
    relay_vanishes("found-again-quic", Transport::Quic).await
}

#[tokio::test]
async fn a_peer_is_found_again_after_its_tcp_relay_has_vanished_without_a_word() -> Result<()> {
    relay_vanishes("found-again-tcp", Transport::Tcp).await
}

#[tokio::test]
async fn a_peer_that_was_killed_is_found_again_and_its_record_is_newer_than_the_one_it_left()
-> Result<()> {
    let mut both = Running::new(
        "found-again-peer",
        NatKind::EimApdf,
        NatKind::EimApdfRewrite,
    )
    .prepare()
    .await?
    .b_env("P2PNODE_LOG_LEVEL", "debug")
    .start()
    .await?;
    // The record comes after the reservation.
    both.b.process.logged("arrived=true", PATIENCE).await?;
    both.b.process.kill().await?;
    let args = p2pnode_tests::args::NodeArgs::new(&both.relay, &both.b.host, &Transport::ALL);
    // By its name it has the key of the one before.
    let again = args
        .run(&both.lab, &both.bins, "b")
        .env("P2PNODE_LOG_LEVEL", "debug");
    let id = both.b.id.clone();
    both.b = Node::start(&both.lab, &both.bins, &both.b.host.clone(), again).await?;
    ensure!(both.b.id == id, "it came back as {}", both.b.id);
    reserved(&both.b.process).await?;
    found(&both, "a-dial").await?;
    // What the relay keeps of the run before is asked for first, so that a clock that was set back does no harm.
    let asked = "found this node's own record of an earlier run";
    both.b.process.logged(asked, PATIENCE).await?;
    both.b.process.logged("arrived=true", PATIENCE).await?;
    both.lab.succeeded();
    Ok(())
}
