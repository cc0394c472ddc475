//! nftables and iptables: chains to jump to from the chains that decide, so that what stands there stays as it is.

use std::fmt::Write as _;

use p2pnode_transports::Family;

use super::rules::{Protocol, Rules};

/// For `nft -f`. Loading it again replaces it.
pub(super) fn nft(rules: &Rules) -> String {
    let range = rules.range;
    let protocols: Vec<_> = rules
        .protocols
        .iter()
        .map(|protocol| protocol.lower())
        .collect();
    let family = match rules.families[..] {
        [Family::Ip4] => "meta nfproto ipv4 ",
        [Family::Ip6] => "meta nfproto ipv6 ",
        _ => "",
    };
    let range_is = |end: &str| {
        format!(
            "{family}meta l4proto {{ {} }} th {end} {range}",
            protocols.join(", ")
        )
    };
    let mut text = format!(
        "# Lets p2pnode out: {names} from source ports {range}, and what comes back.\n\
         # Load it with `nft -f FILE`; loading it again replaces it. It needs nothing that is there before, and lets nothing out by\n\
         # itself: an accept here cannot outweigh a drop in another chain. So let the chains that decide jump here. They are those\n\
         # with a hook and `policy drop` in `nft list ruleset`; where there is none, nothing is dropped and nothing is to be done.\n\
         # With their names, if they are in the table inet filter (else replace `inet filter` in this file with their table):\n\
         #   on the host:   nft insert rule inet filter output jump p2pnode-out\n\
         #                  nft insert rule inet filter input jump p2pnode-in\n\
         #   on its router: nft insert rule inet filter forward iifname LAN jump p2pnode-out\n\
         #                  nft insert rule inet filter forward oifname LAN jump p2pnode-in\n\
         # Instead of LAN: the interface behind which the node is.\n\
         add table inet filter\n",
        names = rules.protocol_names(),
    );
    for chain in ["p2pnode-out", "p2pnode-in"] {
        let _ = writeln!(
            text,
            "add chain inet filter {chain}\nflush chain inet filter {chain}"
        );
    }
    let mut rule = |chain: &str, rule: &str| {
        let _ = writeln!(text, "add rule inet filter {chain} {rule} accept");
    };
    rule("p2pnode-out", &range_is("sport"));
    rule(
        "p2pnode-in",
        &format!("{} ct state established", range_is("dport")),
    );
    // Path MTU and unreachable destinations.
    rule(
        "p2pnode-in",
        "meta l4proto { icmp, ipv6-icmp } ct state related",
    );
    for (protocol, port) in &rules.listen {
        let protocol = protocol.lower();
        rule(
            "p2pnode-out",
            &format!("{protocol} sport {port} ct state established"),
        );
        rule("p2pnode-in", &format!("{protocol} dport {port}"));
    }
    text
}

/// For `iptables-restore --noflush` and `ip6tables-restore --noflush`. Loading it again replaces it.
pub(super) fn iptables(rules: &Rules) -> String {
    let (first, last) = (rules.range.start(), rules.range.end());
    let commands = match rules.families[..] {
        [Family::Ip4] => "`iptables-restore --noflush FILE`",
        [Family::Ip6] => "`ip6tables-restore --noflush FILE`",
        _ => "`iptables-restore --noflush FILE` and `ip6tables-restore --noflush FILE`",
    };
    let mut text = format!(
        "# Lets p2pnode out: {names} from source ports {range}, and what comes back.\n\
         # Load it with {commands}; loading it again replaces it.\n\
         # Then let the chains that decide jump there:\n\
         #   on the host:   iptables -I OUTPUT -j P2PNODE-OUT\n\
         #                  iptables -I INPUT -j P2PNODE-IN\n\
         #   on its router: iptables -I FORWARD -i LAN -j P2PNODE-OUT\n\
         #                  iptables -I FORWARD -o LAN -j P2PNODE-IN\n\
         # For IPv6 the same with ip6tables. Instead of LAN: the interface behind which the node is.\n\
         *filter\n\
         :P2PNODE-OUT - [0:0]\n\
         :P2PNODE-IN - [0:0]\n",
        names = rules.protocol_names(),
        range = rules.range,
    );
    for protocol in rules.protocols.iter().map(|protocol| protocol.lower()) {
        let _ = writeln!(
            text,
            "-A P2PNODE-OUT -p {protocol} -m {protocol} --sport {first}:{last} -j ACCEPT\n\
             -A P2PNODE-IN -p {protocol} -m {protocol} --dport {first}:{last} -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        );
    }
    // Path MTU and unreachable destinations.
    text += "-A P2PNODE-IN -m conntrack --ctstate RELATED -j ACCEPT\n";
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        for port in rules.listen_ports(protocol) {
            let protocol = protocol.lower();
            let _ = writeln!(
                text,
                "-A P2PNODE-OUT -p {protocol} -m {protocol} --sport {port} -m conntrack --ctstate ESTABLISHED -j ACCEPT\n\
                 -A P2PNODE-IN -p {protocol} -m {protocol} --dport {port} -j ACCEPT",
            );
        }
    }
    text += "COMMIT\n";
    text
}
