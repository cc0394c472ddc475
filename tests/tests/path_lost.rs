//! Direct paths that are lost: back over a relay, punched again, and the records say what happened.

use std::{net::IpAddr, time::Duration};

use p2pnode_tests::{faults::Traffic, peer::sockets, prelude::*, running::only_direct};

lab_tests! {
    when_the_public_address_of_a_nat_changes_the_new_one_is_punched_over_quic: new_address(Transport::Quic);
    when_the_public_address_of_a_nat_changes_the_new_one_is_punched_over_tcp: new_address(Transport::Tcp);
    a_nat_that_forgets_its_flows_and_maps_them_to_other_ports_is_punched_again: forgotten();
    a_direct_quic_path_that_is_cut_is_relayed_and_punched_when_it_is_back: cut(Transport::Quic);
    a_direct_tcp_path_that_is_cut_is_relayed_and_punched_when_it_is_back: cut(Transport::Tcp);
    a_direct_quic_path_that_is_cut_in_one_direction_is_lost_by_the_side_that_is_not_heard: cut_one_way(Transport::Quic);
    a_direct_tcp_path_that_is_cut_in_one_direction_is_lost_by_the_side_that_is_not_heard: cut_one_way(Transport::Tcp);
    after_an_outage_that_ended_every_path_a_peer_is_direct_again_over_quic: outage(Transport::Quic);
    after_an_outage_that_ended_every_path_a_peer_is_direct_again_over_tcp: outage(Transport::Tcp);
    after_a_failed_tcp_punch_the_syn_of_the_other_side_may_come_first: syn_first();
    a_relay_that_dies_in_the_handshake_is_used_again_when_it_is_back: relay_dies();
}

/// A connection notices after 3.5 s that its path is gone; then the way back over the relay and the punch, on a busy machine.
const AGAIN: Duration = Duration::from_secs(60);

fn direct_with(status: &Value, peer: &str, remote: IpAddr) -> Option<()> {
    let path = only_direct(status, peer).ok()?;
    (sockets(&path).ok()?.1.ip() == remote).then_some(())
}

async fn new_address(transport: Transport) -> Result<()> {
    let mut both = Running::homes().over(&[transport]).direct().await?;
    let old = both.a_side.site.outside_ip4().context("A's address")?;
    let new = both.a_side.site.renumber()?;
    ensure!(old != new, "the address is still {new}");
    let look = |status: &Value| direct_with(status, &both.a.id, new);
    both.b
        .until("a direct path to the new address", AGAIN, look)
        .await?;
    both.punched().await?;
    let sent = both.a.last_punch(&both.b.id).await?["sent"].to_string();
    ensure!(
        sent.contains(&new.to_string()) && !sent.contains(&format!("{old}/")),
        "from {old} to {new}, and A offered {sent}"
    );
    Ok(())
}

async fn forgotten() -> Result<()> {
    let running = Running::new(NatKind::Symmetric, NatKind::FullCone);
    let both = running.over(&[Transport::Quic]).direct().await?;
    let remote = |status: &Value| sockets(&only_direct(status, &both.a.id)?).map(|path| path.1);
    let old = remote(&both.b.control.status().await?)?;
    both.a_side.site.forget_flows()?;
    let look = |status: &Value| (remote(status).ok()? != old).then_some(());
    both.b
        .until("a direct path to the new mapping", AGAIN, look)
        .await?;
    both.punched().await
}

async fn failed_punch(node: &Node, seen: usize, is_it: impl Fn(&Event) -> bool) -> Result<Event> {
    let failed = |event: &Event| {
        event.name() == "punch" && event.text("/outcome") == "failed" && is_it(event)
    };
    node.process.first("a failed punch", seen, failed).await
}

async fn mended(both: &Both) -> Result<()> {
    both.a_side.site.mend()?;
    for (node, peer) in both.ways() {
        node.direct(&peer.id, AGAIN).await?;
    }
    both.punched().await
}

