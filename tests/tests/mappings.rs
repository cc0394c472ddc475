//! `mappings.mode`: a node has its punch ports mapped by a real router, miniupnpd, has a relay prove the mappings, offers what is
//! proved, and leaves nothing behind.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use p2pnode_tests::{
    prelude::*,
    probe,
    router::{granted, liar, mapping, mappings, router, until_granted},
};

lab_tests! {
    pcp_opens_the_punch_ports_from_the_range_and_closes_them_at_the_end: maps("pcp", "Pcp");
    nat_pmp_opens_the_punch_ports_from_the_range_and_closes_them_at_the_end: maps("nat-pmp", "NatPmp");
    upnp_opens_the_punch_ports_from_the_range_and_closes_them_at_the_end: maps("upnp", "Upnp");
    of_everything_that_a_router_knows_auto_takes_pcp: maps("auto", "Pcp");
    a_mapped_home_is_direct_with_symmetric_peers_over_quic: mapped_pairs(NatKind::EimApdf, Transport::Quic);
    a_mapped_home_is_direct_with_symmetric_peers_over_tcp: mapped_pairs(NatKind::EimApdf, Transport::Tcp);
    a_mapped_symmetric_site_is_direct_with_homes_over_quic: mapped_pairs(NatKind::Symmetric, Transport::Quic);
    a_mapped_symmetric_site_is_direct_with_homes_over_tcp: mapped_pairs(NatKind::Symmetric, Transport::Tcp);
    what_a_router_grants_and_drops_is_offered_to_nobody_and_given_back: lies();
    a_mapping_that_dies_is_withdrawn_within_30_s: dies();
    after_a_reboot_of_the_router_the_ports_are_mapped_again: reboots();
    behind_a_new_address_of_the_router_the_new_one_is_offered: moves();
    behind_a_full_cone_that_maps_nothing_on_request_ports_are_held: holds(NatKind::FullCone, "hold");
    without_an_answer_of_the_router_auto_holds_the_ports: holds(NatKind::FullCone, "auto");
    behind_a_filter_by_port_what_is_held_is_offered_to_nobody: held_in_vain();
}

/// What is published has to follow what happens at the router within this time.
const FOLLOWS: Duration = Duration::from_secs(30);

/// A relay, a stranger with a public address, and a peer behind a NAT.
async fn stage(kind: NatKind) -> Result<(Lab, Relay, Host, Peer)> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let stranger = lab.public_host("stranger").await?;
    let peer = Peer::new(&lab, "a", kind).await?;
    Ok((lab, relay, stranger, peer))
}

async fn maps(mode: &str, method: &str) -> Result<()> {
    let (lab, relay, stranger, peer) = stage(NatKind::EimApdf).await?;
    let _daemon = router(&lab, &peer).await?;
    let launch = relay
        .run("a", &peer.host, &Transport::ALL)?
        .env("P2PNODE_MAPPINGS_MODE", mode);
    let mut node = launch.reserves(&peer.host).await?;
    for protocol in ["UDP", "TCP"] {
        let mapped = |lines: &[Event]| {
            let says = |line: &&Event| {
                line.line.contains(protocol) && line.line.contains(&format!("method={method}"))
            };
            lines.iter().find(says).map(|_| ())
        };
        node.process
            .log_until(&format!("{protocol} mapped"), PATIENCE, mapped)
            .await?;
    }
    for protocol in ["udp", "tcp"] {
        mapping(&node, 0, protocol, "verified", PATIENCE * 2).await?;
    }
    let status = node.control.status().await?;
    let port = status["punch_ports"]["tcp/ip4"]
        .as_u64()
        .context("a TCP punch port")?;
    let outside = peer.site.outside_ip4().context("an outside address")?;
    let mapped: SocketAddr = (outside, u16::try_from(port)?).into();
    for entry in mappings(&status) {
        ensure!(entry["verified"] == mapped.to_string(), "{status}");
    }
    ensure!(
        probe::connects(&stranger, 7001, mapped).await?,
        "{mapped} is closed"
    );
    until_granted(&peer, 2).await?;
    node.process.terminate()?;
    ensure!(node.process.exit(PATIENCE).await?.success());
    ensure!(granted(&peer)? == 0, "mappings are left behind");
    ensure!(
        !probe::connects(&stranger, 7002, mapped).await?,
        "{mapped} is open"
    );
    peer.settle().await?;
    peer.keeps_range().await
}

