//! AutoNAT v2 between programs of ours and of libp2p-autonat: each asks the other.

use p2pnode_tests::{bins::plain_libp2p, prelude::*};

lab_tests! {
    a_relay_answers_libp2ps_client_over_quic: answers(Transport::Quic);
    a_relay_answers_libp2ps_client_over_tcp: answers(Transport::Tcp);
    a_node_learns_from_libp2ps_server_what_is_reached_and_sends_it_data: learns();
}

/// A port of the client. The NATs keep it.
const PORT: u16 = 40025;

/// A peer that is nowhere: the only one that a relay admits.
const NOBODY: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

async fn answers(transport: Transport) -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    for (kind, is_reached) in [(NatKind::FullCone, true), (NatKind::EimApdf, false)] {
        let side = Peer::new(&lab, kind.name(), kind).await?;
        let mut asks = Launch::new(format!("asks-{kind}"), plain_libp2p()?)
            .args([
                "--listen",
                &transport.addr(side.host.ip(false)?, PORT),
                "autonat-ask",
            ])
            .arg(relay.address(&side.host, transport)?)
            .on(&side.host)?;
        asks.exit(PATIENCE).await?;
        let tested = asks.event("tested", PATIENCE).await?;
        let outside = side.site.outside_ip4().context("its address")?;
        let address = transport.addr(outside, PORT);
        tested.has(&json!({"address": address, "data": 0}))?;
        let outcome = tested.text("/outcome");
        ensure!((outcome == "reached") == is_reached, "{kind}: {outcome}");
    }
    Ok(())
}

/// The server answers no STUN. What the node's ports look like from outside, another relay sees, which admits nobody.
async fn learns() -> Result<()> {
    let lab = Lab::of_test().await?;
    let nobody = [("RELAY_NODE_ACCESS_ALLOW", NOBODY)];
    let stun = Relay::start_with(&lab, "stun", &nobody).await?;
    let host = lab.public_host("server").await?;
    let ip = host.ip(false)?;
    let mut server = Launch::new("server", plain_libp2p()?);
    for transport in Transport::ALL {
        server = server.args(["--listen", &transport.addr(ip, 4001)]);
    }
    let server = server.arg("autonat-serve").on(&host)?;
    let both = |events: &[Event]| {
        let listening = events.iter().filter(|event| event.name() == "listening");
        let addresses: Vec<_> = listening
            .map(|event| event.text("/address").to_owned())
            .collect();
        (addresses.len() == 2).then_some(addresses)
    };
    let mut relays = server.until("both addresses", PATIENCE, both).await?;
    let side = Peer::new(&lab, "a", NatKind::FullCone).await?;
    relays.extend(stun.addresses(&side.host, &Transport::ALL));
    let args = NodeArgs::with_relays(relays, &Transport::ALL);
    let node = args.run_on(&side.host, "a")?.reserves(&side.host).await?;
    let look = node.control.command("look", &["netcheck", "--json"]);
    let look = look.on(&side.host)?.ended().await?;
    let report = look.all("netcheck").next().context("no report")?;
    let checks = report.json["checks"].as_array().context("no checks")?;
    let mut mappings = checks.iter().filter(|check| check["id"] == "mapping");
    ensure!(
        mappings.clone().count() == 2
            && mappings.all(|check| check["text"]
                .as_str()
                .is_some_and(|text| text.starts_with("none needed"))),
        "{}",
        report.line
    );
    // The address of the other transport is another one than that of the connection.
    let events = server.events();
    let data = |event: &&Event| {
        event.json["data"]
            .as_u64()
            .is_some_and(|data| data >= 30_000)
    };
    let paid = events
        .iter()
        .filter(|event| event.name() == "tested")
        .find(data);
    let paid = paid.with_context(|| format!("{events:?}"))?;
    paid.has(&json!({"outcome": "answered"}))?;
    side.settle().await?;
    side.keeps_range().await
}
