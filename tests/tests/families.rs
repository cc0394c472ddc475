//! Relayed paths keep one IP family from end to end where they can, and the configured family holds for the legs of relays.

use std::time::Duration;

use anyhow::{Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::{Bins, bins},
    control,
    lab::{Host, Lab},
    nat::NatKind,
    relay::Relay,
    running::{Both, Node, Running},
};
use serde_json::{Value, json};

p2pnode_tests::lab_tests!();

const FAMILY: &str = "P2PNODE_DIAL_FAMILY";
const PUNCH: &str = "P2PNODE_PUNCH_ENABLED";

/// The families of a path's two hops.
fn families(path: &Value) -> [&Value; 2] {
    [&path["hops"][0]["family"], &path["hops"][1]["family"]]
}

/// Waits until a node holds reservations in these families.
async fn reserved_in(lab: &Lab, node: &Node, wanted: &Value) -> Result<()> {
    let look = |status: &Value| (status["relays"][0]["reserved_families"] == *wanted).then_some(());
    node.until(lab, "reservations in its families", PATIENCE, look)
        .await
}

/// A has both families, wants IPv6 first, and has two legs to the relay; B has IPv4 only, and no punch leads to it.
async fn to_a_host_without_ip6(name: &str, punch: &str, reason: &str) -> Result<()> {
    let prepared = Running::new(name, NatKind::DualStack, NatKind::Symmetric)
        .transports(&[Transport::Quic])
        .prepare()
        .await?;
    let both = prepared
        .a_env(FAMILY, "prefer-ip6")
        .a_env(PUNCH, punch)
        .start()
        .await?;
    reserved_in(&both.lab, &both.a, &json!(["ip6", "ip4"])).await?;
    let result = both.dial_relayed().await?;
    ensure!(
        families(&result.json["path"]) == ["ip4", "ip4"] && result.json["reason"] == reason,
        "{}",
        result.line
    );
    // The first circuit had to be over the preferred leg; it is gone, for both.
    let Both { a, b, lab, .. } = &both;
    for (node, peer) in [(a, b), (b, a)] {
        let look = |status: &Value| {
            let paths = control::paths(status, &peer.id, "relayed");
            (paths.len() == 1 && families(paths[0]) == ["ip4", "ip4"]).then_some(())
        };
        node.until(lab, "one circuit, of one family", PATIENCE, look)
            .await?;
    }
    let crossed = a.process.events().into_iter().any(|event| {
        event.name() == "connected"
            && event.text("/peer") == b.id
            && event.json["path"]["hops"][0]["family"] == "ip6"
    });
    ensure!(crossed, "the preferred leg was not tried first");
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_circuit_to_a_host_without_ip6_goes_over_ip4_once_the_punch_has_failed() -> Result<()> {
    to_a_host_without_ip6("families-punch", "true", "timeout").await
}

#[tokio::test]
async fn a_circuit_to_a_host_without_ip6_goes_over_ip4_where_nobody_punches() -> Result<()> {
    to_a_host_without_ip6("families-relayed", "false", "disabled").await
}

/// Starts a node and waits for its reservations.
async fn start(
    lab: &Lab,
    bins: &Bins,
    relay: &Relay,
    name: &str,
    host: &Host,
    env: &[(&str, &str)],
    held: &Value,
) -> Result<Node> {
    let mut launch = NodeArgs::new(relay, host, &[Transport::Quic]).run(lab, bins, name);
    for (name, value) in env {
        launch = launch.env(name, value);
    }
    let node = Node::start(lab, bins, host, launch).await?;
    reserved(&node.process).await?;
    reserved_in(lab, &node, held).await?;
    Ok(node)
}

#[tokio::test]
async fn a_host_with_both_families_is_called_in_the_family_of_its_caller() -> Result<()> {
    let bins = bins()?;
    let lab = Lab::new("families-called").await?;
    let relay = Relay::start(&lab, &bins, "relay").await?;
    let site = lab.site("b", NatKind::DualStack).await?;
    let host = lab.host("host-b", &site).await?;
    let nobody_punches = [(PUNCH, "false")];
    let held = json!(["ip4", "ip6"]);
    let b = start(&lab, &bins, &relay, "b", &host, &nobody_punches, &held).await?;
    for (name, nat, family) in [
        ("v4", NatKind::EimApdf, "ip4"),
        ("v6", NatKind::Ip6Firewall, "ip6"),
    ] {
        let site = lab.site(name, nat).await?;
        let host = lab.host(&format!("host-{name}"), &site).await?;
        let a = start(
            &lab,
            &bins,
            &relay,
            name,
            &host,
            &nobody_punches,
            &json!([family]),
        )
        .await?;
        let dial = a.control.dial(&format!("{name}-dial"), &b.id);
        let mut dial = dial.start(&host.device, lab.artifacts())?;
        dial.exit(PATIENCE).await?;
        let result = dial.event("result", PATIENCE).await?;
        ensure!(
            families(&result.json["path"]) == [family, family],
            "{}",
            result.line
        );
    }
    lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_configured_family_holds_for_legs_to_relays() -> Result<()> {
    let bins = bins()?;
    let lab = Lab::new("families-configured").await?;
    let relay = Relay::start(&lab, &bins, "relay").await?;
    let mut nodes = Vec::new();
    let mut captures = Vec::new();
    for (name, policy, held) in [
        ("a", "prefer-ip6", json!(["ip6", "ip4"])),
        ("b", "only-ip6", json!(["ip6"])),
    ] {
        let site = lab.site(name, NatKind::DualStack).await?;
        let host = lab.host(&format!("host-{name}"), &site).await?;
        captures.push((lab.capture(&site).await?, host.clone()));
        let env = [(PUNCH, "false"), (FAMILY, policy)];
        nodes.push(start(&lab, &bins, &relay, name, &host, &env, &held).await?);
    }
    let (a, b) = (&nodes[0], &nodes[1]);
    let dial = a.control.dial("a-dial", &b.id);
    let mut dial = dial.start(&a.host.device, lab.artifacts())?;
    dial.exit(PATIENCE).await?;
    let result = dial.event("result", PATIENCE).await?;
    ensure!(
        families(&result.json["path"]) == ["ip6", "ip6"],
        "{}",
        result.line
    );

    let (capture, host) = &captures[1];
    capture.settle().await?;
    let sent = capture.sent_by(&host.addresses);
    let of = |ip4: bool| {
        sent.iter()
            .filter(|packet| packet.source.is_ipv4() == ip4)
            .count()
    };
    ensure!(
        of(false) > 0 && of(true) == 0,
        "{} packets over IPv4 with only-ip6",
        of(true)
    );
    lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_direct_path_is_of_the_configured_family() -> Result<()> {
    let prepared = Running::new("families-direct", NatKind::DualStack, NatKind::DualStack)
        .transports(&[Transport::Quic])
        .prepare()
        .await?;
    let both = prepared.a_env(FAMILY, "only-ip4").start().await?;
    both.dial().await?;
    let path = both.settled(Duration::from_secs(30)).await?;
    ensure!(path["hops"][0]["family"] == "ip4", "{path}");
    both.lab.succeeded();
    Ok(())
}
