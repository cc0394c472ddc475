//! Networks that misbehave while nodes run in them: each ends direct, and the records say what happened.

use std::time::Duration;

use p2pnode_tests::{delay::Link, faults::Traffic, packet::Packet, prelude::*};

lab_tests! {
    candidates_that_the_dialer_learns_3_s_late_are_punched_then: late(true);
    candidates_that_the_dialed_learns_3_s_late_are_punched_then: late(false);
    a_nat_that_forgets_its_flows_and_maps_them_alike_interrupts_nothing: forgotten_alike();
    a_relay_that_dies_while_both_dial_does_not_stop_the_punch: relay_dies();
    two_nodes_that_dial_each_other_at_once_share_one_direct_connection: both_dial();
    tcp_dials_in_a_row_through_slow_nats_are_all_direct: in_a_row();
}

const LATE: Duration = Duration::from_secs(3);

/// UDP to the relay is blocked at first on one side, so that it has no candidate that may be punched until 3 s after the
/// circuit.
async fn late(is_dialer: bool) -> Result<()> {
    let (key, rule) = ("P2PNODE_PUNCH_DENY", "0.0.0.0/0 tcp");
    let prepared = Running::homes().prepare().await?;
    let prepared = prepared.a_env(key, rule).b_env(key, rule);
    let late = if is_dialer { &prepared.a } else { &prepared.b };
    late.site
        .cut(&[Traffic::Udp(prepared.relay.host.ip(false)?)])?;
    let both = prepared.start().await?;
    let dial = both.start_dial()?;
    let connected = dial.event("connected", PATIENCE).await?;
    ensure!(connected.path_kind() == "relayed", "{}", connected.line);
    // The cause, and no event that is waited for.
    tokio::time::sleep_until((connected.at + LATE).into()).await;
    let [a, b] = both.ways();
    let (side, (late, other)) = if is_dialer {
        (&both.a_side, a)
    } else {
        (&both.b_side, b)
    };
    side.site.mend()?;
    for (node, peer) in both.ways() {
        node.direct(&peer.id, PATIENCE).await?;
    }
    both.punched().await?;
    let sent = late.last_punch(&other.id).await?["sent"].to_string();
    let outside = side.site.outside_ip4().context("an address")?;
    ensure!(
        sent.contains(&format!("{outside}/udp/")) && !sent.contains("/tcp/"),
        "offered at last: {sent}"
    );
    if is_dialer {
        // B had something to offer from the start, and received nothing.
        both.b.punches(&both.a.id)[0].has(&json!({"reason": "no_remote_candidates"}))?;
    }
    Ok(())
}

async fn forgotten_alike() -> Result<()> {
    let both = Running::homes().over(&[Transport::Quic]).direct().await?;
    let seen = both.a.seen();
    both.a_side.site.forget_flows()?;
    // Longer than a QUIC connection lives whose packets are lost.
    let three = ["--count", "3"];
    let dial = both.a.dial_with("a-pings", &both.b.id, &three).await?;
    dial.is("direct")?;
    let mut pings = dial.all("ping");
    ensure!(
        pings.all(|ping| ping.text("/kind") == "direct"),
        "{:?}",
        dial.events
    );
    let events = both.a.process.events();
    let lost = events[seen..]
        .iter()
        .find(|event| event.disconnects(&both.b.id, "direct"));
    ensure!(lost.is_none(), "{lost:?}");
    both.verify_sockets().await
}

/// The relay dies while both sides dial: the way between them is closed until it is dead.
async fn relay_dies() -> Result<()> {
    let mut both = Running::homes().over(&[Transport::Quic]).start().await?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    both.a_side.site.cut(&[Traffic::With(b_outside)])?;
    let mut dial = both.start_dial()?;
    // Each side has sent a packet to the other: both dial.
    for (side, far) in [(&both.a_side, &both.b_side), (&both.b_side, &both.a_side)] {
        let far = far.site.outside_ip4().context("an address")?;
        let towards = |packet: &Packet| packet.destination.ip() == far;
        side.home.until("a punch", PATIENCE, towards).await?;
    }
    both.relay.process.kill().await?;
    both.a_side.site.mend()?;
    dial.ended().await?.is("direct")?;
    both.punched().await
}

async fn both_dial() -> Result<()> {
    let both = Running::homes().start().await?;
    let mut from_a = both.start_dial()?;
    let mut from_b = both.b.start_dial("b-dial", &both.a.id)?;
    from_a.ended().await?.is("direct")?;
    from_b.ended().await?.is("direct")?;
    both.punched().await
}

/// When a process begins, the kernel still ends the connections of the one before it.
async fn in_a_row() -> Result<()> {
    let pair = Pair::of_test(NatKind::EimApdf, NatKind::EimApdf).over(&[Transport::Tcp]);
    let mut peers = pair.start().await?;
    peers.lab.impair(Link::rtt(Duration::from_millis(200)))?;
    for name in ["first", "second", "third"] {
        peers.start_dial(name, 1)?.ended().await?.is("direct")?;
    }
    Ok(())
}
