//! `p2pnode firewall --format nft-snat|iptables-snat`: pods behind a masquerade with random ports keep the range, and become direct.
//!
//! The router of a symmetric site is a cluster's node here: it masquerades `fully-random`, as CNIs do. Its LAN has the pods.

use std::fs;

use p2pnode_tests::{capture::Side, node::printed, prelude::*, probe};

lab_tests! {
    pods_behind_a_random_masquerade_are_relayed_and_with_the_printed_nft_rules_direct: relayed_then_direct();
    pods_whose_range_iptables_keeps_are_direct_over_tcp: direct_with(Transport::Tcp, Keeps::Iptables);
    pods_whose_range_a_process_keeps_are_direct_over_quic: direct_with(Transport::Quic, Keeps::Process);
    the_printed_rules_replace_themselves_stay_first_and_go_with_the_printed_command: loaded_and_removed();
    the_kept_rule_is_the_printed_one_and_ends_with_its_process: kept_by_a_process();
    a_flow_that_was_translated_ends_when_the_rule_comes: old_flows_end();
}

#[derive(Clone, Copy, Debug)]
enum Keeps {
    Iptables,
    Process,
}

const TABLE: &str = "p2pnode-snat-40000-40050";
const ARGS: [&str; 3] = ["firewall", "--format", "nft-snat"];

/// What a CNI loads after us: its rule is at the top of iptables' chain.
const CNI: &str =
    "iptables -w -t nat -I POSTROUTING -s 192.168.0.0/16 -j MASQUERADE --random-fully";

/// Prints the rules and loads them in the router, as their comments say.
async fn load(lab: &Lab, peer: &Peer, format: &str) -> Result<String> {
    let rules = printed(
        &peer.host,
        &bins()?.p2pnode,
        &["firewall", "--format", format],
    )
    .await?;
    let file = lab
        .artifacts()
        .file(&format!("{}.{format}", peer.host.device.name()));
    fs::write(&file, format!("{rules}\n"))?;
    let program = if format == "nft-snat" { "nft -f" } else { "sh" };
    peer.site.shell(&format!("{program} {}", file.display()))?;
    Ok(rules)
}

fn keep(lab: &Lab, peer: &Peer) -> Result<Process> {
    let name = format!("keeper-{}", peer.host.device.name());
    let keeper = Launch::new(name, bins()?.p2pnode).args(ARGS).arg("--keep");
    keeper.on_router(&peer.site, lab.artifacts())
}

async fn kept(lab: &Lab, peer: &Peer) -> Result<Process> {
    let keeper = keep(lab, peer)?;
    keeper.logged("pods keep the range", PATIENCE).await?;
    Ok(keeper)
}

async fn relayed_then_direct() -> Result<()> {
    let pods = Running::new(NatKind::Symmetric, NatKind::Symmetric).over(&[Transport::Quic]);
    let prepared = pods.prepare().await?;
    let over = &[Transport::Quic];
    let b = prepared.relay.node("b0", &prepared.b.host, over).await?;
    let a = NodeArgs::new(&prepared.relay, &prepared.a.host, over);
    let mut dial = a.dial_within("a0", &b.id, "5s")?.on(&prepared.a.host)?;
    dial.ended().await?.is("relayed")?;
    drop(b);
    for pod in [&prepared.a, &prepared.b] {
        load(&prepared.lab, pod, "nft-snat").await?;
        pod.site.shell("conntrack -F")?;
    }
    are_direct(prepared).await
}

async fn direct_with(transport: Transport, keeps: Keeps) -> Result<()> {
    let pods = Running::new(NatKind::Symmetric, NatKind::Symmetric).over(&[transport]);
    let prepared = pods.prepare().await?;
    let mut keepers = Vec::new();
    for pod in [&prepared.a, &prepared.b] {
        match keeps {
            Keeps::Iptables => drop(load(&prepared.lab, pod, "iptables-snat").await?),
            Keeps::Process => keepers.push(kept(&prepared.lab, pod).await?),
        }
        if matches!(keeps, Keeps::Process) {
            pod.site.shell(CNI)?;
        }
    }
    are_direct(prepared).await
}

/// They punch, and what leaves their clusters has ports of the range.
async fn are_direct(prepared: Prepared) -> Result<()> {
    let mut before = Vec::new();
    for side in [&prepared.a, &prepared.b] {
        side.settle().await?;
        before.push(side.home.packets(Side::Outside).len());
    }
    let both = prepared.start().await?;
    both.dial().await?;
    both.punched().await?;
    for (side, before) in both.sides().into_iter().zip(before) {
        side.settle().await?;
        let mut packets = side.home.packets(Side::Outside).split_off(before);
        packets.retain(|packet| packet.outgoing && !RANGE.contains(&packet.source.port()));
        ensure!(packets.is_empty(), "{packets:?}");
    }
    Ok(())
}

