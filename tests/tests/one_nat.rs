//! Two peers behind one NAT.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved, strays},
    events::Event,
    nat::{NatKind, RANGE},
    node::Process,
    pair::Pair,
};

p2pnode_tests::lab_tests!();

/// The local port of the direct path, once a dial has it.
async fn direct_port(dial: &Process) -> Result<u16> {
    let look = |events: &[Event]| {
        let direct = events
            .iter()
            .find(|event| event.name() == "connected" && event.path_kind() == "direct")?;
        Some(direct.text("/path/hops/0/local").to_owned())
    };
    let local = dial.until("a direct connection", PATIENCE, look).await?;
    Ok(local.parse::<SocketAddr>()?.port())
}

async fn two_behind_one(name: &str, transport: Transport) -> Result<()> {
    let peers = Pair::new(name, NatKind::EimApdf, NatKind::EimApdfRewrite)
        .transport(transport)
        .start()
        .await?;
    let (lab, bins) = (&peers.lab, &peers.bins);
    let first = &peers.a.host;
    let second = lab.host("host-a2", &peers.a.site).await?;
    let args = NodeArgs::new(&peers.relay, first, &[transport]);

    // Both run and hold a reservation; that each talks to the relay all the time is what makes their ports collide, if
    // they chose the same one.
    let first_run = args
        .run(lab, bins, "a1")
        .start(&first.device, lab.artifacts())?;
    let second_run = args
        .run(lab, bins, "a2")
        .start(&second.device, lab.artifacts())?;
    let (_, second_id) = (reserved(&first_run).await?, reserved(&second_run).await?);

    let from_first = args
        .dial(bins, "a1-to-b", &peers.b_id)
        .args(["--count", "1000"])
        .start(&first.device, lab.artifacts())?;
    let from_second = args
        .dial(bins, "a2-to-b", &peers.b_id)
        .args(["--count", "1000"])
        .start(&second.device, lab.artifacts())?;
    let (first_port, second_port) = (
        direct_port(&from_first).await?,
        direct_port(&from_second).await?,
    );
    ensure!(
        first_port != second_port,
        "both peers use port {first_port}"
    );

    let between = args
        .dial(bins, "a1-to-a2", &second_id)
        .start(&first.device, lab.artifacts())?;
    direct_port(&between).await?;

    peers.verify_range().await?;
    let strays = strays(peers.a.home(), &second, &RANGE);
    ensure!(
        strays.is_empty(),
        "the second peer sent from outside its range: {strays:?}"
    );
    peers.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn two_peers_behind_one_nat_start_on_different_ports_and_reach_a_third_and_each_other_over_quic()
-> Result<()> {
    two_behind_one("one-nat-quic", Transport::Quic).await
}

#[tokio::test]
async fn two_peers_behind_one_nat_start_on_different_ports_and_reach_a_third_and_each_other_over_tcp()
-> Result<()> {
    two_behind_one("one-nat-tcp", Transport::Tcp).await
}
