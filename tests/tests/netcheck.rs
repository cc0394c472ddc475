//! `p2pnode netcheck` behind each NAT of the lab, against what the lab knows about it; and what the wire carried meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
};

use p2pnode_tests::{faults::Traffic, matrix, prelude::*, schema};

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
    what_two_looks_predict_is_what_a_dial_does: predictions();
    where_udp_is_blocked_that_is_said: udp_blocked();
    without_a_relay_that_answers_nobody_is_reached: nobody();
}

/// With this variable each NAT is looked at 20 times, and all pairs of the matrix are dialed.
const LONG: &str = "P2PNODE_TEST_LONG";

/// Pairs that are dialed otherwise.
const PAIRS: [(NatKind, NatKind); 2] = [
    (NatKind::Symmetric, NatKind::EimApdf),
    (NatKind::Symmetric, NatKind::FullCone),
];

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
    let mut launch = Launch::new(name, bins()?.p2pnode)
        .args(["netcheck", "--json", "--port-range"])
        .arg(format!("{}-{}", RANGE.start(), RANGE.end()));
    for relay in relays {
        for address in relay.addresses(host, &Transport::ALL) {
            launch = launch.args(["--relay", &address]);
        }
    }
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
            "symmetric" => &["eim-apdf", "symmetric"],
            "none" | "full-cone" | "address-restricted" => &[],
            _ => &["symmetric"],
        };
        ensure!(
            report.json["verdict"]["relayed"] == json!(relayed),
            "{}",
            report.line
        );
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
    let socket = node::control_socket(net.lab.artifacts(), "a");
    for run in 0..runs() {
        let launch = Launch::new(format!("look-{run}"), bins()?.p2pnode)
            .args(["netcheck", "--json"])
            .env(node::CONTROL_SOCKET, &socket);
        let ended = launch.on(&side.host)?.ended().await?;
        let report = ended
            .all("netcheck")
            .next()
            .cloned()
            .with_context(|| ended.log.clone())?;
        ensure_nats(
            &report,
            NatKind::EimApdfRewrite,
            ["eim-apdf-rewrite", "eim", "apdf"],
        )?;
        ensure!(ended.code == 0, "{}", report.line);
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
    let socket = node::control_socket(net.lab.artifacts(), "a");
    let launch = Launch::new("look", bins()?.p2pnode)
        .args(["netcheck", "--json"])
        .env(node::CONTROL_SOCKET, &socket);
    let ended = launch.on(&side.host)?.ended().await?;
    let report = ended.all("netcheck").next().cloned();
    let report = report.with_context(|| ended.log)?;
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

/// The peer class of a side in a family, by the name of its NAT.
fn class(report: &Event, family: &str) -> Option<&'static str> {
    let nat = checks(report, "nat").find(|nat| nat["family"] == family)?;
    Some(match nat["kind"].as_str()? {
        "none" => "public",
        "full-cone" => "full-cone",
        "address-restricted" => "address-restricted",
        "symmetric" => "symmetric",
        _ => "eim-apdf",
    })
}

/// What both looks say about a dial.
fn predicted(a: &Event, b: &Event) -> &'static str {
    let is_direct = |of: &Event, peer: &str| {
        let direct = of.json["verdict"]["direct"].as_array();
        direct.is_some_and(|direct| direct.iter().any(|class| class == peer))
    };
    let families = ["ip4", "ip6"].into_iter();
    let mut shared = families.filter_map(|family| Some((class(a, family)?, class(b, family)?)));
    match shared.next() {
        Some((of_a, of_b)) if is_direct(a, of_b) && is_direct(b, of_a) => "direct",
        Some(_) | None => "relayed",
    }
}

async fn predictions() -> Result<()> {
    let net = net().await?;
    let mut pairs = PAIRS.to_vec();
    if env::var_os(LONG).is_some() {
        pairs = matrix::cells()
            .iter()
            .map(|cell| (cell.a, cell.b))
            .collect();
        pairs.dedup();
    }
    // A lab takes one host after another.
    let kinds: BTreeSet<NatKind> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let mut looks = Vec::new();
    for kind in kinds {
        looks.push((kind, Peer::new(&net.lab, kind.name(), kind).await?));
    }
    let mut reports = BTreeMap::new();
    for some in looks.chunks(3) {
        let report = |at: usize| report(&net, some.get(at));
        let (a, b, c) = tokio::try_join!(report(0), report(1), report(2))?;
        reports.extend([a, b, c].into_iter().flatten());
    }
    let mut sides = Vec::new();
    for (at, (a, b)) in pairs.into_iter().enumerate() {
        let [from, to] = [format!("a{at}"), format!("b{at}")];
        let caller = Peer::new(&net.lab, &from, a).await?;
        let called = Peer::new(&net.lab, &to, b).await?;
        let expected = predicted(&reports[&a], &reports[&b]);
        sides.push(Sides {
            at,
            pair: format!("{a} x {b}"),
            caller,
            called,
            expected,
        });
    }
    for some in sides.chunks(3) {
        let dial = |at: usize| dial(&net, some.get(at));
        tokio::try_join!(dial(0), dial(1), dial(2))?;
    }
    Ok(())
}

async fn report(net: &Net, side: Option<&(NatKind, Peer)>) -> Result<Option<(NatKind, Event)>> {
    let Some((kind, side)) = side else {
        return Ok(None);
    };
    let name = format!("look-{kind}");
    let (_, report) = look(&name, &side.host, &[&net.relay, &net.partner]).await?;
    Ok(Some((*kind, report)))
}

/// The two sides of a pair, and what is predicted for them.
struct Sides {
    at: usize,
    pair: String,
    caller: Peer,
    called: Peer,
    expected: &'static str,
}

/// Dials from one side to the other.
async fn dial(net: &Net, sides: Option<&Sides>) -> Result<()> {
    let Some(sides) = sides else {
        return Ok(());
    };
    let [from, to, dial] = ["a", "b", "dial"].map(|name| format!("{name}{}", sides.at));
    let (relay, over) = (&net.relay, &Transport::ALL);
    let (called, caller) = tokio::try_join!(
        relay.node(&to, &sides.called.host, over),
        relay.node(&from, &sides.caller.host, over)
    )?;
    let dial = caller.dial(&dial, &called.id).await?;
    let result = dial.is(sides.expected);
    result.map(drop).with_context(|| sides.pair.clone())
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
