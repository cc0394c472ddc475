//! Direct paths that are lost: back over a relay, punched again, and the records say what happened.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{PATIENCE, Transport},
    events::Event,
    faults::Traffic,
    nat::NatKind,
    running::{Both, Node, Running, only_direct, sockets},
};
use serde_json::Value;

p2pnode_tests::lab_tests!();

/// A QUIC connection notices after 10 s that its path is gone, a TCP one after two pings of 5 s and their interval; then
/// the way back over the relay and the punch.
const AGAIN: Duration = Duration::from_secs(60);

/// The direct path to `peer` whose remote address is this.
fn direct_with(status: &Value, peer: &str, remote: IpAddr) -> Option<Value> {
    let path = only_direct(status, peer).ok()?;
    let (_, socket) = sockets(&path).ok()?;
    (socket.ip() == remote).then_some(path)
}

async fn new_address(name: &str, transport: Transport) -> Result<()> {
    let mut both = Running::new(name, NatKind::EimApdf, NatKind::EimApdfRewrite)
        .transports(&[transport])
        .start()
        .await?;
    both.dial().await?;
    both.settled(PATIENCE).await?;
    let old = both.a_side.site.outside_ip4();
    let new = both.a_side.site.renumber().await?;
    ensure!(old != Some(new), "the address is still {new}");
    let Both { a, b, lab, .. } = &both;
    let look = |status: &Value| direct_with(status, &a.id, new);
    b.until(lab, "a direct path to the new address", AGAIN, look)
        .await?;
    both.punched().await?;
    let punch = both.a.last_punch(&both.b.id).await?;
    let sent = punch["sent"].to_string();
    ensure!(
        sent.contains(&new.to_string())
            && !old.is_some_and(|old| sent.contains(&format!("{old}/"))),
        "from {old:?} to {new}, and A offered {sent}"
    );
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn when_the_public_address_of_a_nat_changes_the_new_one_is_punched_over_quic() -> Result<()> {
    new_address("renumbered-quic", Transport::Quic).await
}

#[tokio::test]
async fn when_the_public_address_of_a_nat_changes_the_new_one_is_punched_over_tcp() -> Result<()> {
    new_address("renumbered-tcp", Transport::Tcp).await
}

#[tokio::test]
async fn a_nat_that_forgets_its_flows_and_maps_them_anew_is_punched_again() -> Result<()> {
    let both = Running::new("forgotten-anew", NatKind::Symmetric, NatKind::FullCone)
        .transports(&[Transport::Quic])
        .start()
        .await?;
    both.dial().await?;
    both.settled(PATIENCE).await?;
    let remote = |path: &Value| sockets(path).map(|(_, remote)| remote);
    let old = remote(&only_direct(&both.b.control.status().await?, &both.a.id)?)?;
    both.a_side.site.forget_flows()?;
    let Both { a, b, lab, .. } = &both;
    let look = |status: &Value| {
        let path = only_direct(status, &a.id).ok()?;
        (remote(&path).ok()? != old).then_some(())
    };
    b.until(lab, "a direct path to the new mapping", AGAIN, look)
        .await?;
    both.punched().await?;
    both.lab.succeeded();
    Ok(())
}

/// The first punch that `node` tells of after as many events as it had told, that failed and is such a one.
async fn failed_punch(node: &Node, told: usize, is_it: impl Fn(&Event) -> bool) -> Result<Event> {
    let failed = |events: &[Event]| {
        let mut punches = events
            .iter()
            .skip(told)
            .filter(|event| event.name() == "punch");
        punches
            .find(|punch| punch.text("/outcome") == "failed" && is_it(punch))
            .cloned()
    };
    node.process.until("a failed punch", AGAIN, failed).await
}

/// A's site passes everything again, and the two are direct again.
async fn mended(both: Both) -> Result<()> {
    let Both { a, b, lab, .. } = &both;
    both.a_side.site.mend().await?;
    for (node, peer) in [(a, b), (b, a)] {
        node.direct(lab, &peer.id, AGAIN).await?;
    }
    both.punched().await?;
    both.lab.succeeded();
    Ok(())
}

async fn cut(name: &str, transport: Transport) -> Result<()> {
    let both = Running::new(name, NatKind::EimApdf, NatKind::EimApdfRewrite)
        .transports(&[transport])
        .start()
        .await?;
    both.dial().await?;
    both.settled(PATIENCE).await?;
    let Both { a, b, .. } = &both;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    let seen = [a, b].map(|node| node.process.events().len());
    both.a_side.site.cut(&[Traffic::With(b_outside)]).await?;

    for ((node, peer), seen) in [(a, b), (b, a)].into_iter().zip(seen) {
        // The promise: back over a relay within 5 s of the loss.
        let lost = node
            .process
            .event_after(seen, "disconnected", AGAIN)
            .await?;
        ensure!(lost.text("/kind") == "direct", "{}", lost.line);
        let back = |events: &[Event]| {
            let mut events = events.iter().skip(seen);
            events
                .find(|event| event.name() == "connected" && event.text("/peer") == peer.id)
                .cloned()
        };
        let back = node.process.until("the way back", AGAIN, back).await?;
        ensure!(back.path_kind() == "relayed", "{}", back.line);
        let took = back.at.saturating_duration_since(lost.at);
        ensure!(
            took <= Duration::from_secs(5),
            "{} was relayed again {took:?} after the loss",
            node.process.name()
        );
    }
    // It is punched at once, in vain; then the path is back.
    let failed = failed_punch(a, seen[0], |_| true).await?;
    ensure!(failed.text("/reason") == "timeout", "{}", failed.line);
    mended(both).await
}

#[tokio::test]
async fn a_direct_quic_path_that_is_cut_is_relayed_within_5_s_and_punched_when_it_is_back()
-> Result<()> {
    cut("cut-quic", Transport::Quic).await
}

#[tokio::test]
async fn a_direct_tcp_path_that_is_cut_is_relayed_within_5_s_and_punched_when_it_is_back()
-> Result<()> {
    cut("cut-tcp", Transport::Tcp).await
}

/// The SYN that the first punch left in B's NAT lets A's next SYN in, and B's own does not come before it: the answer must be one
/// that the NAT takes for a part of the same connection.
#[tokio::test]
async fn after_a_failed_tcp_punch_the_syn_of_the_other_side_may_come_first() -> Result<()> {
    let both = Running::new("syn-first", NatKind::EimApdf, NatKind::EimApdfRewrite)
        .transports(&[Transport::Tcp])
        .start()
        .await?;
    let Both { a, b, lab, .. } = &both;
    let a_outside = both.a_side.site.outside_ip4().context("A's address")?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    both.a_side.site.cut(&[Traffic::With(b_outside)]).await?;
    let dial = a.control.dial("a-dial", &b.id);
    let dial = dial.start(&a.host.device, lab.artifacts())?;
    dial.event("connected", PATIENCE).await?;
    // Its SYN has left, and is the last that B's NAT sees.
    failed_punch(b, 0, |event| event.text("/by") == "introduction").await?;
    both.b_side.site.cut(&[Traffic::SynTo(a_outside)]).await?;
    failed_punch(b, 0, |event| event.text("/by") == "dcutr").await?;
    mended(both).await
}

/// The relay dies as soon as there is a circuit, wherever the handshake stands, and comes back.
#[tokio::test]
async fn a_relay_that_dies_in_the_handshake_is_used_again_when_it_is_back() -> Result<()> {
    let mut both = Running::new(
        "relay-dies-handshake",
        NatKind::EimApdf,
        NatKind::EimApdfRewrite,
    )
    .transports(&[Transport::Quic])
    .start()
    .await?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    // No punch can succeed before the relay is dead.
    both.a_side.site.cut(&[Traffic::With(b_outside)]).await?;
    let dial = both.a.control.dial("a-dial", &both.b.id);
    let mut dial = dial.start(&both.a.host.device, both.lab.artifacts())?;
    dial.event("connected", PATIENCE).await?;
    both.relay.process.kill().await?;
    both.relay.restart(&both.lab, &both.bins).await?;
    both.a_side.site.mend().await?;
    both.ends_direct(&mut dial).await?;
    both.punched().await?;
    both.lab.succeeded();
    Ok(())
}
