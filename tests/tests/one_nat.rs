//! Two peers behind one NAT.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved, strays},
    events::Event,
    lab::Host,
    nat::{NatKind, RANGE},
    node::Process,
    pair::{Pair, Peers},
};

p2pnode_tests::lab_tests!();

/// The local port of the first connection of that kind, once there is one.
async fn local_port(node: &Process, kind: &str) -> Result<u16> {
    let look = |events: &[Event]| {
        let connected = events
            .iter()
            .find(|event| event.name() == "connected" && event.path_kind() == kind)?;
        Some(connected.text("/path/hops/0/local").to_owned())
    };
    let local = node
        .until(&format!("a {kind} connection"), PATIENCE, look)
        .await?;
    Ok(local.parse::<SocketAddr>()?.port())
}

/// A node that holds a reservation.
struct Running {
    process: Process,
    id: String,
    /// From which it talks to the relay.
    port: u16,
}

async fn start(peers: &Peers, args: &NodeArgs, name: &str, host: &Host) -> Result<Running> {
    let process = args.run(&peers.lab, &peers.bins, name);
    let process = process.start(&host.device, peers.lab.artifacts())?;
    Ok(Running {
        id: reserved(&process).await?,
        port: local_port(&process, "direct").await?,
        process,
    })
}

async fn two_behind_one(name: &str, transport: Transport) -> Result<()> {
    let peers = Pair::new(name, NatKind::EimApdf, NatKind::EimApdfRewrite)
        .transport(transport)
        .start()
        .await?;
    let (lab, bins) = (&peers.lab, &peers.bins);
    let (first, third) = (&peers.a.host, &peers.b.host);
    let second = lab.host("host-a2", &peers.a.site).await?;
    let args = NodeArgs::new(&peers.relay, first, &[transport]);

    let mut first_run = start(&peers, &args, "a1", first).await?;
    let mut second_run = start(&peers, &args, "a2", &second).await?;
    if first_run.port == second_run.port {
        // The port follows from the identity: of all pairs of identities one in as many as the range has ports starts on
        // the same one. Two such pairs in a row is none.
        second_run = start(&peers, &args, "a2-again", &second).await?;
    }
    ensure!(
        first_run.port != second_run.port,
        "both peers start on port {}",
        first_run.port
    );

    let dial = |name: &str, peer: &str| args.dial(bins, name, peer).args(["--count", "1000"]);
    let to_first = dial("b-to-a1", &first_run.id).start(&third.device, lab.artifacts())?;
    let to_second = dial("b-to-a2", &second_run.id).start(&third.device, lab.artifacts())?;
    local_port(&to_first, "direct").await?;
    local_port(&to_second, "direct").await?;

    first_run.process.terminate()?;
    first_run.process.exit(PATIENCE).await?;
    let key = lab.artifacts().file("a1.key");
    let from_first = |name: &str, peer: &str| {
        dial(name, peer)
            .arg("--key")
            .arg(&key)
            .start(&first.device, lab.artifacts())
    };
    let between = from_first("a1-to-a2", &second_run.id)?;
    local_port(&between, "direct").await?;
    drop(between);
    let to_third = from_first("a1-to-b", &peers.b_id)?;
    local_port(&to_third, "direct").await?;

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
