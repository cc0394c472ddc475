//! A receiver that does not read: what is meant for it waits in the program that sends, and neither side's memory grows with it.

use std::time::Duration;

use p2pnode_tests::{
    prelude::*,
    transfer::{Engine, Route},
    usage,
};

lab_tests! {
    a_sender_over_quic_to_one_that_does_not_read_stops_and_neither_grows: stays_bounded(Transport::Quic);
    a_sender_over_tcp_to_one_that_does_not_read_stops_and_neither_grows: stays_bounded(Transport::Tcp);
}

/// Over one connection: each stream has a window of its own.
const STREAMS: u16 = 8;

/// What the sender wants to send, much more than what may be on its way. What was taken of it stays below the bound, or is in
/// somebody's memory.
const BYTES: u64 = 1 << 30;

/// What each side may keep of a connection: windows that carry 2.5 Gbit/s at 200 ms, and the buffers about them.
const MOST_KIB: u64 = 128 << 10;
const WITHIN: Duration = Duration::from_secs(120);

async fn stays_bounded(transport: Transport) -> Result<()> {
    let lab = Lab::of_test().await?;
    let (_site, from) = lab.home("a", NatKind::None).await?;
    let to = lab.public_host("host-b").await?;
    let route = Route {
        from: &from,
        to: &to,
        engine: Engine::Ours,
        transport,
    };
    let (receiver, address) = route.receive("receive", &["--unread"]).await?;
    let stalls = ["--until-stalled"];
    let mut sender = route
        .open("send", &address, BYTES, STREAMS, &stalls)
        .await?;
    let pids = [sender.pid(), receiver.pid()];
    let before = [usage::memory(pids[0])?, usage::memory(pids[1])?];
    sender.tell("go").await?;
    let stalled = sender.event("stalled", WITHIN).await?;
    let taken = stalled.json["bytes"]
        .as_u64()
        .context("no number of bytes")?;
    ensure!(
        (1..MOST_KIB << 10).contains(&taken),
        "{taken} bytes were taken for a receiver that does not read"
    );
    for (pid, before) in pids.into_iter().zip(before) {
        let now = usage::memory(pid)?;
        ensure!(
            now < before + MOST_KIB,
            "grown from {before} to {now} KiB: {pids:?}"
        );
    }
    Ok(())
}
