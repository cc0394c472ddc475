//! Source NAT that keeps the range ahead of a cluster's masquerade: the rules as text, and as what the kernel is asked for.

use std::fmt::Write as _;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use p2pnode_daemon::exit::Usage;
use p2pnode_transports::{Family, KeptPorts};

use super::rules::{Protocol, Rules};

/// Networks that pods have their addresses from, if none are named: private ones (RFC 1918, RFC 6598, RFC 4193).
const PRIVATE: [IpNet; 5] = [
    ip4([10, 0, 0, 0], 8),
    ip4([172, 16, 0, 0], 12),
    ip4([192, 168, 0, 0], 16),
    ip4([100, 64, 0, 0], 10),
    IpNet::V6(Ipv6Net::new_assert(
        std::net::Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0),
        7,
    )),
];

const fn ip4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(
        std::net::Ipv4Addr::new(a, b, c, d),
        prefix,
    ))
}

const ABOUT: &str = "# Load it on the node, where the cluster's network masquerades. Loading it again replaces it.\n\
    # Flows that exist keep their ports as long as they live. End those of a pod: conntrack -D -s POD_ADDRESS\n";

/// Whose ports are kept: those of these pods, or of all private networks.
pub(crate) fn kept(rules: &Rules, pods: &[IpNet], out: Option<&str>) -> Result<KeptPorts, Usage> {
    let named = if pods.is_empty() { &PRIVATE } else { pods };
    let is_used = |pods: &&IpNet| rules.families.contains(&Family::from(pods.addr()));
    let used: Vec<_> = named.iter().filter(is_used).map(IpNet::trunc).collect();
    if used.is_empty() {
        let pods: Vec<_> = pods.iter().map(IpNet::to_string).collect();
        return Err(Usage(format!(
            "--pods {}: dial.family allows no such address. Name a network of its family.",
            pods.join(" ")
        )));
    }
    Ok(KeptPorts {
        range: rules.range,
        udp: rules.protocols.contains(&Protocol::Udp),
        tcp: rules.protocols.contains(&Protocol::Tcp),
        pods: used,
        out: out.map(str::to_owned),
    })
}

/// An argument of `--pods`.
pub(crate) fn pods(text: &str) -> Result<IpNet, String> {
    let network: IpNet = text
        .parse()
        .map_err(|_| "expected a network, as in 10.244.0.0/16".to_owned())?;
    if network.prefix_len() == 0 {
        return Err(
            "every address is a pod's, so none is outside the cluster. Name the pods' network"
                .to_owned(),
        );
    }
    Ok(network)
}

/// An argument of `--out`. The kernel's names have up to 15 bytes; these need no quotes in any format.
pub(crate) fn interface(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@:".contains(&byte);
    if text.is_empty() || text.len() > 15 || !text.bytes().all(is_plain) {
        return Err("expected the name of an interface, as in eth0".to_owned());
    }
    Ok(text.to_owned())
}

/// For `nft -f`: a table of its own in each family, before `srcnat`.
pub(super) fn nft(kept: &KeptPorts) -> String {
    let (table, chain) = (kept.table(), KeptPorts::CHAIN);
    let mut text = format!(
        "{}{ABOUT}# Its priority is before that of the cluster's rules, whichever is loaded first.\n# Remove it:",
        about(kept)
    );
    for family in families(kept) {
        let separator = if text.ends_with(':') { "" } else { ";" };
        let _ = write!(
            text,
            "{separator} nft delete table {} {table}",
            nft_family(family)
        );
    }
    text.push('\n');
    for family in families(kept) {
        let ip = nft_family(family);
        // Declared first, so that there is one to delete.
        let _ = writeln!(
            text,
            "table {ip} {table}\ndelete table {ip} {table}\ntable {ip} {table} {{\n\tchain {chain} {{\n\
             \t\ttype nat hook postrouting priority srcnat - {}; policy accept;",
            100 - KeptPorts::PRIORITY
        );
        if let Some(out) = &kept.out {
            let _ = writeln!(text, "\t\toifname != \"{out}\" return");
        }
        for pods in kept.pods_of(family) {
            let _ = writeln!(text, "\t\t{ip} daddr {pods} return");
        }
        for (pods, protocol) in matches(kept, family) {
            let (range, protocol) = (kept.range, protocol.lower());
            let _ = writeln!(
                text,
                "\t\t{ip} saddr {pods} {protocol} sport {range} masquerade to :{range}"
            );
        }
        text.push_str("\t}\n}\n");
    }
    text
}

