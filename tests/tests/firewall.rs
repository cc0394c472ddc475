//! `p2pnode firewall`: hosts that drop everything but what its rules let through still register, punch and end direct.

use std::fs;

use p2pnode_tests::{node::printed, prelude::*, sandbox::tool};

lab_tests! {
    hosts_that_drop_all_else_register_punch_and_are_direct_over_quic: all_else_drops(Transport::Quic);
    hosts_that_drop_all_else_register_punch_and_are_direct_over_tcp: all_else_drops(Transport::Tcp);
    the_jumps_in_the_comments_can_be_inserted_where_their_chains_are: jumps();
}

/// What stands on the host already: nothing leaves, nothing comes in, but loopback, and the neighbours without which IPv6 has no
/// packets at all. The chains jump to the printed ones, as their comments say.
const NFT: &str = "
table inet filter {
    chain output { type filter hook output priority filter; policy drop; oifname lo accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; jump p2pnode-out; }
    chain input { type filter hook input priority filter; policy drop; iifname lo accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; jump p2pnode-in; }
}
";
const IPTABLES: &str = "*filter
:OUTPUT DROP [0:0]
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
-A OUTPUT -o lo -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A OUTPUT -j P2PNODE-OUT
-A INPUT -j P2PNODE-IN
COMMIT
";

/// Loads what `p2pnode firewall` prints, then a firewall that drops, then the printed rules again: they replace what was loaded.
async fn load(lab: &Lab, host: &Host, format: &str) -> Result<()> {
    let printed_rules = lab.artifacts().file(format);
    let rules = printed(host, &bins()?.p2pnode, &["firewall", "--format", format]).await?;
    fs::write(&printed_rules, rules + "\n")?;
    let drop = lab.artifacts().file(&format!("drop.{format}"));
    let (rules, check, programs): (_, &[&str], &[&str]) = match format {
        "nft" => (NFT, &["-c", "-f"], &["nft"]),
        _ => (
            IPTABLES,
            &["--test", "--noflush"],
            &["iptables-restore", "ip6tables-restore"],
        ),
    };
    fs::write(&drop, rules)?;
    for program in programs {
        for (step, file) in [&printed_rules, &printed_rules, &drop, &printed_rules]
            .into_iter()
            .enumerate()
        {
            // The first time they are only checked.
            let args = if step == 0 { check } else { &check[1..] };
            let file = file.to_str().context("a path")?;
            printed(host, &tool(program), &[args, &[file]].concat()).await?;
        }
    }
    Ok(())
}

/// What the comments ask for is what a host with chains of the usual names takes, and one without chains needs nothing.
async fn jumps() -> Result<()> {
    const CHAINS: &str = "table inet filter {
        chain output { type filter hook output priority filter; policy drop; }
        chain input { type filter hook input priority filter; policy drop; }
        chain forward { type filter hook forward priority filter; policy drop; }
    }";
    let lab = Lab::of_test().await?;
    let host = lab.public_host("host").await?;
    let p2pnode = bins()?.p2pnode;
    for (format, loads, program) in [
        ("nft", &["nft -f"][..], "nft "),
        (
            "iptables",
            &["iptables-restore --noflush", "ip6tables-restore --noflush"],
            "iptables ",
        ),
    ] {
        let rules = printed(&host, &p2pnode, &["firewall", "--format", format]).await?;
        let file = lab.artifacts().file(&format!("{format}.rules"));
        fs::write(&file, format!("{rules}\n"))?;
        let chains = lab.artifacts().file("chains.nft");
        fs::write(&chains, CHAINS)?;
        let mut script: Vec<_> = loads
            .iter()
            .map(|load| format!("{load} {}", file.display()))
            .collect();
        if format == "nft" {
            script.push(format!("nft -f {}", chains.display()));
        }
        let comments = rules.lines().filter(|line| line.starts_with('#'));
        let jumps = comments.filter_map(|line| {
            Some(format!(
                "{program}{}",
                line.split_once(&format!(" {program}"))?.1
            ))
        });
        let jumps: Vec<_> = jumps
            .filter(|jump| jump.contains("p2pnode") || jump.contains("P2PNODE"))
            .collect();
        ensure!(jumps.len() == 4, "{rules}");
        script.extend(jumps);
        let script = script.join(" && ").replace("LAN", "lo");
        printed(&host, std::path::Path::new("sh"), &["-c", &script]).await?;
    }
    Ok(())
}

async fn all_else_drops(transport: Transport) -> Result<()> {
    let running = Running::new(NatKind::DualStack, NatKind::EimApdfRewrite);
    let prepared = running.over(&[transport]).prepare().await?;
    load(&prepared.lab, &prepared.a.host, "nft").await?;
    load(&prepared.lab, &prepared.b.host, "iptables").await?;
    let both = prepared.start().await?;
    for side in both.sides() {
        drops(&both, &side.host, transport).await?;
    }
    both.dial().await?;
    both.settled(PATIENCE).await?;
    for side in both.sides() {
        // The dials from another port were stopped on the host itself.
        side.keeps_range().await?;
    }
    Ok(())
}

/// The firewall is one: what gets to the relay from the range gets nowhere from the port beside it.
async fn drops(both: &Both, host: &Host, transport: Transport) -> Result<()> {
    // The whole range: the host's node holds some of its ports.
    for (ports, code) in [("40000-40050", 0), ("40051-40051", 4)] {
        let name = format!("{}-{ports}", host.device.name());
        let mut dial = Launch::new(name, &bins()?.p2pnode)
            .args(["dial", &both.relay.id, "--json", "--until", "connected"])
            .args(["--timeout", "3s", "--port-range", ports]);
        for addr in both.relay.addresses(host, &[transport]) {
            dial = dial.args(["--addr", &addr]);
        }
        let dial = dial.on(host)?.ended().await?;
        ensure!(dial.code == code, "source ports {ports}: {dial:?}");
    }
    Ok(())
}
