//! `p2pnode netcheck` behind each NAT of the lab, against what the lab knows about it; and what the wire carried meanwhile.

#[path = "netcheck/predictions.rs"]
mod predictions;

use std::env;

use p2pnode_tests::{faults::Traffic, prelude::*, schema};

lab_tests! {
    a_public_host_is_named: is(NatKind::None, ["none", "none", "none"]);
    a_full_cone_is_named: is(NatKind::FullCone, ["full-cone", "eim", "eif"]);
    an_address_restricted_nat_is_named: is(NatKind::AddressRestricted, ["address-restricted", "eim", "adf"]);
    eim_apdf_is_named: is(NatKind::EimApdf, ["eim-apdf", "eim", "apdf"]);
    eim_apdf_rewrite_is_named: is(NatKind::EimApdfRewrite, ["eim-apdf-rewrite", "eim", "apdf"]);
    a_firewall_is_named: is(NatKind::Firewall, ["firewall", "none", "apdf"]);
    a_range_firewall_is_named: is(NatKind::RangeFirewall, ["eim-apdf", "eim", "apdf"]);
    a_carriers_nat_is_named: is(NatKind::Cgnat, ["eim-apdf-rewrite", "eim", "apdf"]);
    an_ip6_firewall_is_named: is(NatKind::Ip6Firewall, ["firewall", "none", "apdf"]);
    a_dual_stack_site_is_named: is(NatKind::DualStack, ["eim-apdf", "eim", "apdf"]);
    a_symmetric_nat_is_named: is(NatKind::Symmetric, ["symmetric", "apdm", "apdf"]);
    with_one_relay_exactly_what_needs_two_is_unknown: one_relay();
    a_running_node_looks_from_its_own_punch_sockets: running();
    what_a_relay_reaches_of_a_full_cone_is_said: reached(NatKind::FullCone, true);
    what_no_relay_reaches_behind_a_filter_is_said: reached(NatKind::EimApdf, false);
    what_two_looks_predict_is_what_a_dial_does: predictions::run();
    where_udp_is_blocked_that_is_said: udp_blocked();
    without_a_relay_that_answers_nobody_is_reached: nobody();
    a_relay_under_another_id_is_not_taken_for_it: other_id();
    a_firewall_that_lets_out_a_part_of_the_range_is_named: part_of_the_range();
    a_path_without_long_packets_promises_nothing: no_long_packets();
    where_long_packets_are_lost_inwards_alone_that_is_said: lost_inwards();
    a_process_with_few_files_blames_itself: few_files();
}

/// With this variable each NAT is looked at 20 times, and all pairs of the matrix are dialed.
const LONG: &str = "P2PNODE_TEST_LONG";

fn runs() -> usize {
    if env::var_os(LONG).is_some() { 20 } else { 2 }
}

struct Net {
    lab: Lab,
    relay: Relay,
    partner: Relay,
}

async fn net() -> Result<Net> {
    let lab = Lab::of_test().await?;
    let (a, b) = (
        lab.public_host("relay").await?,
        lab.public_host("partner").await?,
    );
    let ips = |of: &Host| -> String {
        let ips: Vec<_> = of.addresses.iter().map(ToString::to_string).collect();
        ips.join(",")
    };
    let (of_a, of_b) = (ips(&b), ips(&a));
    Ok(Net {
        relay: Relay::start_on(
            "relay",
            a,
            &[("RELAY_NODE_STUN_PARTNER", of_a.as_str())],
            &[],
        )
        .await?,
        partner: Relay::start_on(
            "partner",
            b,
            &[("RELAY_NODE_STUN_PARTNER", of_b.as_str())],
            &[],
        )
        .await?,
        lab,
    })
}

/// One look: its exit code and its report.
async fn look(name: &str, host: &Host, relays: &[&Relay]) -> Result<(i32, Event)> {
    let relays = relays.iter();
    let addresses = relays.flat_map(|relay| relay.addresses(host, &Transport::ALL));
    let range = format!("{}-{}", RANGE.start(), RANGE.end());
    look_at(name, host, &range, addresses).await
}

/// The same at addresses of relays, from another range.
async fn look_at(
    name: &str,
    host: &Host,
    range: &str,
    addresses: impl IntoIterator<Item = String>,
) -> Result<(i32, Event)> {
    let mut launch = Launch::new(name, bins()?.p2pnode)
        .args(["netcheck", "--json", "--port-range"])
        .arg(range);
    for address in addresses {
        launch = launch.args(["--relay", &address]);
    }
    reported(launch, host).await
}

