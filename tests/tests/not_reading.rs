//! A receiver that does not read: what is meant for it waits in the program that sends, and neither side's memory grows with it.

#![allow(
    clippy::print_stdout,
    reason = "whoever watches the test wants to see how much it was"
)]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::Transport,
    lab::Lab,
    nat::NatKind,
    transfer::{Engine, Route},
    usage,
};

p2pnode_tests::lab_tests!();

/// Over one connection: each stream has a window of its own.
const STREAMS: u16 = 8;

/// What the sender wants to send, much more than what may be on its way. What was taken of it stays below the bound, or is in
/// somebody's memory.
const BYTES: u64 = 1 << 30;

/// What each side may keep of a connection: windows that carry 2.5 Gbit/s at 200 ms, and the buffers about them.
const MOST_KIB: u64 = 128 << 10;

/// For a sender to find that nothing more is taken, on a machine that does other things too.
const WITHIN: Duration = Duration::from_secs(120);

async fn memory_stays_bounded(transport: Transport) -> Result<()> {
    let lab = Lab::new(&format!("not-reading-{}", transport.name())).await?;
    let site = lab.site("a", NatKind::None).await?;
    let from = lab.host("host-a", &site).await?;
    let to = lab.public_host("host-b").await?;
    let route = Route {
        lab: &lab,
        from: &from,
        to: &to,
        engine: Engine::Ours,
        transport,
    };
    let (receiver, address) = route.receive("receive", &["--unread"]).await?;
    let mut sender = route
        .open("send", &address, BYTES, STREAMS, &["--until-stalled"])
        .await?;
    let sides = [
        ("the sender", sender.pid()),
        ("the receiver", receiver.pid()),
    ];
    let mut before = Vec::new();
    for (_, pid) in sides {
        before.push(usage::memory(pid)?);
    }
    sender.tell("go").await?;
    let ended = sender
        .until("that it has stalled", WITHIN, |events| {
            let mut events = events.iter();
            events
                .find(|event| ["stalled", "accepted"].contains(&event.name()))
                .cloned()
        })
        .await?;
    let taken = ended.json["bytes"].as_u64().context("no number of bytes")?;
    ensure!(taken > 0, "not a byte was taken: {}", ended.line);
    ensure!(
        ended.name() == "stalled" && taken < MOST_KIB << 10,
        "{taken} bytes were taken for a receiver that does not read: {}",
        ended.line
    );
    for ((side, pid), before) in sides.into_iter().zip(before) {
        let now = usage::memory(pid)?;
        ensure!(
            now < before + MOST_KIB,
            "{side} has grown from {before} to {now} KiB with {taken} bytes taken"
        );
        println!("{}: {side}: {before} KiB, then {now}", transport.name());
    }
    lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_sender_over_quic_to_one_who_does_not_read_stops_and_neither_grows() -> Result<()> {
    memory_stays_bounded(Transport::Quic).await
}

#[tokio::test]
async fn a_sender_over_tcp_to_one_who_does_not_read_stops_and_neither_grows() -> Result<()> {
    memory_stays_bounded(Transport::Tcp).await
}
