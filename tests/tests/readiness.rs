//! `/readyz` of real nodes: it tells the truth, and its body says what is missing.

use anyhow::{Result, ensure};
use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN},
    args::{NodeArgs, PATIENCE, Transport},
    holder::hold,
    nat::{NatKind, RANGE},
    running::{Node, Running},
};

p2pnode_tests::lab_tests!();

#[tokio::test]
async fn a_node_is_ready_as_long_as_it_can_be_reached_and_says_what_is_missing() -> Result<()> {
    let lab = Running::new("ready", NatKind::EimApdf, NatKind::EimApdf)
        .transports(&[Transport::Quic])
        .prepare()
        .await?;
    let mut both = lab.a_env(ADMIN_LISTEN, ADMIN).start().await?;
    let host = both.a.host.clone();
    ensure!(
        admin::get(&host, "/livez").await?.status == 200,
        "not alive"
    );
    ensure!(
        admin::readiness(&host, 200).await? == "ready\n",
        "not ready"
    );

    both.relay.process.kill().await?;
    let missing = admin::readiness(&host, 503).await?;
    ensure!(
        missing.starts_with("not ready\nreservation: held on none of 1 relay(s)")
            && missing.lines().count() == 2,
        "{missing:?}"
    );
    let read = admin::metrics(&host).await?;
    ensure!(
        read.sum("p2pnode_reservations", &[("relay", "0")]) == 0.0,
        "{read:?}"
    );
    ensure!(
        admin::get(&host, "/livez").await?.status == 200,
        "not alive"
    );

    both.relay.restart(&both.lab, &both.bins).await?;
    ensure!(
        admin::readiness(&host, 200).await? == "ready\n",
        "not ready again"
    );
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_node_without_a_port_for_its_sockets_is_not_ready_before_it_has_one() -> Result<()> {
    let lab = Running::new("ready-held", NatKind::EimApdf, NatKind::EimApdf)
        .transports(&[Transport::Quic])
        .prepare()
        .await?;
    let host = lab.a.host.clone();
    let held = hold(&host, RANGE)?;
    let args = NodeArgs::new(&lab.relay, &host, &[Transport::Quic]);
    let launch = args.run(&lab.lab, &lab.bins, "a").env(ADMIN_LISTEN, ADMIN);
    let node = Node::start(&lab.lab, &lab.bins, &host, launch).await?;
    // Its first dial has failed.
    node.process.event("relay_unreachable", PATIENCE).await?;
    let missing = admin::readiness(&host, 503).await?;
    let lines: Vec<_> = missing.lines().collect();
    ensure!(
        lines.len() == 3
            && lines[1].starts_with("punch sockets: port range 40000-40050 exhausted: udp ")
            && lines[2].starts_with("reservation: "),
        "{missing:?}"
    );
    let read = admin::metrics(&host).await?;
    let exhausted = [
        ("transport", "quic"),
        ("family", "ip4"),
        ("outcome", "exhausted"),
    ];
    ensure!(
        read.sum("p2pnode_dials_total", &exhausted) >= 1.0,
        "{read:?}"
    );
    drop(held);
    ensure!(
        admin::readiness(&host, 200).await? == "ready\n",
        "not ready"
    );
    lab.lab.succeeded();
    Ok(())
}
