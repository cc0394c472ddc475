//! What a node tells of its paths is what is on the wire; what it cannot know it calls unknown.

use anyhow::{Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::bins,
    capture::Capture,
    control,
    lab::{Host, Lab},
    nat::NatKind,
    running::{Node, Running, sockets},
    stranger::Stranger,
};
use serde_json::Value;

p2pnode_tests::lab_tests!();

const PUNCH: &str = "P2PNODE_PUNCH_ENABLED";

/// Asserts that the near hop of a path is on the wire: its sockets, its transport, its family.
async fn verify_near_hop(capture: &Capture, host: &Host, path: &Value) -> Result<()> {
    let (local, remote) = sockets(path)?;
    let hop = &path["hops"][0];
    let protocol = if hop["transport"] == "tcp" {
        "tcp"
    } else {
        "udp"
    };
    let family = if remote.is_ipv4() { "ip4" } else { "ip6" };
    ensure!(hop["family"] == family, "{path}");
    capture.settle().await?;
    ensure!(
        capture
            .sent_by(&host.addresses)
            .iter()
            .any(|packet| packet.protocol.name() == protocol
                && packet.source == local
                && packet.destination == remote),
        "no {protocol} packet went from {local} to {remote}, as is told: {path}"
    );
    Ok(())
}

/// The paths of a status: to relays and to peers.
fn all_paths(status: &Value) -> Vec<&Value> {
    ["relays", "peers"]
        .into_iter()
        .flat_map(|of| status[of].as_array().into_iter().flatten())
        .flat_map(|peer| peer["paths"].as_array().into_iter().flatten())
        .collect()
}

#[tokio::test]
async fn the_relay_legs_and_the_relayed_path_that_are_told_are_on_the_wire() -> Result<()> {
    let prepared = Running::new("told-relayed", NatKind::DualStack, NatKind::EimApdfRewrite)
        .prepare()
        .await?;
    let both = prepared.a_env(PUNCH, "false").start().await?;
    both.dial_relayed().await?;
    for (node, side, peer) in [
        (&both.a, &both.a_side, &both.b),
        (&both.b, &both.b_side, &both.a),
    ] {
        let legs = 2 * side.host.addresses.len();
        let look = |status: &Value| {
            let paths = status["relays"][0]["paths"].as_array()?;
            (paths.len() == legs).then(|| status.clone())
        };
        let status = node
            .until(&both.lab, "all legs to the relay", PATIENCE, look)
            .await?;
        for path in all_paths(&status) {
            verify_near_hop(side.home(), &side.host, path).await?;
        }
        let path = &control::peer(&status, &peer.id)["path"];
        ensure!(
            path["kind"] == "relayed" && path["relay"] == *both.relay.id,
            "{path}"
        );
        // The near hop of a circuit is one of the legs to its relay.
        let near = sockets(path)?;
        let legs = status["relays"][0]["paths"]
            .as_array()
            .into_iter()
            .flatten();
        ensure!(
            legs.filter_map(|leg| sockets(leg).ok())
                .any(|leg| leg == near),
            "{path} runs over no leg: {status}"
        );
        // The far one is what the other side has, or unknown: never what it has not.
        let far = &path["hops"][1];
        let theirs = peer.control.status().await?;
        let theirs = &control::peer(&theirs, &node.id)["path"]["hops"][0];
        for axis in ["transport", "family"] {
            ensure!(
                far[axis] == theirs[axis] || far[axis] == "unknown",
                "{}: {far}, and the other side has {theirs}",
                node.process.name()
            );
        }
        let why = node.control.why(&peer.id).await?;
        ensure!(
            why["candidates"][0]["path"]["hops"][0]["local"] == path["hops"][0]["local"]
                && why["candidates"][0]["path"]["relay"] == path["relay"],
            "{why}"
        );
    }
    both.lab.succeeded();
    Ok(())
}

/// Everything that a node tells of its paths, for people and for programs, the far hop of circuits aside.
async fn told(node: &Node, peer: &Node) -> Result<Vec<String>> {
    let status = node.control.status().await?;
    let why = node.control.why(&peer.id).await?;
    let mut lines: Vec<String> = all_paths(&status)
        .into_iter()
        .map(|path| path["hops"][0].to_string())
        .collect();
    let candidates = why["candidates"].as_array().into_iter().flatten();
    lines.extend(candidates.map(|candidate| candidate["path"]["hops"][0].to_string()));
    let events = node.process.events();
    let connected = events.iter().filter(|event| event.name() == "connected");
    lines.extend(connected.map(|event| event.json["path"]["hops"][0].to_string()));
    for text in [
        node.control.text(&["status"]).await?,
        node.control.text(&["why", &peer.id]).await?,
    ] {
        // `NEAR | FAR (RELAY)`: the far hop is the other side's.
        let hops = text.lines().filter(|line| line.contains(" > "));
        lines.extend(hops.filter_map(|line| Some(line.split(" | ").next()?.to_owned())));
    }
    Ok(lines)
}