/// Ports that are held, and an exposed one that a stranger reaches.
async fn holds(kind: NatKind, mode: &str) -> Result<()> {
    let (lab, relay, stranger, peer) = stage(kind).await?;
    let target = probe::listen(&peer.host, 8000).await?;
    let config = lab.artifacts().file("a.yaml");
    let web = "expose: { web: { protocol: tcp, target: \"tcp://127.0.0.1:8000\" } }\n";
    std::fs::write(&config, web)?;
    let launch = relay
        .run("a", &peer.host, &Transport::ALL)?
        .env("P2PNODE_MAPPINGS_MODE", mode)
        .arg("--config")
        .arg(&config);
    let mut node = launch.reserves(&peer.host).await?;
    let all = |events: &[Event]| {
        let verified =
            |event: &&Event| event.name() == "mapping" && event.text("/state") == "verified";
        let ports = events.iter().filter(verified);
        let ports: BTreeSet<String> = ports
            .map(|event| format!("{} {}", event.text("/protocol"), event.json["port"]))
            .collect();
        (ports.len() == 3).then_some(())
    };
    node.process.until("three ports", PATIENCE * 2, all).await?;
    let status = node.control.status().await?;
    ensure!(
        mappings(&status).all(|entry| entry["method"] == "hold" && entry["verified"].is_string()),
        "{status}"
    );
    let punch = status["punch_ports"]["tcp/ip4"].as_u64();
    let exposed = mappings(&status)
        .find(|entry| entry["protocol"] == "tcp" && entry["port"].as_u64() != punch)
        .context("the exposed port")?;
    let at: SocketAddr = exposed["verified"]
        .as_str()
        .context("an address")?
        .parse()?;
    ensure!(
        probe::connects(&stranger, 7001, at).await?,
        "{at} is closed"
    );
    target.accept().await?;
    node.process.terminate()?;
    ensure!(node.process.exit(PATIENCE).await?.success());
    peer.settle().await?;
    peer.keeps_range().await
}

async fn held_in_vain() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let peer = Peer::new(&lab, "a", NatKind::EimApdf).await?;
    let launch = relay
        .run("a", &peer.host, &Transport::ALL)?
        .env("P2PNODE_MAPPINGS_MODE", "hold");
    let node = launch.reserves(&peer.host).await?;
    mapping(&node, 0, "udp", "claimed", PATIENCE).await?;
    mapping(&node, 0, "udp", "lost", FOLLOWS).await?;
    let verified = |event: &Event| event.name() == "mapping" && event.text("/state") == "verified";
    ensure!(!node.process.events().iter().any(verified));
    peer.settle().await?;
    peer.keeps_range().await
}

async fn start(relay: &Relay, peer: &Peer, over: &[Transport]) -> Result<Node> {
    let launch = relay
        .run("a", &peer.host, over)?
        .env("P2PNODE_MAPPINGS_MODE", "pcp");
    launch.reserves(&peer.host).await
}

/// Where the TCP port of the node is reached.
async fn verified(node: &Node, skip: usize) -> Result<SocketAddr> {
    let event = mapping(node, skip, "tcp", "verified", FOLLOWS * 2).await?;
    Ok(event.text("/address").parse()?)
}

/// Both ports are verified. Returns where TCP is.
async fn both_verified(node: &Node) -> Result<SocketAddr> {
    mapping(node, 0, "udp", "verified", FOLLOWS * 2).await?;
    verified(node, 0).await
}

async fn mapped_pairs(kind: NatKind, transport: Transport) -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let peer = Peer::new(&lab, "a", kind).await?;
    let _daemon = router(&lab, &peer).await?;
    let over = [transport];
    let node = start(&relay, &peer, &over).await?;
    let protocol = match transport {
        Transport::Quic => "udp",
        Transport::Tcp => "tcp",
    };
    let proved = mapping(&node, 0, protocol, "verified", FOLLOWS).await?;
    let proved: SocketAddr = proved.text("/address").parse()?;
    let other = if kind == NatKind::Symmetric {
        NatKind::EimApdf
    } else {
        NatKind::Symmetric
    };
    // Who has been direct once has a warm NAT: each way has a peer of its own.
    let caller = Peer::new(&lab, "b", other).await?;
    let caller_node = relay.node("b", &caller.host, &over).await?;
    caller_node.dial("in", &node.id).await?.is("direct")?;
    let called = Peer::new(&lab, "c", other).await?;
    let called_node = relay.node("c", &called.host, &over).await?;
    let dial = node.dial("out", &called_node.id).await?;
    dial.is("direct")?;
    let candidate = format!("/ip4/{}/{protocol}/{}", proved.ip(), proved.port());
    let sent = dial.all("punch").any(|punch| {
        let sent = punch.json["sent"].as_array();
        sent.is_some_and(|sent| {
            sent.iter()
                .any(|addr| addr.to_string().contains(&candidate))
        })
    });
    ensure!(sent, "{candidate} was not offered: {:?}", dial.events);
    for side in [&peer, &caller, &called] {
        side.settle().await?;
        side.keeps_range().await?;
    }
    Ok(())
}

