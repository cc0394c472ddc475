//! A relay goes and comes back: reservations follow it, direct connections do not notice.

use std::time::{Duration, Instant};

use p2pnode_tests::prelude::*;

lab_tests! {
    a_quic_relay_that_was_missed_is_reserved_on_again_within_5_s_of_its_return: restarts(Transport::Quic, true);
    a_tcp_relay_that_was_missed_is_reserved_on_again_within_5_s_of_its_return: restarts(Transport::Tcp, true);
    a_quic_relay_that_restarts_at_once_is_reserved_on_again_within_5_s: restarts(Transport::Quic, false);
    a_tcp_relay_that_restarts_at_once_is_reserved_on_again_within_5_s: restarts(Transport::Tcp, false);
}

/// What the node promises, from the relay's return to the reservation.
const BACK_WITHIN: Duration = Duration::from_secs(5);

async fn pings(dial: &Process) -> Result<()> {
    let seen = dial.events().len();
    let ping = dial.event_after(seen, "ping", PATIENCE).await?;
    ping.has(&json!({"kind": "direct"}))
}

async fn restarts(transport: Transport, missed: bool) -> Result<()> {
    let pair = Pair::of_test(NatKind::EimApdf, NatKind::EimApdfRewrite);
    let mut peers = pair.over(&[transport]).start().await?;
    // More pings than any of these tests lasts.
    let dial = peers.start_dial("a", 1000)?;
    pings(&dial).await?;
    let mut seen = peers.b_node.seen();
    peers.relay.process.kill().await?;
    if missed {
        let process = &peers.b_node.process;
        let lost = process.event("reservation_lost", PATIENCE).await?;
        // The kernel of a process that is killed ends its TCP connections, and says nothing over QUIC.
        let cause = match transport {
            Transport::Quic => "silent",
            Transport::Tcp => "broken",
        };
        lost.has(&json!({"cause": cause}))?;
        pings(&dial).await?;
        seen = peers.b_node.seen();
    }
    peers.relay.restart().await?;
    let returned = Instant::now();
    let reserved = peers
        .b_node
        .process
        .event_after(seen, "reserved", PATIENCE)
        .await?;
    let took = reserved.at.saturating_duration_since(returned);
    ensure!(
        took <= BACK_WITHIN,
        "the reservation came back {took:?} after the relay"
    );
    pings(&dial).await?;
    let direct = |event: &&Event| event.path_kind() == "direct" || event.text("/kind") == "direct";
    for (process, relay) in [
        (&dial, &peers.relay.id),
        (&peers.b_node.process, &peers.relay.id),
    ] {
        let events = process.events();
        let to_peer = events
            .iter()
            .filter(|event| event.text("/peer") != relay)
            .filter(direct);
        let count = |name: &str| to_peer.clone().filter(|event| event.name() == name).count();
        // Of two direct connections that a punch made one is closed; the one that is left carries the pings.
        let (opened, closed) = (count("connected"), count("disconnected"));
        ensure!(
            closed == 0 || opened > closed,
            "{} lost its path",
            process.name()
        );
    }
    peers.verify_range().await
}