/// The same through the running node `a`.
async fn ask(name: &str, lab: &Lab, host: &Host) -> Result<(i32, Event)> {
    let socket = node::control_socket(lab.artifacts(), "a");
    let launch = Launch::new(name, bins()?.p2pnode).args(["netcheck", "--json"]);
    reported(launch.env(node::CONTROL_SOCKET, socket), host).await
}

async fn reported(launch: Launch, host: &Host) -> Result<(i32, Event)> {
    let ended = launch.on(host)?.ended().await?;
    let report = ended.all("netcheck").next().cloned();
    let report = report.with_context(|| ended.log)?;
    schema::validate("netcheck", &report.json)?;
    Ok((ended.code, report))
}

fn checks<'a>(report: &'a Event, id: &'a str) -> impl Iterator<Item = &'a Value> {
    let checks = report.json["checks"].as_array().into_iter().flatten();
    checks.filter(move |check| check["id"] == id)
}

fn ensure_nats(report: &Event, kind: NatKind, expected: [&str; 3]) -> Result<()> {
    let [name, mapping, filtering] = expected;
    let nats: Vec<&Value> = checks(report, "nat").collect();
    let families = usize::from(kind.has_ip4())
        + usize::from(matches!(
            kind,
            NatKind::None | NatKind::DualStack | NatKind::Ip6Firewall
        ));
    ensure!(
        nats.len() == families * 2,
        "{} paths: {}",
        nats.len(),
        report.line
    );
    for nat in nats {
        // IPv6 is routed where there is a NAT for IPv4.
        let is_routed = kind == NatKind::DualStack && nat["family"] == "ip6";
        let expected = if is_routed {
            ["firewall", "none", "apdf"]
        } else {
            [name, mapping, filtering]
        };
        let found = ["kind", "mapping", "filtering"].map(|key| nat[key].as_str().unwrap_or(""));
        ensure!(
            found == expected,
            "{kind}: {nat}: not {expected:?}: {}",
            report.line
        );
        let allocation = if kind == NatKind::Symmetric {
            "random"
        } else if matches!(kind, NatKind::EimApdfRewrite | NatKind::Cgnat) {
            "block"
        } else {
            "preserved"
        };
        ensure!(nat["allocation"]["kind"] == allocation, "{kind}: {nat}");
        ensure!(
            nat["preserved"] == (allocation == "preserved"),
            "{kind}: {nat}"
        );
        let remedy = nat["remedy"]["id"].as_str();
        let expected = (kind == NatKind::Symmetric).then_some("preserve_range");
        ensure!(remedy == expected, "{kind}: {nat}");
    }
    Ok(())
}

async fn is(kind: NatKind, expected: [&str; 3]) -> Result<()> {
    let net = net().await?;
    let side = Peer::new(&net.lab, "a", kind).await?;
    for run in 0..runs() {
        let (code, report) = look(
            &format!("look-{run}"),
            &side.host,
            &[&net.relay, &net.partner],
        )
        .await?;
        ensure_nats(&report, kind, expected)?;
        let relayed: &[&str] = match expected[0] {
            "none" | "full-cone" | "address-restricted" => &[],
            _ => &["symmetric"],
        };
        ensure!(
            report.json["verdict"]["relayed"] == json!(relayed),
            "{}",
            report.line
        );
        let search = Vec::from_iter((expected[0] == "symmetric").then_some("eim-apdf"));
        let verdict = &report.json["verdict"];
        ensure!(verdict["search"] == json!(search), "{}", report.line);
        ensure!(
            report.json["verdict"]["unknown"] == json!([]),
            "{}",
            report.line
        );
        let direct = if expected[0] == "symmetric" { 3 } else { 0 };
        ensure!(code == direct, "exit code {code}: {}", report.line);
        for id in ["relay", "udp", "range", "mtu", "clock"] {
            let bad = checks(&report, id).find(|check| check["status"] != "ok");
            ensure!(bad.is_none(), "{id}: {bad:?}");
        }
    }
    side.keeps_range().await
}

async fn one_relay() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    for (kind, expected) in [
        (NatKind::None, ["unknown", "none", "unknown"]),
        (NatKind::FullCone, ["unknown", "unknown", "unknown"]),
        (
            NatKind::AddressRestricted,
            ["unknown", "unknown", "unknown"],
        ),
        (NatKind::EimApdf, ["unknown", "unknown", "apdf"]),
        (NatKind::Firewall, ["firewall", "none", "apdf"]),
        (NatKind::Symmetric, ["symmetric", "apdm", "apdf"]),
    ] {
        let name = kind.name();
        let side = Peer::new(&lab, name, kind).await?;
        let (code, report) = look(&format!("look-{name}"), &side.host, &[&relay]).await?;
        for nat in checks(&report, "nat") {
            let found = ["kind", "mapping", "filtering"].map(|key| nat[key].as_str().unwrap_or(""));
            ensure!(
                found == expected,
                "{kind}: {nat}: not {expected:?}: {}",
                report.line
            );
            let needs = nat["remedy"]["id"] == "second_relay";
            ensure!(needs == (expected[0] == "unknown"), "{kind}: {nat}");
        }
        ensure!(
            code == if kind == NatKind::Symmetric { 3 } else { 0 },
            "{kind}: {code}"
        );
        side.keeps_range().await?;
    }
    Ok(())
}

