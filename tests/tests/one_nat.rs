//! Two peers behind one NAT.

use std::net::SocketAddr;

use p2pnode_tests::prelude::*;

lab_tests! {
    two_peers_behind_one_nat_start_on_different_ports_and_reach_a_third_and_each_other_over_quic:
        two_behind_one(Transport::Quic);
    two_peers_behind_one_nat_start_on_different_ports_and_reach_a_third_and_each_other_over_tcp:
        two_behind_one(Transport::Tcp);
}

async fn direct_from(process: &Process) -> Result<u16> {
    let direct = |event: &Event| event.name() == "connected" && event.path_kind() == "direct";
    let connected = process.first("a direct connection", 0, direct).await?;
    let local: SocketAddr = connected.text("/path/hops/0/local").parse()?;
    Ok(local.port())
}

async fn two_behind_one(transport: Transport) -> Result<()> {
    let pair = Pair::of_test(NatKind::EimApdf, NatKind::EimApdfRewrite);
    let peers = pair.over(&[transport]).start().await?;
    let (first, third) = (&peers.a.host, &peers.b.host);
    let second = peers.lab.host("host-a2", &peers.a.site).await?;
    let args = NodeArgs::new(&peers.relay, first, &[transport]);
    // Direct to the relay is from where it starts.
    let mut first_node = args.run_on(first, "a1")?.reserves(first).await?;
    let first_port = direct_from(&first_node.process).await?;
    let mut second_node = args.run_on(&second, "a2")?.reserves(&second).await?;
    if first_port == direct_from(&second_node.process).await? {
        // The port follows from the identity: of all pairs of identities one in as many as the range has ports starts on
        // the same one. Two such pairs in a row is none.
        second_node = args.run_on(&second, "a2-again")?.reserves(&second).await?;
    }
    let second_port = direct_from(&second_node.process).await?;
    ensure!(
        first_port != second_port,
        "both peers start on port {first_port}"
    );

    let dial =
        |name: &str, peer: &str| anyhow::Ok(args.dial(name, peer)?.args(["--count", "1000"]));
    let to_first = dial("b-to-a1", &first_node.id)?.on(third)?;
    let to_second = dial("b-to-a2", &second_node.id)?.on(third)?;
    direct_from(&to_first).await?;
    direct_from(&to_second).await?;

    first_node.process.terminate()?;
    first_node.process.exit(PATIENCE).await?;
    let key = peers.lab.artifacts().file("a1.key");
    for (name, peer) in [("a1-to-a2", &second_node.id), ("a1-to-b", &peers.b_id)] {
        let mut dial = dial(name, peer)?.arg("--key").arg(&key).on(first)?;
        direct_from(&dial).await?;
        // The next one has the same key.
        dial.kill().await?;
    }
    peers.verify_range().await?;
    peers.a.home.keeps(&second, &RANGE).await
}
