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
    let socket = node::control_socket(lab.artifacts(), "a");
    let look = Launch::new("look", bins()?.p2pnode).args(["netcheck", "--json"]);
    let ended = look.env(node::CONTROL_SOCKET, socket);
    let ended = ended.on(&peer.host)?.ended().await?;
    let report = ended.all("netcheck").next().context("a report")?;
    let report = &report.json;
    schema::validate("netcheck", report)?;
    let checks = report["checks"].as_array().context("checks")?;
    let of = |id: &str| checks.iter().find(|check| check["id"] == id);
    let nat64 = of("nat64").context("a check")?;
    let text = nat64["text"].as_str().context("a text")?;
    ensure!(text.starts_with("yes, 64:ff9b::/96"), "{report}");
    for id in ["relay", "udp", "range", "mtu"] {
        ensure!(of(id).context(id)?["status"] == "ok", "{id}: {report}");
    }
    ensure!(report["verdict"]["direct"] == json!([]), "{report}");
    ensure!(ended.code == 3, "{}: {report}", ended.code);
    for (name, kind, expected) in [
        ("b", NatKind::EimApdf, "relayed"),
        ("c", NatKind::DualStack, "direct"),
    ] {
        let other = Peer::new(&lab, name, kind).await?;
        let other_node = relay.node(name, &other.host, &Transport::ALL).await?;
        let dial = node.dial(name, &other_node.id).await?;
        dial.is(expected)?;
    }
    peer.settle().await?;
    // Names are resolved by the system, from its own ports.
    let mut strays = peer.home.strays(&peer.host, &RANGE);
    strays.retain(|stray| !stray.ends_with(":53"));
    ensure!(strays.is_empty(), "{strays:?}");
    Ok(())
}
