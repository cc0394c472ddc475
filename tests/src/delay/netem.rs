//! Latency by the kernel: netem at each port of the internet's bridge, towards the site.

use super::link::{Family, Link};
use crate::command::run;
use anyhow::Result;

/// netem drops what exceeds its queue; its default is a few milliseconds of a fast transfer.
const PACKETS: &str = "100000";

/// Beyond any speed of the lab: the classes are only there to tell packets apart.
const RATE: &str = "100gbit";

/// Puts `link` on each port that there is. `Ok(Err(_))`: this kernel has no netem, in its own words.
pub(super) fn impose(link: Link) -> Result<Result<(), String>> {
    for port in ports()? {
        // What an earlier link left; at first there is nothing, and tc complains.
        let _nothing_to_delete = run("tc", &["qdisc", "del", "dev", &port, "root"]);
        for command in commands(&port, link) {
            let words: Vec<&str> = command.split_whitespace().collect();
            if let Err(error) = run("tc", &words) {
                let error = error.to_string();
                let _nothing_to_delete = run("tc", &["qdisc", "del", "dev", &port, "root"]);
                // Both wordings are in use: tc's own table, and the kernel's answer.
                return if error.contains("kind is unknown") || error.contains("No such file") {
                    Ok(Err(error))
                } else {
                    Err(anyhow::anyhow!(error))
                };
            }
        }
    }
    Ok(Ok(()))
}

/// IP goes through netem; the resolution of addresses (ARP, ICMPv6) does not.
fn commands(port: &str, link: Link) -> [String; 7] {
    let delay = link.one_way().as_micros();
    let loss = link.loss_percent;
    let [ip4, ip6] = Family::ALL.map(|family| 1 + u8::from(link.slows(family)));
    [
        format!("qdisc add dev {port} root handle 1: htb default 1"),
        format!("class add dev {port} parent 1: classid 1:1 htb rate {RATE} quantum 60000"),
        format!("class add dev {port} parent 1: classid 1:2 htb rate {RATE} quantum 60000"),
        format!(
            "qdisc add dev {port} parent 1:2 handle 2: netem limit {PACKETS} delay {delay}us loss {loss}%"
        ),
        format!(
            "filter add dev {port} parent 1: protocol ip prio 1 u32 match u32 0 0 flowid 1:{ip4}"
        ),
        format!(
            "filter add dev {port} parent 1: protocol ipv6 prio 2 u32 match ip6 protocol 58 0xff flowid 1:1"
        ),
        format!(
            "filter add dev {port} parent 1: protocol ipv6 prio 3 u32 match u32 0 0 flowid 1:{ip6}"
        ),
    ]
}

fn ports() -> Result<Vec<String>> {
    let listed = run("ip", &["-o", "link", "show", "type", "bridge_slave"])?;
    // `7: v12@if2: <BROADCAST,...`
    let name = |line: &str| {
        let (_, rest) = line.split_once(": ")?;
        let (name, _) = rest.split_once(": ")?;
        Some(name.split('@').next()?.to_owned())
    };
    Ok(listed.lines().filter_map(name).collect())
}