/// A has IPv6 switched off, and a configuration that names the relay's IPv6 addresses too, as one file for a fleet does.
async fn without_ip6(name: &str, punch: &str) -> Result<()> {
    let prepared = Running::new(name, NatKind::DualStack, NatKind::DualStack)
        .prepare()
        .await?
        .a_env(PUNCH, punch);
    prepared
        .a
        .host
        .sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    let both = prepared.start().await?;
    if punch == "true" {
        both.dial().await?;
    } else {
        both.dial_relayed().await?;
    }
    let lines = told(&both.a, &both.b).await?;
    ensure!(lines.len() > 4, "too little is told: {lines:?}");
    for line in &lines {
        ensure!(!line.contains("ip6"), "A has no IPv6 and says: {line}");
    }
    ensure!(
        both.a_side
            .home()
            .sent_by(&both.a_side.host.addresses)
            .iter()
            .all(|packet| packet.source.is_ipv4()),
        "A has sent IPv6"
    );
    // What B says of A's leg, or of the direct connection to A, is IPv4 or unknown.
    let status = both.b.control.status().await?;
    for kind in ["direct", "relayed"] {
        for path in control::paths(&status, &both.a.id, kind) {
            let far = path["hops"].as_array().and_then(|hops| hops.last());
            ensure!(
                far.is_some_and(|far| far["family"] != "ip6"),
                "B says of A: {path}"
            );
        }
    }
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_host_without_ip6_claims_none_for_its_hops_over_a_relay() -> Result<()> {
    without_ip6("no-ip6-relayed", "false").await
}

#[tokio::test]
async fn a_host_without_ip6_claims_none_for_its_direct_path() -> Result<()> {
    without_ip6("no-ip6-direct", "true").await
}

#[tokio::test]
async fn the_far_hop_behind_a_foreign_relay_is_unknown() -> Result<()> {
    let bins = bins()?;
    let lab = Lab::new("foreign-relay").await?;
    let far = lab.public_host("foreign").await?;
    let stranger = Stranger::new(&lab, &far)?;
    let (_relay, address) = stranger.relay("foreign", Transport::Quic).await?;
    let args = NodeArgs {
        relays: vec![address.clone()],
        transports: vec![Transport::Quic],
        range: p2pnode_tests::nat::RANGE,
    };
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let site = lab.site(name, NatKind::EimApdf).await?;
        let host = lab.host(&format!("host-{name}"), &site).await?;
        let capture = lab.capture(&site).await?;
        let launch = args.run(&lab, &bins, name).env(PUNCH, "false");
        let node = Node::start(&lab, &bins, &host, launch).await?;
        reserved(&node.process).await?;
        nodes.push((node, capture, site));
    }
    let [(a, a_capture, _), (b, ..)] = &nodes[..] else {
        anyhow::bail!("two nodes")
    };
    let dial = a
        .control
        .dial("a-dial", &b.id)
        .args(["--until", "connected"]);
    let mut dial = dial.start(&a.host.device, lab.artifacts())?;
    let ended = dial.exit(PATIENCE).await?;
    ensure!(ended.code() == Some(0), "{ended}: {}", dial.log());

    let status = a.control.status().await?;
    let path = &control::peer(&status, &b.id)["path"];
    let relay = address.rsplit('/').next().unwrap_or_default();
    ensure!(
        path["relay"] == relay
            && path["hops"][1]["transport"] == "unknown"
            && path["hops"][1]["family"] == "unknown"
            && path["hops"][1].get("local").is_none(),
        "{path}"
    );
    verify_near_hop(a_capture, &a.host, path).await?;
    for text in [
        a.control.text(&["status"]).await?,
        a.control.text(&["why", &b.id]).await?,
    ] {
        let line = text.lines().find(|line| line.contains(" | "));
        ensure!(
            line.is_some_and(|line| line.contains(" | unknown (")),
            "{text}"
        );
    }
    lab.succeeded();
    Ok(())
}
