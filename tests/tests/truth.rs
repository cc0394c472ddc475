//! What a node reports of its paths is what is on the wire; what it cannot know it calls unknown.

use std::fs;

use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN},
    capture::Capture,
    node::{RELAY_CONTROL_SOCKET, control_socket},
    peer::{protocol, sockets},
    prelude::*,
    stranger,
};

lab_tests! {
    the_relay_legs_and_the_relayed_path_that_are_reported_are_on_the_wire: relayed();
    each_side_of_a_circuit_reports_the_leg_of_the_other_as_the_relay_sees_it: far_hops();
    a_host_without_ip6_claims_none_for_its_hops_over_a_relay: without_ip6("false");
    a_host_without_ip6_claims_none_for_its_direct_path: without_ip6("true");
    the_far_hop_behind_a_foreign_relay_is_unknown: foreign_relay();
    a_reservation_without_addresses_is_the_reason_wherever_one_is_given: no_addresses();
    two_hosts_with_one_key_are_reported_by_both_and_by_the_relay_until_one_ends: one_key();
}

const PUNCH: &str = "P2PNODE_PUNCH_ENABLED";

/// Asserts that the near hop of a path is on the wire: its sockets, its transport, its family.
async fn verify_near_hop(capture: &Capture, host: &Host, path: &Value) -> Result<()> {
    let (local, remote) = sockets(path)?;
    let family = if remote.is_ipv4() { "ip4" } else { "ip6" };
    ensure!(path["hops"][0]["family"] == family, "{path}");
    capture
        .has_flow(host, protocol(path), (local, remote))
        .await
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn all_paths(status: &Value) -> impl Iterator<Item = &Value> {
    let peers = list(&status["relays"]).chain(list(&status["peers"]));
    peers.flat_map(|peer| list(&peer["paths"]))
}

async fn relayed() -> Result<()> {
    let running = Running::new(NatKind::DualStack, NatKind::EimApdfRewrite);
    let both = running
        .prepare()
        .await?
        .a_env(PUNCH, "false")
        .start()
        .await?;
    both.dial_relayed().await?;
    for ((node, peer), side) in both.ways().into_iter().zip(both.sides()) {
        let legs = 2 * side.host.addresses.len();
        let look = |status: &Value| {
            let there = list(&status["relays"][0]["paths"]).count() == legs;
            there.then(|| status.clone())
        };
        let status = node.until("all legs to the relay", PATIENCE, look).await?;
        for path in all_paths(&status) {
            verify_near_hop(&side.home, &side.host, path).await?;
        }
        let path = &control::peer(&status, &peer.id)["path"];
        events::has(path, &json!({"kind": "relayed", "relay": both.relay.id}))?;
        // The near hop of a circuit is one of the legs to its relay.
        let near = sockets(path)?;
        let mut legs = list(&status["relays"][0]["paths"]).filter_map(|leg| sockets(leg).ok());
        ensure!(
            legs.any(|leg| leg == near),
            "{path} runs over no leg: {status}"
        );
        // The far one is what the other side has, or unknown: never what it has not.
        let far = &path["hops"][1];
        let theirs = peer.control.status().await?;
        let theirs = &control::peer(&theirs, &node.id)["path"]["hops"][0];
        for axis in ["transport", "family"] {
            ensure!(
                far[axis] == theirs[axis] || far[axis] == "unknown",
                "{far}, and the other side has {theirs}"
            );
        }
        let why = node.control.why(&peer.id).await?;
        let same = json!({"relay": path["relay"], "hops": [{"local": path["hops"][0]["local"]}]});
        events::has(&why, &json!({"candidates": [{"path": same}]}))?;
    }
    Ok(())
}

/// A has IPv6 only and QUIC, B has IPv4 only and TCP: they meet at the relay and nowhere else.
async fn far_hops() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let (_a, a_host) = lab.home("a", NatKind::Ip6Firewall).await?;
    let (_b, b_host) = lab.home("b", NatKind::EimApdf).await?;
    let a = relay.node("a", &a_host, &[Transport::Quic]).await?;
    let b = relay.node("b", &b_host, &[Transport::Tcp]).await?;
    let hop = |transport, family| json!({"transport": transport, "family": family, "reported_by": "relay"});
    let until = ["--until", "connected"];
    let dial = a.dial_with("a-dial", &b.id, &until).await?;
    let path = &dial.result()?.json["path"];
    events::has(
        path,
        &json!({"hops": [{"family": "ip6"}, hop("tcp", "ip4")]}),
    )?;
    ensure!(path["hops"][1]["rtt_ms"].is_number(), "{path}");
    for (node, peer, far) in [(&a, &b, hop("tcp", "ip4")), (&b, &a, hop("quic", "ip6"))] {
        let wanted = json!({"hops": [{}, far]});
        let look = |status: &Value| {
            let path = &control::peer(status, &peer.id)["path"];
            // The far hop has no socket: nobody but the relay can know it.
            (events::has(path, &wanted).is_ok() && path["hops"][1]["local"].is_null()).then_some(())
        };
        node.until("the far hop", PATIENCE, look).await?;
        let why = node.control.why(&peer.id).await?;
        events::has(&why, &json!({"candidates": [{"path": wanted}]}))?;
    }
    Ok(())
}

