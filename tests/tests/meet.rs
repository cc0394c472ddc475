//! A relay introduces two nodes, and they are direct before there is a circuit between them.

use p2pnode_tests::{faults::Traffic, node::printed, peer::sockets, prelude::*, stranger};

lab_tests! {
    two_port_preserving_nats_need_no_circuit_over_quic:
        without_a_circuit(NatKind::EimApdf, NatKind::EimApdf, Transport::Quic);
    two_nats_that_rewrite_ports_need_no_circuit_over_quic:
        without_a_circuit(NatKind::EimApdfRewrite, NatKind::EimApdfRewrite, Transport::Quic);
    a_range_firewall_and_a_nat_that_rewrites_ports_need_no_circuit_over_quic:
        without_a_circuit(NatKind::RangeFirewall, NatKind::EimApdfRewrite, Transport::Quic);
    two_nats_that_rewrite_ports_need_no_circuit_over_tcp:
        without_a_circuit(NatKind::EimApdfRewrite, NatKind::EimApdfRewrite, Transport::Tcp);
    two_symmetric_nats_stay_relayed_for_the_reason_that_dcutr_finds: symmetric();
    behind_a_foreign_relay_dcutr_does_it: foreign();
    a_node_with_access_rules_leaves_it_to_dcutr: with_access_rules();
    a_dialer_with_filters_leaves_it_to_dcutr: with_filters(true);
    a_dialed_node_with_filters_leaves_it_to_dcutr: with_filters(false);
    what_is_advertised_after_the_punch_port_has_moved_is_the_new_one_alone: from_another_port();
}

fn punches(dial: &Dial) -> Vec<(&str, &str)> {
    let punches = dial.all("punch");
    punches
        .map(|punch| (punch.text("/by"), punch.text("/outcome")))
        .collect()
}

/// The dial of A to B in a lab whose relay carries no circuit between them: somebody else has the only one.
async fn without_a_circuit(a: NatKind, b: NatKind, transport: Transport) -> Result<()> {
    let lab = Lab::of_test().await?;
    let one = [("RELAY_NODE_LIMITS_CIRCUITS", "1")];
    let relay = Relay::start_with(&lab, "relay", &one).await?;
    let a = Peer::new(&lab, "a", a).await?;
    let b = Peer::new(&lab, "b", b).await?;
    let b_node = relay.node("b", &b.host, &[transport]).await?;

    let (_site, other) = lab.home("c", NatKind::EimApdf).await?;
    let other_node = relay
        .run("c", &other, &[transport])?
        .env("P2PNODE_PUNCH_ENABLED", "false");
    let other_node = other_node.reserves(&other).await?;
    let until = ["--until", "connected"];
    let occupies = other_node.dial_with("c-dial", &b_node.id, &until).await?;
    ensure!(occupies.code == 0, "{occupies:?}");

    let dial = relay.dial("a", &a.host, &[transport], &b_node.id)?;
    let dial = dial.args(["--count", "1"]).on(&a.host)?.ended().await?;
    dial.is("direct")?
        .has(&json!({"path": {"how": "punched"}, "attempts": 1}))?;
    ensure!(
        punches(&dial) == [("introduction", "direct")],
        "{:?}",
        punches(&dial)
    );
    let circuit = dial
        .events
        .iter()
        .find(|event| event.connects(&b_node.id, "relayed"));
    ensure!(circuit.is_none(), "there was a circuit: {circuit:?}");
    a.keeps_range().await?;
    b.keeps_range().await
}

async fn symmetric() -> Result<()> {
    let pair = Pair::of_test(NatKind::Symmetric, NatKind::Symmetric).over(&[Transport::Quic]);
    let mut peers = pair.start().await?;
    let dial = peers.dial().await?;
    for by in ["introduction", "dcutr"] {
        ensure!(
            punches(&dial).contains(&(by, "failed")),
            "{:?}",
            punches(&dial)
        );
    }
    peers.verify_relayed(&dial, "timeout").await
}

