//! `punch.deny`, `punch.allow` and `punch.advertise`, as the peer and the wire see them.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{PATIENCE, Transport},
    events::Event,
    nat::NatKind,
    pair::Peer,
    running::{Both, Prepared, Running},
    stranger::Stranger,
};
use serde_json::Value;

p2pnode_tests::lab_tests!();

const DENY: &str = "P2PNODE_PUNCH_DENY";
const ALLOW: &str = "P2PNODE_PUNCH_ALLOW";
const ADVERTISE: &str = "P2PNODE_PUNCH_ADVERTISE";
/// An address that nobody has.
const ADVERTISED: &str = "198.19.77.7";

async fn prepare(name: &str, transports: &[Transport]) -> Result<(Prepared, IpAddr, IpAddr)> {
    let prepared = Running::new(name, NatKind::EimApdf, NatKind::EimApdfRewrite)
        .transports(transports)
        .prepare()
        .await?;
    let a = prepared.a.site.outside_ip4().context("A's address")?;
    let b = prepared.b.site.outside_ip4().context("B's address")?;
    Ok((prepared, a, b))
}

/// What a host has sent to an address over a protocol, as text.
async fn sent_to(peer: &Peer, address: IpAddr, protocol: &str) -> Result<Vec<String>> {
    peer.settle().await?;
    let sent = peer.home().sent_by(&peer.host.addresses);
    Ok(sent
        .iter()
        .filter(|packet| packet.destination.ip() == address && packet.protocol.name() == protocol)
        .map(|packet| format!("{} > {}", packet.source, packet.destination))
        .collect())
}

/// A dials B, and each tells of a punch that has failed.
async fn fails(both: &Both) -> Result<[Event; 2]> {
    let dial = both.a.control.dial("a-dial", &both.b.id);
    let _dial = dial.start(&both.a.host.device, both.lab.artifacts())?;
    let failed = [
        both.a.process.event("punch", PATIENCE).await?,
        both.b.process.event("punch", PATIENCE).await?,
    ];
    for punch in &failed {
        ensure!(punch.text("/outcome") == "failed", "{}", punch.line);
    }
    Ok(failed)
}

fn outcomes(punch: &Value) -> Vec<&str> {
    let received = punch["received"].as_array().into_iter().flatten();
    received
        .filter_map(|candidate| candidate["outcome"].as_str())
        .collect()
}

#[tokio::test]
async fn a_denied_network_is_not_dialed() -> Result<()> {
    let (prepared, _, b_outside) = prepare("deny-dial", &Transport::ALL).await?;
    let both = prepared
        .a_env(DENY, &format!("{b_outside}/32"))
        .start()
        .await?;
    let [failed, _] = fails(&both).await?;
    ensure!(failed.text("/reason") == "filtered", "{}", failed.line);
    for protocol in ["udp", "tcp"] {
        let sent = sent_to(&both.a_side, b_outside, protocol).await?;
        ensure!(sent.is_empty(), "{protocol} to a denied network: {sent:?}");
    }
    let punch = both.a.last_punch(&both.b.id).await?;
    let outcomes = outcomes(&punch);
    ensure!(
        !outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == "filtered"),
        "{punch}"
    );
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_denied_network_is_not_sent() -> Result<()> {
    let (prepared, a_outside, _) = prepare("deny-send", &Transport::ALL).await?;
    let both = prepared
        .a_env(DENY, &format!("{a_outside}/32"))
        .start()
        .await?;
    let [sent, received] = fails(&both).await?;
    ensure!(
        sent.json["sent"] == Value::Array(Vec::new()),
        "{}",
        sent.line
    );
    ensure!(
        !received.json["received"]
            .to_string()
            .contains(&a_outside.to_string()),
        "{}",
        received.line
    );
    for protocol in ["udp", "tcp"] {
        let sent = sent_to(&both.b_side, a_outside, protocol).await?;
        ensure!(sent.is_empty(), "B learned the address: {sent:?}");
    }
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn what_is_not_allowed_is_neither_sent_nor_dialed() -> Result<()> {
    let (prepared, a_outside, b_outside) = prepare("allow", &[Transport::Quic]).await?;
    let both = prepared.a_env(ALLOW, "10.0.0.0/8").start().await?;
    fails(&both).await?;
    let sent = sent_to(&both.a_side, b_outside, "udp").await?;
    ensure!(sent.is_empty(), "A dialed {sent:?}");
    let sent = sent_to(&both.b_side, a_outside, "udp").await?;
    ensure!(sent.is_empty(), "B learned the address: {sent:?}");
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_network_denied_for_quic_is_punched_over_tcp() -> Result<()> {
    let (prepared, a_outside, b_outside) = prepare("deny-quic", &Transport::ALL).await?;
    let both = prepared.a_env(DENY, "0.0.0.0/0 quic").start().await?;
    both.dial().await?;
    both.verify_sockets().await?;
    let path = both.a.direct(&both.lab, &both.b.id, PATIENCE).await?;
    ensure!(path["hops"][0]["transport"] == "tcp", "{path}");
    for (side, far) in [(&both.a_side, b_outside), (&both.b_side, a_outside)] {
        let sent = sent_to(side, far, "udp").await?;
        ensure!(sent.is_empty(), "UDP between the peers: {sent:?}");
    }
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn advertised_addresses_are_offered_for_punches_and_told_to_nobody_else() -> Result<()> {
    let (prepared, ..) = prepare("advertise", &[Transport::Quic]).await?;
    let both = prepared
        .a_env(
            ADVERTISE,
            &format!("/ip4/{ADVERTISED}/udp/{{port}}/quic-v1"),
        )
        .start()
        .await?;
    both.dial().await?;
    let status = both.a.control.status().await?;
    let port = &status["punch_ports"]["quic/ip4"];
    let expected = format!("/ip4/{ADVERTISED}/udp/{port}/quic-v1");
    let offered = |punch: &Value, field: &str| punch[field].to_string().contains(&expected);
    let (a_punch, b_punch) = (
        both.a.last_punch(&both.b.id).await?,
        both.b.last_punch(&both.a.id).await?,
    );
    ensure!(offered(&a_punch, "sent"), "A: {a_punch}");
    ensure!(offered(&b_punch, "received"), "B: {b_punch}");

    let host = both.lab.public_host("stranger").await?;
    let stranger = Stranger::new(&both.lab, &host)?;
    let relay = both.relay.addresses(&host, &[Transport::Quic]).remove(0);
    let looks = stranger.dial("stranger", &relay, &both.a.id, &[])?;
    let told = looks.until("A's addresses", PATIENCE, |events| {
        let told =
            |event: &&Event| event.name() == "identified" && event.text("/peer") == both.a.id;
        events.iter().find(told).cloned()
    });
    let told = told.await?;
    // Nor are the punch sockets listed: only that A is reached through its relay.
    let listed = told.json["listen"].as_array().cloned().unwrap_or_default();
    ensure!(
        listed.iter().all(|address| address
            .as_str()
            .is_some_and(|text| text.contains("p2p-circuit"))),
        "{}",
        told.line
    );
    ensure!(!told.line.contains(ADVERTISED), "{}", told.line);
    both.lab.succeeded();
    Ok(())
}