/// Everything that a node reports of its paths, for people and for programs, the far hop of circuits aside.
async fn reported(node: &Node, peer: &Node) -> Result<Vec<String>> {
    let status = node.control.status().await?;
    let why = node.control.why(&peer.id).await?;
    let near = |path: &Value| path["hops"][0].to_string();
    let mut lines: Vec<String> = all_paths(&status).map(near).collect();
    lines.extend(list(&why["candidates"]).map(|candidate| near(&candidate["path"])));
    let events = node.process.events();
    let connected = events.iter().filter(|event| event.name() == "connected");
    lines.extend(connected.map(|event| near(&event.json["path"])));
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
async fn without_ip6(punch: &str) -> Result<()> {
    let running = Running::new(NatKind::DualStack, NatKind::DualStack);
    let prepared = running.prepare().await?.a_env(PUNCH, punch);
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
    let lines = reported(&both.a, &both.b).await?;
    ensure!(lines.len() > 4, "too little is reported: {lines:?}");
    let claimed = lines.iter().find(|line| line.contains("ip6"));
    ensure!(claimed.is_none(), "A has no IPv6 and reports: {claimed:?}");
    let sent = both.a_side.home.sent_by(&both.a_side.host.addresses);
    ensure!(
        sent.iter().all(|packet| packet.source.is_ipv4()),
        "A has sent IPv6"
    );
    // What B reports of A's leg, or of the direct connection to A, is IPv4 or unknown.
    let status = both.b.control.status().await?;
    for path in list(&control::peer(&status, &both.a.id)["paths"]) {
        let far = list(&path["hops"]).last().context("a path without hops")?;
        ensure!(far["family"] != "ip6", "B reports of A: {path}");
    }
    Ok(())
}

async fn foreign_relay() -> Result<()> {
    let lab = Lab::of_test().await?;
    let far = lab.public_host("foreign").await?;
    let (_relay, address) = stranger::relay(&far, "foreign", Transport::Quic, &[]).await?;
    let args = NodeArgs::with_relays(vec![address.clone()], &[Transport::Quic]);
    let a_side = Peer::new(&lab, "a", NatKind::EimApdf).await?;
    let b_side = Peer::new(&lab, "b", NatKind::EimApdf).await?;
    let node = |name: &str, host: &Host| anyhow::Ok(args.run_on(host, name)?.env(PUNCH, "false"));
    let a = node("a", &a_side.host)?.reserves(&a_side.host).await?;
    let b = node("b", &b_side.host)?.reserves(&b_side.host).await?;
    let until = ["--until", "connected"];
    let dial = a.dial_with("a-dial", &b.id, &until).await?;
    ensure!(dial.code == 0, "{dial:?}");

    let status = a.control.status().await?;
    let path = &control::peer(&status, &b.id)["path"];
    let unknown = json!({"transport": "unknown", "family": "unknown"});
    let relay = address.rsplit('/').next().unwrap_or_default();
    events::has(path, &json!({"relay": relay, "hops": [{}, unknown]}))?;
    ensure!(path["hops"][1].get("local").is_none(), "{path}");
    verify_near_hop(&a_side.home, &a.host, path).await?;
    for text in [
        a.control.text(&["status"]).await?,
        a.control.text(&["why", &b.id]).await?,
    ] {
        let mut circuits = text.lines().filter(|line| line.contains(" | "));
        ensure!(circuits.any(|line| line.contains(" | unknown (")), "{text}");
    }
    Ok(())
}

/// A relay that grants reservations and does not announce where it is.
async fn no_addresses() -> Result<()> {
    const WHY: &str = "its reservation names no address at which peers reach this node";
    let lab = Lab::of_test().await?;
    let far = lab.public_host("foreign").await?;
    let args = ["--unannounced"];
    let (_relay, address) = stranger::relay(&far, "foreign", Transport::Quic, &args).await?;
    let args = NodeArgs::with_relays(vec![address], &[Transport::Quic]);
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let host = lab.public_host(name).await?;
        let node = args.run_on(&host, name)?.env(ADMIN_LISTEN, ADMIN);
        let node = node.runs(&host).await?;
        let shown = |status: &Value| status["relays"].to_string().contains(WHY).then_some(());
        node.until("why there is no reservation", PATIENCE, shown)
            .await?;
        let ready = admin::readiness(&host, 503).await?;
        ensure!(
            ready.contains(WHY) && ready.contains("`announce`"),
            "{ready}"
        );
        nodes.push(node);
    }
    let dial = nodes[0].control.dial_within("dial", &nodes[1].id, "3s");
    let dial = dial.on(&nodes[0].host)?.ended().await?;
    let reason = dial.is("unreachable")?.text("/reason");
    ensure!(
        reason.contains("does not accept the reservation") && reason.contains("`status` says why"),
        "{reason}"
    );
    Ok(())
}