/// Two nodes that use these relays, with these variables; the dial must end direct, with no attempt by introduction.
async fn by_dcutr_alone(
    lab: &Lab,
    relays: Vec<String>,
    a_env: Option<(&str, &str)>,
    a_key: Option<&str>,
    b_env: Option<(&str, &str)>,
) -> Result<()> {
    let args = NodeArgs::with_relays(relays, &[Transport::Quic]);
    let set = |launch: Launch, env: Option<(&str, &str)>| match env {
        Some((name, value)) => launch.env(name, value),
        None => launch,
    };
    let (_a, a_host) = lab.home("a", NatKind::EimApdf).await?;
    let (_b, b_host) = lab.home("b", NatKind::EimApdf).await?;
    let b_node = set(args.run_on(&b_host, "b")?, b_env)
        .reserves(&b_host)
        .await?;
    let key = a_key.map(|key| ["--key", key]);
    let dial = set(args.dial("a", &b_node.id)?, a_env).args(key.into_iter().flatten());
    let dial = dial.on(&a_host)?.ended().await?;
    dial.is("direct")?;
    let introduced = punches(&dial).iter().any(|(by, _)| *by != "dcutr");
    ensure!(!introduced, "{:?}", punches(&dial));
    Ok(())
}

async fn foreign() -> Result<()> {
    let lab = Lab::of_test().await?;
    let host = lab.public_host("far").await?;
    let (_relay, address) = stranger::relay(&host, "foreign", Transport::Quic, &[]).await?;
    by_dcutr_alone(&lab, vec![address], None, None, None).await
}

async fn ours() -> Result<(Lab, Relay, Vec<String>)> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let relays = relay.addresses_at(relay.host.ip(false)?, &[Transport::Quic]);
    Ok((lab, relay, relays))
}

/// The relay does not know which peers B's access rules admit, and must not tell others where it is.
async fn with_access_rules() -> Result<()> {
    let (lab, relay, relays) = ours().await?;
    let key = lab.artifacts().file("a.key");
    let key = key.to_str().context("a path that is no text")?;
    let id = printed(&relay.host, &bins()?.p2pnode, &["id", "--key", key]).await?;
    let b_env = ("P2PNODE_ACCESS_ALLOW", id.as_str());
    by_dcutr_alone(&lab, relays, None, Some(key), Some(b_env)).await
}

/// The relay knows nothing of the filters, so a node that has any neither asks for introductions nor takes them.
async fn with_filters(at_dialer: bool) -> Result<()> {
    let (lab, _relay, relays) = ours().await?;
    let deny = Some(("P2PNODE_PUNCH_DENY", "203.0.113.0/24"));
    let (a_env, b_env) = if at_dialer {
        (deny, None)
    } else {
        (None, deny)
    };
    by_dcutr_alone(&lab, relays, a_env, None, b_env).await
}

/// The way from B's punch port to the relay is closed, as where a NAT keeps an earlier flow of that port: the relay sees another port.
async fn from_another_port() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let relay_ip = relay.host.ip(false)?;
    let a = Peer::new(&lab, "a", NatKind::EimApdf).await?;
    let b = Peer::new(&lab, "b", NatKind::EimApdf).await?;
    b.site.cut(&[Traffic::SynTo(relay_ip)])?;
    let over = [Transport::Tcp];
    let b_node = relay.run("b", &b.host, &over)?.runs(&b.host).await?;
    let punch_port = |status: &Value| {
        let port = status["punch_ports"]["tcp/ip4"].as_u64();
        anyhow::Ok(u16::try_from(port.context("no punch port")?)?)
    };
    let port = punch_port(&b_node.control.status().await?)?;
    b.site.cut(&[Traffic::From(port, port)])?;
    let leg = |status: &Value| {
        let relay = &status["relays"][0];
        (relay["reserved"] == true).then(|| sockets(&relay["paths"][0]).ok())?
    };
    let (leg, _) = b_node.until("a reservation", PATIENCE, leg).await?;
    let now = punch_port(&b_node.control.status().await?)?;
    ensure!(
        leg.port() == now && now != port,
        "from {port} to {now}, and the relay is reached from {leg}"
    );
    let log = b_node.process.log();
    ensure!(!log.contains("punch socket closed"), "{log}");
    // A punches from the number that is closed at B, as one pair of peers in 51 does.
    let mut args = NodeArgs::new(&relay, &a.host, &over);
    args.range = port..=port;
    let dial = args.dial("a", &b_node.id)?.on(&a.host)?.ended().await?;
    dial.is("direct")?;
    a.settle().await?;
    let outside = b.site.outside_ip4().context("an address")?;
    let dialed = a.home.sent_by(&a.host.addresses);
    let wrong = dialed.iter().find(|packet| {
        let to = packet.destination;
        to.ip() == outside && to.port() != now
    });
    ensure!(wrong.is_none(), "{wrong:?}, though B punches from {now}");
    Ok(())
}
