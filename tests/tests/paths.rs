//! After a punch: one direct connection, no relayed one, and both sides tell the same of it.

use anyhow::{Result, ensure};
use p2pnode_tests::{
    args::Transport,
    control,
    nat::NatKind,
    remains::{SURPLUS, became_direct, relayed_gone},
    running::{Both, Node, Running},
};

p2pnode_tests::lab_tests!();

async fn count(node: &Node, peer: &str, kind: &str) -> Result<usize> {
    let status = node.control.status().await?;
    Ok(control::paths(&status, peer, kind).len())
}

async fn one_direct(name: &str, a: NatKind, b: NatKind, transports: &[Transport]) -> Result<()> {
    let both = Running::new(name, a, b)
        .transports(transports)
        .start()
        .await?;
    let Both { a, b, .. } = &both;
    both.dial().await?;
    let direct = became_direct(&a.process, &b.id)
        .await?
        .max(became_direct(&b.process, &a.id).await?);
    tokio::time::sleep_until((direct + SURPLUS).into()).await;
    for (node, peer) in [(a, b), (b, a)] {
        let open = count(node, &peer.id, "direct").await?;
        ensure!(
            open == 1,
            "{}: {open} direct paths 3 s after the punch",
            node.process.name()
        );
    }
    both.verify_sockets().await?;

    for (node, peer) in [(a, b), (b, a)] {
        relayed_gone(&node.process, &peer.id).await?;
    }
    for (node, peer) in [(a, b), (b, a)] {
        let (direct, relayed) = (
            count(node, &peer.id, "direct").await?,
            count(node, &peer.id, "relayed").await?,
        );
        ensure!(
            (direct, relayed) == (1, 0),
            "{}: {direct} direct and {relayed} relayed paths after the grace",
            node.process.name()
        );
    }
    both.verify_sockets().await?;
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn after_a_punch_over_quic_one_direct_connection_is_left_and_both_sides_tell_the_same()
-> Result<()> {
    one_direct(
        "one-direct-quic",
        NatKind::EimApdf,
        NatKind::EimApdf,
        &[Transport::Quic],
    )
    .await
}

#[tokio::test]
async fn after_a_punch_over_tcp_one_direct_connection_is_left_and_both_sides_tell_the_same()
-> Result<()> {
    one_direct(
        "one-direct-tcp",
        NatKind::EimApdf,
        NatKind::EimApdf,
        &[Transport::Tcp],
    )
    .await
}

#[tokio::test]
async fn with_both_transports_one_direct_connection_is_left_also_where_ports_are_rewritten()
-> Result<()> {
    one_direct(
        "one-direct-both",
        NatKind::EimApdfRewrite,
        NatKind::Cgnat,
        &Transport::ALL,
    )
    .await
}