async fn running() -> Result<()> {
    let net = net().await?;
    let side = Peer::new(&net.lab, "a", NatKind::EimApdfRewrite).await?;
    let addresses =
        [&net.relay, &net.partner].map(|relay| relay.addresses(&side.host, &Transport::ALL));
    let args = NodeArgs::with_relays(addresses.concat(), &Transport::ALL);
    let node: Node = args.run_on(&side.host, "a")?.reserves(&side.host).await?;
    for run in 0..runs() {
        let name = format!("look-{run}");
        let (code, report) = ask(&name, &net.lab, &side.host).await?;
        ensure_nats(
            &report,
            NatKind::EimApdfRewrite,
            ["eim-apdf-rewrite", "eim", "apdf"],
        )?;
        ensure!(code == 0, "{}", report.line);
    }
    ensure!(
        node.process
            .events()
            .iter()
            .all(|event| event.name() != "lost"),
        "the node goes on"
    );
    side.keeps_range().await
}

/// AutoNAT v2, by which a running node asks a relay.
async fn reached(kind: NatKind, expected: bool) -> Result<()> {
    let net = net().await?;
    let side = Peer::new(&net.lab, "a", kind).await?;
    let addresses = net.relay.addresses(&side.host, &Transport::ALL);
    let args = NodeArgs::with_relays(addresses, &Transport::ALL);
    let _node: Node = args.run_on(&side.host, "a")?.reserves(&side.host).await?;
    let (_, report) = ask("look", &net.lab, &side.host).await?;
    let mapping: Vec<&Value> = checks(&report, "mapping").collect();
    ensure!(mapping.len() == 2, "over UDP and TCP: {}", report.line);
    for check in mapping {
        let text = check["text"].as_str().context("a text")?;
        ensure!(
            text.starts_with("none needed") == expected,
            "{kind}: {text}"
        );
    }
    side.settle().await?;
    side.keeps_range().await
}

async fn udp_blocked() -> Result<()> {
    let net = net().await?;
    let side = Peer::new(&net.lab, "a", NatKind::EimApdf).await?;
    let ips = [net.relay.host.ip(false)?, net.partner.host.ip(false)?];
    side.site.cut(&ips.map(Traffic::Udp))?;
    let (code, report) = look("look", &side.host, &[&net.relay, &net.partner]).await?;
    let udp = checks(&report, "udp").next().context("a check")?;
    ensure!(
        udp["status"] == "fail" && udp["remedy"]["id"] == "udp_blocked",
        "{udp}"
    );
    let nats: Vec<_> = checks(&report, "nat").collect();
    ensure!(
        nats.iter().all(|nat| nat["transport"] == "tcp"),
        "{}",
        report.line
    );
    ensure!(code == 0, "TCP is direct: {code}");
    side.keeps_range().await
}

async fn nobody() -> Result<()> {
    let mut net = net().await?;
    let side = Peer::new(&net.lab, "a", NatKind::EimApdf).await?;
    net.relay.process.kill().await?;
    let (code, report) = look("look", &side.host, &[&net.relay]).await?;
    let relay = checks(&report, "relay").next().context("a check")?;
    ensure!(
        relay["status"] == "fail" && code == 4,
        "{code}: {}",
        report.line
    );
    side.keeps_range().await
}

/// STUN shows no id, so a handshake has to.
async fn other_id() -> Result<()> {
    let net = net().await?;
    let side = Peer::new(&net.lab, "a", NatKind::EimApdf).await?;
    let [there, wanted] = [&net.relay.id, &net.partner.id].map(ToString::to_string);
    let of_relay = net.relay.addresses(&side.host, &Transport::ALL).into_iter();
    let wrong: Vec<String> = of_relay.map(|at| at.replace(&there, &wanted)).collect();
    let right = net.relay.addresses(&side.host, &Transport::ALL);
    for (name, addresses, expected) in [
        ("wrong", wrong.clone(), 4),
        ("beside", [wrong, right].concat(), 0),
    ] {
        let (code, report) = look_at(name, &side.host, "40000-40050", addresses).await?;
        ensure!(code == expected, "{name}: {code}: {}", report.line);
        for check in checks(&report, "relay") {
            let text = check["text"].as_str().unwrap_or("");
            let is_right = match text.starts_with(&wanted) {
                true => check["remedy"]["id"] == "wrong_peer" && text.matches(&there).count() == 2,
                false => check["status"] == "ok",
            };
            ensure!(is_right, "{name}: {check}");
        }
    }
    side.keeps_range().await
}

