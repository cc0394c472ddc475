//! The hops of a relayed path: each side tells both, the far one as the relay sees it.

use anyhow::{Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::bins,
    control,
    lab::Lab,
    nat::NatKind,
    relay::Relay,
    running::Node,
};
use serde_json::{Value, json};

p2pnode_tests::lab_tests!();

/// What a hop says that this side cannot see itself, its round trip time aside.
fn far_hop(path: &Value) -> Value {
    let mut hop = path["hops"][1].clone();
    if let Some(hop) = hop.as_object_mut() {
        hop.remove("rtt_ms");
    }
    hop
}

fn told(transport: &str, family: &str) -> Value {
    json!({ "transport": transport, "family": family, "reported_by": "relay" })
}

/// A has IPv6 only and QUIC, B has IPv4 only and TCP: they meet at the relay and nowhere else.
#[tokio::test]
async fn each_side_of_a_circuit_tells_the_leg_of_the_other_as_the_relay_sees_it() -> Result<()> {
    let bins = bins()?;
    let lab = Lab::new("hop").await?;
    let relay = Relay::start(&lab, &bins, "relay").await?;
    let mut nodes = Vec::new();
    for (name, nat, transport) in [
        ("a", NatKind::Ip6Firewall, Transport::Quic),
        ("b", NatKind::EimApdf, Transport::Tcp),
    ] {
        let site = lab.site(name, nat).await?;
        let host = lab.host(&format!("host-{name}"), &site).await?;
        let launch = NodeArgs::new(&relay, &host, &[transport]).run(&lab, &bins, name);
        let node = Node::start(&lab, &bins, &host, launch).await?;
        reserved(&node.process).await?;
        nodes.push(node);
    }
    let (a, b) = (&nodes[0], &nodes[1]);

    let dial = a.control.dial("a-dial", &b.id);
    let mut dial = dial
        .args(["--until", "connected"])
        .start(&a.host.device, lab.artifacts())?;
    let status = dial.exit(PATIENCE).await?;
    ensure!(status.success(), "{status}: {}", dial.log());
    let result = dial.event("result", PATIENCE).await?;
    let path = &result.json["path"];
    ensure!(far_hop(path) == told("tcp", "ip4"), "{}", result.line);
    ensure!(
        path["hops"][1]["rtt_ms"].is_number() && path["hops"][0]["family"] == "ip6",
        "{}",
        result.line
    );

    for (node, peer, expected) in [(a, b, told("tcp", "ip4")), (b, a, told("quic", "ip6"))] {
        let look = |status: &Value| {
            let path = &control::peer(status, &peer.id)["path"];
            (far_hop(path) == expected).then_some(())
        };
        node.until(&lab, "the far hop", PATIENCE, look).await?;
        let why = node.control.why(&peer.id).await?;
        ensure!(far_hop(&why["candidates"][0]["path"]) == expected, "{why}");
    }
    lab.succeeded();
    Ok(())
}