async fn loaded_and_removed() -> Result<()> {
    let lab = Lab::of_test().await?;
    let pod = Peer::new(&lab, "a", NatKind::Symmetric).await?;
    let x = lab.public_host("x").await?;
    let ruleset = || {
        pod.site
            .shell("nft -s list ruleset; iptables -w -t nat -S; ip6tables -w -t nat -S")
    };
    // The first rule makes iptables' own tables.
    for iptables in ["iptables", "ip6tables"] {
        let rule = "-w -t nat -A POSTROUTING -j MASQUERADE";
        pod.site.shell(&format!(
            "{iptables} {rule} && {iptables} {}",
            rule.replace("-A", "-D")
        ))?;
    }
    for format in ["nft-snat", "iptables-snat"] {
        let before = ruleset()?;
        let rules = load(&lab, &pod, format).await?;
        let once = ruleset()?;
        ensure!(once != before, "{format}: nothing is loaded");
        load(&lab, &pod, format).await?;
        ensure!(
            ruleset()? == once,
            "{format}: once {once}, twice {}",
            ruleset()?
        );
        pod.site.shell(CNI)?;
        if format == "iptables-snat" {
            // The one that does not come first by itself.
            load(&lab, &pod, format).await?;
        }
        for (port, is_kept) in [(40000, true), (40050, true), (40051, false), (39999, false)] {
            let seen = seen_from(&pod, &x, port).await?;
            ensure!(
                (seen == port) == is_kept,
                "{format}: {port} is seen as {seen}"
            );
        }
        pod.site.shell(&CNI.replace("-I", "-D"))?;
        pod.site.shell(&removal(&rules)?)?;
        ensure!(
            ruleset()? == before,
            "{format}: before {before}, after {}",
            ruleset()?
        );
    }
    Ok(())
}

/// The commands of the comment that says how to remove the rules.
fn removal(rules: &str) -> Result<String> {
    let comments = rules
        .lines()
        .skip_while(|line| !line.contains("Remove it:"));
    let mut comments = comments.take_while(|line| line.starts_with('#'));
    let first = comments.next().context("no removal")?;
    let on_line = first
        .split_once("Remove it:")
        .map(|(_, command)| command.to_owned());
    let below = comments.map(|line| line.trim_start_matches('#').trim().to_owned());
    let commands: Vec<_> = on_line
        .into_iter()
        .chain(below)
        .filter(|line| !line.is_empty())
        .collect();
    Ok(commands.join("\n"))
}

/// The port under which a public host sees UDP of a pod from this port.
async fn seen_from(pod: &Peer, x: &Host, port: u16) -> Result<u16> {
    // A destination of its own: the flow of an earlier look keeps its port.
    let observer = probe::udp(x, 0).await?;
    let to = (x.ip(false)?, observer.local_addr()?.port());
    probe::udp(&pod.host, port).await?.send_to(b"?", to).await?;
    Ok(probe::receive(&observer).await?.1.port())
}

async fn kept_by_a_process() -> Result<()> {
    let lab = Lab::of_test().await?;
    let pod = Peer::new(&lab, "a", NatKind::Symmetric).await?;
    load(&lab, &pod, "nft-snat").await?;
    let list = |family: &str| pod.site.shell(&format!("nft list table {family} {TABLE}"));
    // Without what marks its owner.
    let plain = |text: String| {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.contains("flags owner"));
        let lines = lines.map(|line| line.split(" # ").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    };
    let printed = [plain(list("ip")?), plain(list("ip6")?)];
    // It replaces what was loaded by hand.
    let mut keeper = kept(&lab, &pod).await?;
    for (family, printed) in ["ip", "ip6"].into_iter().zip(printed) {
        let kept = plain(list(family)?);
        ensure!(kept == printed, "kept: {kept}\nprinted: {printed}");
    }
    // Nobody else removes it, and a second keeper waits.
    let removed = pod.site.shell(&format!("nft delete table ip {TABLE}"));
    ensure!(removed.is_err(), "the table has no owner");
    pod.site.shell("nft flush ruleset")?;
    list("ip")?;
    let mut second = Launch::new("second", bins()?.p2pnode)
        .args(ARGS)
        .arg("--keep");
    second = second.env("P2PNODE_LOG_FORMAT", "text");
    let second = second.on_router(&pod.site, lab.artifacts())?;
    second.logged("trying again", PATIENCE).await?;
    keeper.terminate()?;
    let status = keeper.exit(PATIENCE).await?;
    ensure!(status.success(), "{status}");
    second.logged("pods keep the range", PATIENCE).await?;
    // Also a process that is killed leaves nothing behind.
    drop(second);
    let is_gone = async {
        while list("ip").is_ok() || list("ip6").is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_gone)
        .await
        .context("the rule stays")
}

async fn old_flows_end() -> Result<()> {
    let lab = Lab::of_test().await?;
    let pod = Peer::new(&lab, "a", NatKind::Symmetric).await?;
    let x = lab.public_host("x").await?;
    let observer = probe::udp(&x, 7001).await?;
    let socket = probe::udp(&pod.host, 40007).await?;
    let to = (x.ip(false)?, 7001);
    socket.send_to(b"?", to).await?;
    let before = probe::receive(&observer).await?.1.port();
    ensure!(
        before != 40007,
        "the masquerade has kept the port by chance"
    );
    let _keeper = kept(&lab, &pod).await?;
    socket.send_to(b"?", to).await?;
    let after = probe::receive(&observer).await?.1.port();
    ensure!(after == 40007, "{before}, then {after}");
    Ok(())
}
