//! A node that has IPv6 alone, behind a NAT64 and a DNS64, and relays that it reaches by IPv4 alone.

use p2pnode_tests::{prelude::*, schema};

lab_tests! {
    behind_a_nat64_a_node_reserves_and_what_netcheck_predicts_is_what_dials_do: nat64();
}

const NAME: &str = "relay.test";

async fn nat64() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let peer = lab.behind_nat64("a").await?;
    lab.dns64(NAME, &relay.host)?;
    let addresses = Transport::ALL.map(|transport| {
        let at = match transport {
            Transport::Quic => format!("/dns/{NAME}/udp/443/quic-v1"),
            Transport::Tcp => format!("/dns/{NAME}/tcp/443"),
        };
        format!("{at}/p2p/{}", relay.id)
    });
    let args = NodeArgs::with_relays(addresses.to_vec(), &Transport::ALL);
    let node: Node = args.run_on(&peer.host, "a")?.reserves(&peer.host).await?;
    let report = node.control.text(&["netcheck", "--json"]).await?;
    let report: Value = serde_json::from_str(&report)?;
    schema::validate("netcheck", &report)?;
    let checks = report["checks"].as_array().context("checks")?;
    let of = |id: &str| checks.iter().find(|check| check["id"] == id);
    let text = of("nat64").context("a check")?["text"].to_string();
    ensure!(text.contains("64:ff9b::/96"), "{report}");
    ensure!(
        of("range").context("a check")?["status"] == "ok",
        "{report}"
    );
    let other = Peer::new(&lab, "b", NatKind::None).await?;
    let called = relay.node("b", &other.host, &Transport::ALL).await?;
    println!("{report:#}");
    let dial = node.dial("out", &called.id).await?;
    println!("{:?}", dial.events.last());
    let dial = called.dial("in", &node.id).await?;
    println!("{:?}", dial.events.last());
    peer.settle().await?;
    peer.keeps_range().await
}