/// A script for `sh`: a chain of its own, and one jump to it at the top of POSTROUTING.
pub(super) fn iptables(kept: &KeptPorts) -> String {
    let chain = kept.table().to_uppercase();
    let jump = format!(
        "POSTROUTING -m comment --comment \"p2pnode: the range keeps its ports\" -j {chain}"
    );
    let mut text = format!(
        "{}{ABOUT}# The jump is first in POSTROUTING. If the cluster's network puts a rule before it later, load this again.\n\
         # nft-snat needs no such care. Remove it:\n",
        about(kept)
    );
    for family in families(kept) {
        let iptables = iptables_of(family);
        let _ = writeln!(
            text,
            "#   {iptables} -w -t nat -D {jump} && {iptables} -w -t nat -F {chain} && {iptables} -w -t nat -X {chain}"
        );
    }
    text.push_str("set -e\n");
    for family in families(kept) {
        let iptables = iptables_of(family);
        let (first, last) = (kept.range.start(), kept.range.end());
        // Jumps of an earlier load go in the same step as the new one comes.
        let _ = writeln!(
            text,
            "{{\n\tprintf '%s\\n' '*nat' ':{chain} - [0:0]'\n\
             \t{iptables} -w -t nat -S POSTROUTING | sed -n 's/^-A \\(.*-j {chain}\\)$/-D \\1/p'\n\
             \tcat <<'RULES'\n-I {jump}"
        );
        if let Some(out) = &kept.out {
            let _ = writeln!(text, "-A {chain} ! -o {out} -j RETURN");
        }
        for pods in kept.pods_of(family) {
            let _ = writeln!(text, "-A {chain} -d {pods} -j RETURN");
        }
        for (pods, protocol) in matches(kept, family) {
            let protocol = protocol.lower();
            let _ = writeln!(
                text,
                "-A {chain} -s {pods} -p {protocol} -m {protocol} --sport {first}:{last} -j MASQUERADE --to-ports {first}-{last}"
            );
        }
        let _ = writeln!(text, "COMMIT\nRULES\n}} | {iptables}-restore -w --noflush");
    }
    text
}

fn about(kept: &KeptPorts) -> String {
    let pods: Vec<_> = kept.pods.iter().map(IpNet::to_string).collect();
    format!(
        "# Packets of pods ({}) from source ports {} keep their port when they leave the cluster.\n",
        pods.join(", "),
        kept.range
    )
}

fn families(kept: &KeptPorts) -> impl Iterator<Item = Family> {
    let families = [Family::Ip4, Family::Ip6].into_iter();
    families.filter(|family| kept.is_for(*family))
}

fn matches(kept: &KeptPorts, family: Family) -> impl Iterator<Item = (IpNet, Protocol)> {
    let protocols = [(Protocol::Udp, kept.udp), (Protocol::Tcp, kept.tcp)];
    let protocols = protocols.into_iter().filter(|(_, is_on)| *is_on);
    kept.pods_of(family)
        .flat_map(move |pods| protocols.clone().map(move |(protocol, _)| (pods, protocol)))
}

const fn nft_family(family: Family) -> &'static str {
    match family {
        Family::Ip4 => "ip",
        Family::Ip6 => "ip6",
    }
}

const fn iptables_of(family: Family) -> &'static str {
    match family {
        Family::Ip4 => "iptables",
        Family::Ip6 => "ip6tables",
    }
}