async fn lies() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let peer = Peer::new(&lab, "a", NatKind::EimApdf).await?;
    let _daemon = liar(&lab, &peer).await?;
    let node = start(&relay, &peer, &Transport::ALL).await?;
    for protocol in ["udp", "tcp"] {
        mapping(&node, 0, protocol, "claimed", PATIENCE).await?;
        mapping(&node, 0, protocol, "lost", FOLLOWS).await?;
    }
    let events = node.process.events();
    let is_believed = events
        .iter()
        .any(|event| event.text("/state") == "verified");
    ensure!(!is_believed, "{events:?}");
    until_granted(&peer, 0).await?;
    let status = node.control.status().await?;
    ensure!(mappings(&status).next().is_none(), "{status}");
    let report = node.control.text(&["netcheck", "--json"]).await?;
    let report: Value = serde_json::from_str(&report)?;
    let checks = report["checks"].as_array().context("checks")?;
    let mapping = checks.iter().filter(|check| check["id"] == "mapping");
    let mapping: Vec<_> = mapping.collect();
    ensure!(mapping.len() == 2, "{report}");
    for check in mapping {
        let text = check["text"].as_str().context("a text")?;
        let is_named = text.starts_with("PCP: the router has granted 11.0.0.1:");
        let is_warned = check["status"] == "warn" && check["remedy"].is_object();
        ensure!(is_named && is_warned, "{check}");
    }
    Ok(())
}

async fn dies() -> Result<()> {
    let (lab, relay, stranger, peer) = stage(NatKind::EimApdf).await?;
    let _daemon = router(&lab, &peer).await?;
    let node = start(&relay, &peer, &Transport::ALL).await?;
    let mapped = verified(&node, 0).await?;
    mapping(&node, 0, "udp", "verified", FOLLOWS).await?;
    ensure!(probe::connects(&stranger, 7001, mapped).await?);
    // What the router has granted is there, and works no longer.
    let drop = "nft insert rule inet lab forward iifname ix ct state new drop";
    peer.site.shell(drop)?;
    for protocol in ["udp", "tcp"] {
        mapping(&node, 0, protocol, "withdrawn", FOLLOWS).await?;
    }
    ensure!(!probe::connects(&stranger, 7002, mapped).await?);
    Ok(())
}

async fn reboots() -> Result<()> {
    let (lab, relay, stranger, peer) = stage(NatKind::EimApdf).await?;
    let mut daemon = router(&lab, &peer).await?;
    let node = start(&relay, &peer, &Transport::ALL).await?;
    let mapped = both_verified(&node).await?;
    daemon.kill().await?;
    peer.site.shell("nft delete table inet miniupnpd")?;
    ensure!(!probe::connects(&stranger, 7001, mapped).await?);
    let _daemon = liar(&lab, &peer).await?;
    let looks = async {
        while granted(&peer)? < 2 || !probe::connects(&stranger, 7002, mapped).await? {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(FOLLOWS, looks).await??;
    let skip = node.process.events().len();
    let status = node.control.status().await?;
    if mappings(&status).any(|entry| entry["verified"] == Value::Null) {
        mapping(&node, skip, "tcp", "verified", FOLLOWS).await?;
    }
    Ok(())
}

async fn moves() -> Result<()> {
    let (lab, relay, stranger, peer) = stage(NatKind::EimApdf).await?;
    let _daemon = router(&lab, &peer).await?;
    let node = start(&relay, &peer, &Transport::ALL).await?;
    let mapped = both_verified(&node).await?;
    let (before, after) = (mapped.ip().to_string(), neighbour(mapped.ip())?);
    let skip = node.process.events().len();
    // What the router translates from now on has the new address, and so has what comes in.
    peer.site.shell(&format!(
        "set -e; p=$(ip -o -4 addr show dev ix | awk '{{print $4}}' | head -1); g=$(ip route show default | awk '{{print $3}}')
         nft list table ip lab_nat | sed 's/{before}/{after}/g' > /tmp/lab_nat.$$; nft delete table ip lab_nat; nft -f /tmp/lab_nat.$$; rm /tmp/lab_nat.$$
         ip addr del $p dev ix; ip addr add {after}/${{p#*/}} dev ix; ip route replace default via $g dev ix; conntrack -F 2>/dev/null || true"
    ))?;
    let now = verified(&node, skip).await?;
    ensure!(now.ip().to_string() == after, "{now} is not at {after}");
    ensure!(probe::connects(&stranger, 7001, now).await?);
    Ok(())
}

/// Another address of the same network, which nobody has.
fn neighbour(ip: IpAddr) -> Result<String> {
    let text = ip.to_string();
    let (network, _) = text.rsplit_once('.').context("an address of IPv4")?;
    Ok(format!("{network}.222"))
}