const SHARED: &str = "two hosts use the key of one peer";

/// Waits until the relay counts so many keys of two hosts.
async fn counted(lab: &Lab, relay: &Relay, keys: u64) -> Result<()> {
    let socket = control_socket(lab.artifacts(), "relay");
    let watch = Launch::new(format!("relay-watch-{keys}"), &bins()?.relay_node)
        .args(["status", "--watch", "--json"])
        .env(RELAY_CONTROL_SOCKET, socket)
        .on(&relay.host)?;
    let is_so = |events: &[Event]| {
        let counted = events.last()?.json["shared_keys"].as_u64();
        (counted.unwrap_or_default() == keys).then_some(())
    };
    watch.until("the shared keys", PATIENCE * 3, is_so).await
}

/// Two hosts behind two NATs have one key, and each uses another transport. A process that starts again is one host.
async fn one_key() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let (_, a_host) = lab.home("a", NatKind::EimApdf).await?;
    let (_, b_host) = lab.home("b", NatKind::Symmetric).await?;
    let mut before = relay.node("before", &a_host, &[Transport::Quic]).await?;
    for name in ["a.key", "b.key"] {
        fs::copy(a_host.file("before.key"), a_host.file(name))?;
    }
    before.process.kill().await?;
    let a = relay.node("a", &a_host, &[Transport::Quic]).await?;
    ensure!(a.id == before.id, "{} and {}", a.id, before.id);
    let ended = |lines: &[Event]| {
        let mut lines = lines.iter();
        let ended = lines.any(|line| line.line.contains("reservation ended"));
        ended.then_some(())
    };
    let process = &relay.process;
    process
        .log_until("the end of the one before", PATIENCE * 4, ended)
        .await?;
    ensure!(!process.log().contains(SHARED), "{}", process.log());
    let events = a.process.events();
    let mut reports = events.iter().filter(|event| event.name() == "key_shared");
    ensure!(reports.next().is_none(), "{events:?}");

    let mut b = relay.node("b", &b_host, &[Transport::Tcp]).await?;
    ensure!(a.id == b.id, "{} and {}", a.id, b.id);
    for node in [&a, &b] {
        let shared = node.process.event("key_shared", PATIENCE * 4).await?;
        shared.has(&json!({"relay": relay.id}))?;
        let status = node.control.status().await?;
        ensure!(status["key_also_at"] == shared.json["at"], "{status}");
        let text = node.control.text(&["status"]).await?;
        ensure!(text.contains("also used by another host"), "{text}");
        let remedy = "Give each host a key of its own";
        node.process.logged(remedy, PATIENCE).await?;
    }
    process.logged(SHARED, PATIENCE).await?;
    counted(&lab, &relay, 1).await?;

    b.process.terminate()?;
    b.process.exit(PATIENCE).await?;
    a.process.event("key_alone", PATIENCE * 3).await?;
    counted(&lab, &relay, 0).await?;
    let status = a.control.status().await?;
    ensure!(status["key_also_at"].is_null(), "{status}");
    Ok(())
}
