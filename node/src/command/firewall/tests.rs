#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use clap::ValueEnum as _;
use p2pnode_daemon::config::{Document, Sources, load};

use super::*;
use crate::config::{Config, PROGRAM, Purpose};

fn rules(file: &str) -> Rules {
    let sources = Sources {
        file: Some(Document::parse(Path::new("f.yaml"), file.to_owned()).unwrap()),
        env: [("HOME".to_owned(), "/home/ann".to_owned())].into(),
        flags: Default::default(),
    };
    let loaded = load(&PROGRAM, &sources, |reader| {
        Config::read(reader, Purpose::Firewall)
    });
    Rules::of(&loaded.unwrap().config)
}

fn render(file: &str, format: Format) -> String {
    let rules = rules(file);
    let kept = snat::kept(&rules, &[], None).unwrap();
    rules.render(format, &kept)
}

/// The lines that are no comments.
fn lines(file: &str, format: Format) -> Vec<String> {
    let text = render(file, format);
    assert!(text.ends_with('\n'));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

const LISTENS: &str = "
listen: [/ip4/0.0.0.0/udp/443/quic-v1, /ip4/0.0.0.0/tcp/443, /ip6/::/tcp/443]
dial: { port_range: 50000-50009 }
admin: { listen: 0.0.0.0:9464 }
";

const QUIC_OVER_IP6: &str = "
dial: { port_range: 50000, family: only-ip6, transports: [quic] }
admin: { listen: 127.0.0.1:9464 }
";

#[test]
fn nft_lets_the_range_out_and_what_it_has_seen_leave_in() {
    assert_eq!(
        lines("", Format::Nft),
        [
            "add table inet filter",
            "add chain inet filter p2pnode-out",
            "flush chain inet filter p2pnode-out",
            "add chain inet filter p2pnode-in",
            "flush chain inet filter p2pnode-in",
            "add rule inet filter p2pnode-out meta l4proto { udp, tcp } th sport 40000-40050 accept",
            "add rule inet filter p2pnode-in meta l4proto { udp, tcp } th dport 40000-40050 ct state established accept",
            "add rule inet filter p2pnode-in meta l4proto { icmp, ipv6-icmp } ct state related accept",
        ]
    );
    let quic = lines(QUIC_OVER_IP6, Format::Nft);
    assert!(
        quic.contains(
            &"add rule inet filter p2pnode-out meta nfproto ipv6 meta l4proto { udp } th sport 50000-50000 accept".to_owned()
        ),
        "{quic:?}"
    );
    let listens = lines(LISTENS, Format::Nft);
    for rule in [
        "p2pnode-in udp dport 443 accept",
        "p2pnode-in tcp dport 443 accept",
        "p2pnode-out tcp sport 443 ct state established accept",
    ] {
        let count = listens.iter().filter(|line| line.ends_with(rule)).count();
        assert_eq!(count, 1, "{rule}: {listens:?}");
    }
}

#[test]
fn iptables_says_the_same() {
    assert_eq!(
        lines("", Format::Iptables),
        [
            "*filter",
            ":P2PNODE-OUT - [0:0]",
            ":P2PNODE-IN - [0:0]",
            "-A P2PNODE-OUT -p udp -m udp --sport 40000:40050 -j ACCEPT",
            "-A P2PNODE-IN -p udp -m udp --dport 40000:40050 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
            "-A P2PNODE-OUT -p tcp -m tcp --sport 40000:40050 -j ACCEPT",
            "-A P2PNODE-IN -p tcp -m tcp --dport 40000:40050 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
            "-A P2PNODE-IN -m conntrack --ctstate RELATED -j ACCEPT",
            "COMMIT",
        ]
    );
    let quic = render(QUIC_OVER_IP6, Format::Iptables);
    assert!(
        quic.contains("`ip6tables-restore --noflush FILE`")
            && !quic.contains("`iptables-restore")
            && !quic.contains("-p tcp"),
        "{quic}"
    );
    let listens = lines(LISTENS, Format::Iptables);
    assert!(
        listens.contains(&"-A P2PNODE-IN -p udp -m udp --dport 443 -j ACCEPT".to_owned()),
        "{listens:?}"
    );
}

#[test]
fn rules_for_clouds_say_what_clouds_cannot_know() {
    let text = render(LISTENS, Format::AwsSg);
    let group: serde_json::Value = serde_json::from_str(&text).unwrap();
    let egress = group["IpPermissionsEgress"].as_array().unwrap();
    assert_eq!(egress.len(), 2);
    assert_eq!(egress[0]["IpProtocol"], "udp");
    assert_eq!(
        (&egress[1]["FromPort"], &egress[1]["ToPort"]),
        (&0.into(), &65535.into())
    );
    assert_eq!(egress[0]["IpRanges"][0]["CidrIp"], "0.0.0.0/0");
    assert_eq!(egress[0]["Ipv6Ranges"][0]["CidrIpv6"], "::/0");
    let ingress = group["IpPermissions"].as_array().unwrap();
    assert_eq!((ingress.len(), &ingress[0]["FromPort"]), (2, &443.into()));
    assert!(text.contains("knows no source ports"));
    let quic: serde_json::Value =
        serde_json::from_str(&render(QUIC_OVER_IP6, Format::AwsSg)).unwrap();
    assert!(
        quic["IpPermissionsEgress"][0]["IpRanges"].is_null(),
        "{quic}"
    );
    assert_eq!(quic["IpPermissions"], serde_json::json!([]));

    let commands = lines(LISTENS, Format::Gcp);
    assert_eq!(commands.len(), 4, "{commands:?}");
    assert!(commands[0].contains(
        "--direction=EGRESS --action=ALLOW --rules=udp,tcp --destination-ranges=0.0.0.0/0"
    ));
    assert!(commands[3].contains("--rules=udp:443,tcp:443 --source-ranges=::/0"));
    assert!(render("", Format::Gcp).contains("know no source ports"));
}

#[test]
fn a_network_policy_lets_the_range_in_and_everything_out() {
    let text = render(LISTENS, Format::Networkpolicy);
    for part in [
        "- { protocol: UDP, port: 50000, endPort: 50009 }",
        "- { protocol: TCP, port: 443 }",
        "- { protocol: TCP, port: 9464 }",
        "cidr: \"::/0\"",
        "- \"fc00::/7\"",
        "knows no source ports",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let quic = render(QUIC_OVER_IP6, Format::Networkpolicy);
    // No host outside reaches an admin server on loopback.
    assert!(
        !quic.contains("9464") && !quic.contains("0.0.0.0/0"),
        "{quic}"
    );
}

#[test]
fn a_network_policy_lets_out_to_a_private_address_only_where_a_relay_is_configured() {
    let id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let file =
        format!("relays: [/ip4/10.1.2.3/tcp/4001/p2p/{id}, /ip4/203.0.113.7/tcp/4001/p2p/{id}]");
    let text = render(&file, Format::Networkpolicy);
    assert!(
        text.contains("- ipBlock: { cidr: \"10.1.2.3/32\" }"),
        "{text}"
    );
    assert!(!text.contains("203.0.113.7"), "{text}");
}

#[test]
fn pods_that_share_a_range_have_one_firewall() {
    for format in Format::value_variants() {
        let whole = render("dial: { port_range: 50000-50029 }", *format);
        let shared = "dial: { port_range: 50000-50029, ports_per_ordinal: 10, ordinal: 1 }";
        assert_eq!(render(shared, *format), whole);
    }
}

#[test]
fn source_nat_leaves_what_stays_in_the_cluster_and_keeps_the_range_of_the_rest() {
    let kept = |file: &str, networks: &[&str], out| {
        let networks: Vec<_> = networks
            .iter()
            .map(|network| snat::pods(network).unwrap())
            .collect();
        snat::kept(&rules(file), &networks, out)
    };
    let named = kept("", &["10.244.3.1/16", "fd00::/48"], Some("eth0")).unwrap();
    let nft = rules("").render(Format::NftSnat, &named);
    for part in [
        "# Remove it: nft delete table ip p2pnode-snat-40000-40050; nft delete table ip6 p2pnode-snat-40000-40050\n",
        "type nat hook postrouting priority srcnat - 10; policy accept;\n\t\toifname != \"eth0\" return\n\t\tip daddr 10.244.0.0/16 return\n",
        "ip saddr 10.244.0.0/16 udp sport 40000-40050 masquerade to :40000-40050\n",
        "ip6 saddr fd00::/48 tcp sport 40000-40050 masquerade to :40000-40050\n",
    ] {
        assert!(nft.contains(part), "{part}: {nft}");
    }
    let script = rules("").render(Format::IptablesSnat, &named);
    for part in [
        "-A P2PNODE-SNAT-40000-40050 ! -o eth0 -j RETURN\n-A P2PNODE-SNAT-40000-40050 -d 10.244.0.0/16 -j RETURN\n",
        "-s 10.244.0.0/16 -p udp -m udp --sport 40000:40050 -j MASQUERADE --to-ports 40000-40050\n",
        "} | ip6tables-restore -w --noflush\n",
    ] {
        assert!(script.contains(part), "{part}: {script}");
    }
    let quic = render(QUIC_OVER_IP6, Format::NftSnat);
    assert!(
        !quic.contains("tcp sport") && !quic.contains("table ip p2pnode"),
        "{quic}"
    );
    assert!(quic.contains("ip6 daddr fc00::/7 return"), "{quic}");
    let none = kept(QUIC_OVER_IP6, &["10.244.0.0/16"], None);
    assert!(
        none.unwrap_err()
            .to_string()
            .contains("--pods 10.244.0.0/16")
    );
}

#[test]
fn names_and_networks_that_rules_cannot_hold_are_refused() {
    for wrong in ["10.244.0.0", "0.0.0.0/0", "::/0", "10.244.0.0/33", ""] {
        assert!(snat::pods(wrong).is_err(), "{wrong}");
    }
    for wrong in [
        "",
        "eth0 ",
        "a\"; flush ruleset",
        "sixteen-letters-",
        "eth+",
        "$(id)",
    ] {
        assert!(snat::interface(wrong).is_err(), "{wrong}");
    }
    assert_eq!(snat::interface("eth0.100"), Ok("eth0.100".to_owned()));
}