async fn cut(transport: Transport) -> Result<()> {
    let both = Running::homes().over(&[transport]).direct().await?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    let seen = both.ways().map(|(node, _)| node.seen());
    both.a_side.site.cut(&[Traffic::With(b_outside)])?;
    for ((node, peer), seen) in both.ways().into_iter().zip(seen) {
        // The simulator shows that this takes at most 5 s from the cut on.
        let lost = node
            .process
            .event_after(seen, "disconnected", AGAIN)
            .await?;
        ensure!(lost.text("/kind") == "direct", "{}", lost.line);
        let back = |event: &Event| event.name() == "connected" && event.text("/peer") == peer.id;
        let back = node.process.first("the way back", seen, back).await?;
        ensure!(back.path_kind() == "relayed", "{}", back.line);
    }
    // It is punched at once, which must fail; then the path is back.
    let failed = failed_punch(&both.a, seen[0], |_| true).await?;
    failed.has(&json!({"reason": "timeout"}))?;
    mended(&both).await
}

/// The link of A's site is down until the connections to the relay are gone, and the circuits over them. Nobody dials.
async fn outage(transport: Transport) -> Result<()> {
    let both = Running::homes().over(&[transport]).direct().await?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    let seen = both.a.seen();
    both.a_side.site.cut(&[Traffic::With(b_outside)])?;
    let relayed = |event: &Event| event.name() == "connected" && event.path_kind() == "relayed";
    both.a.process.first("a circuit", seen, relayed).await?;
    both.a_side.site.cut(&[Traffic::Outside])?;
    both.a
        .process
        .event_after(seen, "reservation_lost", AGAIN)
        .await?;
    let is_lost = |status: &Value| {
        let peers = status["peers"].as_array()?;
        let has_path = peers.iter().any(|peer| peer["peer"] == both.b.id);
        (!has_path).then(|| status["lost"].clone())
    };
    let lost = both.a.until("the end of all paths", AGAIN, is_lost).await?;
    ensure!(lost[0]["peer"] == both.b.id, "{lost}");
    mended(&both).await
}

/// A's packets are lost, and B's pings still arrive at A. A leaves by itself, before B, which hears nothing, closes the connection.
async fn cut_one_way(transport: Transport) -> Result<()> {
    let both = Running::homes().over(&[transport]).direct().await?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    let seen = both.a.seen();
    both.a_side.site.cut(&[Traffic::To(b_outside)])?;
    let lost = both.a.process.event_after(seen, "disconnected", AGAIN);
    let lost = lost.await?;
    lost.has(&json!({"kind": "direct", "reason": "no answer to pings"}))?;
    let back = |event: &Event| event.name() == "connected" && event.text("/peer") == both.b.id;
    let back = both.a.process.first("the way back", seen, back).await?;
    ensure!(back.path_kind() == "relayed", "{}", back.line);
    mended(&both).await
}

/// The SYN that the first punch left in B's NAT lets A's next SYN in, and B's own does not come before it: the answer must be one
/// that the NAT takes for a part of the same connection.
async fn syn_first() -> Result<()> {
    let both = Running::homes().over(&[Transport::Tcp]).start().await?;
    let a_outside = both.a_side.site.outside_ip4().context("A's address")?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    both.a_side.site.cut(&[Traffic::With(b_outside)])?;
    let dial = both.start_dial()?;
    dial.event("connected", PATIENCE).await?;
    // Its SYN has left, and is the last that B's NAT sees.
    failed_punch(&both.b, 0, |event| event.text("/by") == "introduction").await?;
    both.b_side.site.cut(&[Traffic::SynTo(a_outside)])?;
    failed_punch(&both.b, 0, |event| event.text("/by") == "dcutr").await?;
    mended(&both).await
}

/// The relay dies as soon as there is a circuit, wherever the handshake stands, and comes back.
async fn relay_dies() -> Result<()> {
    let mut both = Running::homes().over(&[Transport::Quic]).start().await?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    // No punch can succeed before the relay is dead.
    both.a_side.site.cut(&[Traffic::With(b_outside)])?;
    let mut dial = both.start_dial()?;
    dial.event("connected", PATIENCE).await?;
    both.relay.process.kill().await?;
    both.relay.restart().await?;
    both.a_side.site.mend()?;
    dial.ended().await?.is("direct")?;
    both.punched().await
}