async fn part_of_the_range() -> Result<()> {
    let net = net().await?;
    let side = Peer::new(&net.lab, "a", NatKind::RangeFirewall).await?;
    // The firewall lets out those up to 40050.
    let addresses = [&net.relay, &net.partner];
    let addresses = addresses.map(|relay| relay.addresses(&side.host, &Transport::ALL));
    let (_, report) = look_at("look", &side.host, "40030-40080", addresses.concat()).await?;
    let ranges: Vec<&Value> = checks(&report, "range").collect();
    ensure!(ranges.len() == 2, "over UDP and TCP: {}", report.line);
    for range in ranges {
        ensure!(range["remedy"]["id"] == "range_blocked", "{range}");
        let text = range["text"].as_str().unwrap_or("");
        let (_, ports) = text.split_once("; out: 40030, ").context("ports")?;
        let (out, lost) = ports.split_once("; no answer: ").context("ports")?;
        let lost = lost.split(';').next().unwrap_or(lost);
        ensure!(out.split(", ").all(|port| port <= "40050"), "{range}");
        ensure!(lost.split(", ").all(|port| port > "40050"), "{range}");
    }
    let udp = checks(&report, "udp").next().context("a check")?;
    ensure!(udp["status"] == "ok", "{udp}");
    Ok(())
}

/// Loss in one direction. QUIC fails, and TCP falls back to short segments.
async fn lost_inwards() -> Result<()> {
    let net = net().await?;
    let side = Peer::new(&net.lab, "a", NatKind::EimApdf).await?;
    side.site.narrow_inwards(1270)?;
    let (code, report) = look("look", &side.host, &[&net.relay, &net.partner]).await?;
    let texts = checks(&report, "mtu").map(|check| check["text"].as_str().unwrap_or(""));
    let texts: Vec<_> = texts.collect();
    let expected = [
        "1452 bytes of payload to the relay, 1200 from it",
        "mtu: full TCP segments do not get through from the relay to this node; the node uses short ones",
    ];
    ensure!(texts == expected && code == 0, "{code}: {}", report.line);
    side.site.narrow_inwards(1000)?;
    let (_, report) = look("narrow", &side.host, &[&net.relay, &net.partner]).await?;
    let mtu = checks(&report, "mtu").next().context("a check")?;
    let expected = "mtu: datagrams of 1200 bytes do not get through from the relay to this node";
    ensure!(mtu["text"] == expected && mtu["status"] == "fail", "{mtu}");
    side.keeps_range().await
}

/// Whatever the limit is, nothing is said about the network that it does not show.
async fn few_files() -> Result<()> {
    let net = net().await?;
    let side = Peer::new(&net.lab, "a", NatKind::EimApdf).await?;
    let addresses = net
        .relay
        .addresses(&side.host, &Transport::ALL)
        .join(" --relay ");
    for limit in [16, 25, 31, 35, 40] {
        let program = bins()?.p2pnode;
        let command = format!(
            "ulimit -n {limit}; exec {} netcheck --json --relay {addresses}",
            program.display()
        );
        let launch = Launch::new(format!("look-{limit}"), "sh").args(["-c", &command]);
        let (_, report) = reported(launch, &side.host).await?;
        for id in ["range", "udp", "relay"] {
            let mut checks = checks(&report, id);
            let blames = checks
                .find(|check| check["status"] == "fail" && check["remedy"]["id"] != "open_files");
            ensure!(blames.is_none(), "{limit}: {blames:?}");
        }
        let host = checks(&report, "host").next().context("a check")?;
        ensure!(host["remedy"]["id"] == "open_files", "{limit}: {host}");
    }
    side.keeps_range().await
}

async fn no_long_packets() -> Result<()> {
    let net = net().await?;
    let side = Peer::new(&net.lab, "a", NatKind::EimApdf).await?;
    side.site.narrow(1000)?;
    let (code, report) = look("look", &side.host, &[&net.relay, &net.partner]).await?;
    ensure!(code == 4, "{code}: {}", report.line);
    for check in checks(&report, "relay").chain(checks(&report, "mtu")) {
        let is_it = check["status"] == "fail" && check["remedy"]["id"] == "mtu";
        ensure!(is_it, "{check}: {}", report.line);
    }
    ensure!(report.json["verdict"]["direct"] == json!([]));
    side.keeps_range().await
}
