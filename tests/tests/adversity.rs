//! Networks that misbehave while nodes run in them: each ends direct, and the records say what happened.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{PATIENCE, Transport},
    faults::Traffic,
    nat::NatKind,
    running::{Node, Running},
};

p2pnode_tests::lab_tests!();

/// How late the candidates are.
const LATE: Duration = Duration::from_secs(3);

/// UDP to the relay is blocked at first on one side, so that it has no candidate that may be punched until 3 s after the
/// circuit.
async fn late(name: &str, late_side: char) -> Result<()> {
    let running = Running::new(name, NatKind::EimApdf, NatKind::EimApdfRewrite);
    let prepared = running
        .prepare()
        .await?
        .a_env("P2PNODE_PUNCH_DENY", "0.0.0.0/0 tcp")
        .b_env("P2PNODE_PUNCH_DENY", "0.0.0.0/0 tcp");
    let site = match late_side {
        'a' => &prepared.a.site,
        _ => &prepared.b.site,
    };
    let relay = prepared.relay.host.ip(false)?;
    site.cut(&[Traffic::Udp(relay)]).await?;
    let both = prepared.start().await?;
    let dial = both.a.control.dial("a-dial", &both.b.id);
    let dial = dial.start(&both.a.host.device, both.lab.artifacts())?;
    let connected = dial.event("connected", PATIENCE).await?;
    ensure!(connected.path_kind() == "relayed", "{}", connected.line);
    tokio::time::sleep_until((connected.at + LATE).into()).await;
    let side = match late_side {
        'a' => &both.a_side,
        _ => &both.b_side,
    };
    side.site.mend().await?;
    for (node, peer) in [(&both.a, &both.b), (&both.b, &both.a)] {
        node.direct(&both.lab, &peer.id, PATIENCE).await?;
    }
    both.punched().await?;
    let late = match late_side {
        'a' => both.a.last_punch(&both.b.id).await?,
        _ => both.b.last_punch(&both.a.id).await?,
    };
    let sent = late["sent"].to_string();
    let outside = side.site.outside_ip4().context("an address")?;
    ensure!(
        sent.contains(&format!("{outside}/udp/")) && !sent.contains("/tcp/"),
        "offered at last: {sent}"
    );
    if late_side == 'a' {
        // B had something to offer from the start, and heard of nothing.
        let first = &both.b.punches(&both.a.id)[0];
        ensure!(
            first.text("/reason") == "no_remote_candidates",
            "{}",
            first.line
        );
    }
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn candidates_that_the_dialer_learns_3_s_late_are_punched_then() -> Result<()> {
    late("late-dialer", 'a').await
}

#[tokio::test]
async fn candidates_that_the_dialed_learns_3_s_late_are_punched_then() -> Result<()> {
    late("late-dialed", 'b').await
}

#[tokio::test]
async fn a_nat_that_forgets_its_flows_and_maps_them_alike_interrupts_nothing() -> Result<()> {
    let both = Running::new("forgotten-alike", NatKind::EimApdf, NatKind::EimApdfRewrite)
        .transports(&[Transport::Quic])
        .start()
        .await?;
    both.dial().await?;
    both.settled(PATIENCE).await?;
    let seen = both.a.process.events().len();
    both.a_side.site.forget_flows()?;
    // Longer than a QUIC connection lives whose packets are lost.
    let dial = both.a.control.dial("a-pings", &both.b.id);
    let mut dial = dial
        .args(["--count", "3"])
        .start(&both.a.host.device, both.lab.artifacts())?;
    let events = both.ends_direct(&mut dial).await?;
    ensure!(
        events
            .iter()
            .filter(|event| event.name() == "ping")
            .all(|event| event.text("/kind") == "direct"),
        "a ping went over the relay"
    );
    let lost = both.a.process.events().into_iter().skip(seen);
    let lost: Vec<_> = lost
        .filter(|event| event.name() == "disconnected" && event.text("/kind") == "direct")
        .map(|event| event.line)
        .collect();
    ensure!(lost.is_empty(), "{lost:?}");
    both.verify_sockets().await?;
    both.lab.succeeded();
    Ok(())
}

/// The relay dies while both sides dial: the way between them is closed until it is dead.
#[tokio::test]
async fn a_relay_that_dies_while_both_dial_does_not_stop_the_punch() -> Result<()> {
    let mut both = Running::new(
        "relay-dies-dialing",
        NatKind::EimApdf,
        NatKind::EimApdfRewrite,
    )
    .transports(&[Transport::Quic])
    .start()
    .await?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    both.a_side.site.cut(&[Traffic::With(b_outside)]).await?;
    let dial = both.a.control.dial("a-dial", &both.b.id);
    let mut dial = dial.start(&both.a.host.device, both.lab.artifacts())?;
    // Each side has sent a packet to the other: both dial.
    for (side, far) in [(&both.a_side, &both.b_side), (&both.b_side, &both.a_side)] {
        let far = far.site.outside_ip4().context("an address")?;
        let towards = |packet: &p2pnode_tests::packet::Packet| packet.destination.ip() == far;
        side.home().until("a punch", PATIENCE, towards).await?;
    }
    both.relay.process.kill().await?;
    both.a_side.site.mend().await?;
    both.ends_direct(&mut dial).await?;
    both.punched().await?;
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn two_nodes_that_dial_each_other_at_once_share_one_direct_connection() -> Result<()> {
    let both = Running::new("both-dial", NatKind::EimApdf, NatKind::EimApdfRewrite)
        .start()
        .await?;
    let dial = |name: &str, from: &Node, to: &Node| {
        let dial = from.control.dial(name, &to.id);
        dial.start(&from.host.device, both.lab.artifacts())
    };
    let mut from_a = dial("a-dial", &both.a, &both.b)?;
    let mut from_b = dial("b-dial", &both.b, &both.a)?;
    both.ends_direct(&mut from_a).await?;
    both.ends_direct(&mut from_b).await?;
    both.punched().await?;
    both.lab.succeeded();
    Ok(())
}
