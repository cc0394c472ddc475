//! What led to a peer is gone and comes back: a dial finds the peer again within 10 s, its own `--timeout`.

use p2pnode_tests::{faults::Traffic, prelude::*};

lab_tests! {
    a_peer_is_found_again_after_its_quic_relay_has_vanished: relay_vanishes(Transport::Quic);
    a_peer_is_found_again_after_its_tcp_relay_has_vanished: relay_vanishes(Transport::Tcp);
    a_peer_that_was_killed_is_found_again_and_its_record_is_newer_than_the_one_it_left: killed();
}

async fn found(both: &Both) -> Result<()> {
    let dial = both.a.control.dial_within("a-dial", &both.b.id, "10s");
    let dial = dial.on(&both.a.host)?.ended().await?;
    dial.is("direct").with_context(|| both.a.process.log())?;
    Ok(())
}

/// The relay is cut off, dies unnoticed, and comes back: neither node gets a notice, and the new relay does not know the old
/// reservations.
async fn relay_vanishes(transport: Transport) -> Result<()> {
    let mut both = Running::homes().over(&[transport]).start().await?;
    let relay = [Traffic::With(both.relay.host.ip(false)?)];
    for side in both.sides() {
        side.site.cut(&relay)?;
    }
    both.relay.process.kill().await?;
    for side in both.sides() {
        side.site.mend()?;
    }
    both.relay.restart().await?;
    found(&both).await?;
    for side in both.sides() {
        side.keeps_range().await?;
    }
    Ok(())
}

async fn killed() -> Result<()> {
    let debug = ("P2PNODE_LOG_LEVEL", "debug");
    let prepared = Running::homes().prepare().await?;
    let mut both = prepared.b_env(debug.0, debug.1).start().await?;
    // The record comes after the reservation.
    both.b.process.logged("arrived=true", PATIENCE).await?;
    both.b.process.kill().await?;
    // By its name it has the key of the one before.
    let again = both
        .relay
        .run("b", &both.b.host, &Transport::ALL)?
        .env(debug.0, debug.1);
    let again = again.reserves(&both.b.host).await?;
    ensure!(both.b.id == again.id, "it came back as {}", again.id);
    both.b = again;
    found(&both).await?;
    // What the relay keeps of the run before is asked for first, so that a clock that was set back does no harm.
    let asked = "found this node's own record of an earlier run";
    both.b.process.logged(asked, PATIENCE).await?;
    both.b.process.logged("arrived=true", PATIENCE).await
}
