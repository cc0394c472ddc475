//! `punch.deny`, `punch.allow` and `punch.advertise`, as the peer and the wire see them.

use std::net::IpAddr;

use p2pnode_tests::{prelude::*, stranger};

lab_tests! {
    a_denied_network_is_not_dialed: not_dialed();
    a_denied_network_is_not_sent: not_sent();
    what_is_not_allowed_is_neither_sent_nor_dialed: not_allowed();
    a_network_denied_for_quic_is_punched_over_tcp: denied_for_quic();
    advertised_addresses_are_offered_for_punches_and_to_nobody_else: advertised();
}

const DENY: &str = "P2PNODE_PUNCH_DENY";

async fn prepare(transports: &[Transport]) -> Result<(Prepared, IpAddr, IpAddr)> {
    let prepared = Running::homes().over(transports).prepare().await?;
    let a = prepared.a.site.outside_ip4().context("A's address")?;
    let b = prepared.b.site.outside_ip4().context("B's address")?;
    Ok((prepared, a, b))
}

async fn never_sent_to(peer: &Peer, address: IpAddr, protocols: &[&str]) -> Result<()> {
    peer.settle().await?;
    let mut sent = peer.home.sent_by(&peer.host.addresses);
    sent.retain(|packet| {
        packet.destination.ip() == address && protocols.contains(&packet.protocol.name())
    });
    ensure!(sent.is_empty(), "{sent:?}");
    Ok(())
}

async fn fails(both: &Both) -> Result<[Event; 2]> {
    let _dial = both.start_dial()?;
    let failed = [
        both.a.process.event("punch", PATIENCE).await?,
        both.b.process.event("punch", PATIENCE).await?,
    ];
    for punch in &failed {
        punch.has(&json!({"outcome": "failed"}))?;
    }
    Ok(failed)
}

async fn not_dialed() -> Result<()> {
    let (prepared, _, b_outside) = prepare(&Transport::ALL).await?;
    let both = prepared
        .a_env(DENY, &format!("{b_outside}/32"))
        .start()
        .await?;
    let [failed, _] = fails(&both).await?;
    failed.has(&json!({"reason": "filtered"}))?;
    never_sent_to(&both.a_side, b_outside, &["udp", "tcp"]).await?;
    let punch = both.a.last_punch(&both.b.id).await?;
    let received = punch["received"].as_array().context("no candidates")?;
    let filtered = |candidate: &Value| candidate["outcome"] == "filtered";
    ensure!(
        !received.is_empty() && received.iter().all(filtered),
        "{punch}"
    );
    Ok(())
}

async fn not_sent() -> Result<()> {
    let (prepared, a_outside, _) = prepare(&Transport::ALL).await?;
    let both = prepared
        .a_env(DENY, &format!("{a_outside}/32"))
        .start()
        .await?;
    let [sent, received] = fails(&both).await?;
    ensure!(sent.json["sent"] == json!([]), "{}", sent.line);
    let received = received.json["received"].to_string();
    ensure!(!received.contains(&a_outside.to_string()), "{received}");
    never_sent_to(&both.b_side, a_outside, &["udp", "tcp"]).await
}

async fn not_allowed() -> Result<()> {
    let (prepared, a_outside, b_outside) = prepare(&[Transport::Quic]).await?;
    let both = prepared
        .a_env("P2PNODE_PUNCH_ALLOW", "10.0.0.0/8")
        .start()
        .await?;
    fails(&both).await?;
    never_sent_to(&both.a_side, b_outside, &["udp"]).await?;
    never_sent_to(&both.b_side, a_outside, &["udp"]).await
}

async fn denied_for_quic() -> Result<()> {
    let (prepared, a_outside, b_outside) = prepare(&Transport::ALL).await?;
    let both = prepared.a_env(DENY, "0.0.0.0/0 quic").start().await?;
    both.dial().await?;
    both.verify_sockets().await?;
    let path = both.a.direct(&both.b.id, PATIENCE).await?;
    ensure!(path["hops"][0]["transport"] == "tcp", "{path}");
    never_sent_to(&both.a_side, b_outside, &["udp"]).await?;
    never_sent_to(&both.b_side, a_outside, &["udp"]).await
}

async fn advertised() -> Result<()> {
    /// An address that nobody has.
    const ADVERTISED: &str = "198.19.77.7";
    let (prepared, ..) = prepare(&[Transport::Quic]).await?;
    let advertise = Transport::Quic.addr(ADVERTISED, "{port}");
    // An introduction carries what the relay sees, so it leaves out such an address. A node with a filter leaves it to DCUtR.
    let both = prepared
        .a_env("P2PNODE_PUNCH_ADVERTISE", &advertise)
        .a_env("P2PNODE_PUNCH_DENY", "192.0.2.0/24")
        .a_env("P2PNODE_LISTEN", &Transport::Quic.addr("0.0.0.0", 443))
        .start()
        .await?;
    both.dial().await?;
    let status = both.a.control.status().await?;
    let expected = Transport::Quic.addr(ADVERTISED, &status["punch_ports"]["quic/ip4"]);
    for ((node, peer), field) in both.ways().into_iter().zip(["sent", "received"]) {
        let punch = node.last_punch(&peer.id).await?;
        ensure!(
            punch[field].to_string().contains(&expected),
            "{field}: {punch}"
        );
    }

    let host = both.lab.public_host("stranger").await?;
    let relay = both.relay.address(&host, Transport::Quic)?;
    let looks = stranger::dial(&host, "stranger", &relay, &both.a.id, &[])?;
    let of_a = |event: &Event| event.name() == "identified" && event.text("/peer") == both.a.id;
    let told = looks.first("A's addresses", 0, of_a).await?;
    // Nor are the punch sockets listed, nor where A listens inside: only that A is reached through its relay.
    let listed = |told: &Event| told.json["listen"].as_array().cloned().unwrap_or_default();
    let is_circuit = |address: &Value| address.to_string().contains("p2p-circuit");
    ensure!(listed(&told).iter().all(is_circuit), "{}", told.line);
    ensure!(!told.line.contains(ADVERTISED), "{}", told.line);
    // The relay listens on all its addresses, loopback among them, and lists those that it gives out.
    let of_relay =
        |event: &Event| event.name() == "identified" && event.text("/peer") == both.relay.id;
    let told = looks.first("the relay's addresses", 0, of_relay).await?;
    let public: Vec<_> = both.relay.host.addresses.iter().collect();
    let is_public = |address: &Value| {
        let address = address.to_string();
        public.iter().any(|ip| address.contains(&format!("/{ip}/")))
    };
    let listed = listed(&told);
    ensure!(
        !listed.is_empty() && listed.iter().all(is_public),
        "{}",
        told.line
    );
    Ok(())
}
