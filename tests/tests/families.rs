//! Relayed paths keep one IP family from end to end where they can, and the configured family holds for the legs of relays.

use std::time::Duration;

use p2pnode_tests::{
    delay::{Family, Link},
    prelude::*,
};

lab_tests! {
    a_circuit_to_a_host_without_ip6_goes_over_ip4_once_the_punch_has_failed:
        to_a_host_without_ip6("true", "timeout");
    a_circuit_to_a_host_without_ip6_goes_over_ip4_where_nobody_punches:
        to_a_host_without_ip6("false", "disabled");
    a_host_with_both_families_is_called_in_the_family_of_its_caller: called();
    a_configured_family_holds_for_legs_to_relays: legs();
    a_direct_path_is_of_the_configured_family: direct();
    the_dialer_prefers_the_slower_family: prefers("prefer-ip6", "auto", Family::Ip6, "ip6");
    the_listener_prefers_the_slower_family: prefers("auto", "prefer-ip6", Family::Ip6, "ip6");
    the_dialers_preference_goes_before_the_listeners:
        prefers("prefer-ip4", "prefer-ip6", Family::Ip4, "ip4");
    a_node_that_has_just_started_ends_in_the_family_that_it_prefers: fresh();
}

const FAMILY: &str = "P2PNODE_DIAL_FAMILY";
const PUNCH: &str = "P2PNODE_PUNCH_ENABLED";

fn of_family(family: &str) -> Value {
    json!({"hops": [{"family": family}, {"family": family}]})
}

async fn reserved_in(node: &Node, wanted: &[&str]) -> Result<()> {
    let wanted = json!(wanted);
    let look = |status: &Value| (status["relays"][0]["reserved_families"] == wanted).then_some(());
    node.until("reservations in its families", PATIENCE, look)
        .await
}

/// A has both families, wants IPv6 first, and has two legs to the relay; B has IPv4 only, and no punch leads to it.
async fn to_a_host_without_ip6(punch: &str, reason: &str) -> Result<()> {
    let running = Running::new(NatKind::DualStack, NatKind::Symmetric).over(&[Transport::Quic]);
    let prepared = running.prepare().await?.a_env(FAMILY, "prefer-ip6");
    let both = prepared.a_env(PUNCH, punch).start().await?;
    reserved_in(&both.a, &["ip6", "ip4"]).await?;
    let result = both.dial_relayed().await?;
    result.has(&json!({"reason": reason, "path": of_family("ip4")}))?;
    // The first circuit had to be over the preferred leg; it is gone, for both.
    for (node, peer) in both.ways() {
        let look = |status: &Value| {
            let paths = control::paths(status, &peer.id, "relayed");
            (paths.len() == 1 && events::has(paths[0], &of_family("ip4")).is_ok()).then_some(())
        };
        node.until("one circuit, of one family", PATIENCE, look)
            .await?;
    }
    let events = both.a.process.events();
    let mut circuits = events
        .iter()
        .filter(|event| event.connects(&both.b.id, "relayed"));
    let crossed = circuits.any(|event| event.text("/path/hops/0/family") == "ip6");
    ensure!(crossed, "the preferred leg was not tried first");
    Ok(())
}

async fn node(relay: &Relay, name: &str, host: &Host, policy: &str, held: &[&str]) -> Result<Node> {
    let launch = relay.run(name, host, &[Transport::Quic])?;
    let launch = launch.env(PUNCH, "false").env(FAMILY, policy);
    let node = launch.reserves(host).await?;
    reserved_in(&node, held).await?;
    Ok(node)
}

async fn called() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let (_site, host) = lab.home("b", NatKind::DualStack).await?;
    let b = node(&relay, "b", &host, "auto", &["ip4", "ip6"]).await?;
    for (name, nat, family) in [
        ("v4", NatKind::EimApdf, "ip4"),
        ("v6", NatKind::Ip6Firewall, "ip6"),
    ] {
        let (_site, host) = lab.home(name, nat).await?;
        let a = node(&relay, name, &host, "auto", &[family]).await?;
        let dial = a.dial(&format!("{name}-dial"), &b.id).await?;
        dial.result()?.has(&json!({"path": of_family(family)}))?;
    }
    Ok(())
}

async fn legs() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let a_side = Peer::new(&lab, "a", NatKind::DualStack).await?;
    let b_side = Peer::new(&lab, "b", NatKind::DualStack).await?;
    let a = node(&relay, "a", &a_side.host, "prefer-ip6", &["ip6", "ip4"]).await?;
    let b = node(&relay, "b", &b_side.host, "only-ip6", &["ip6"]).await?;
    let dial = a.dial("a-dial", &b.id).await?;
    dial.result()?.has(&json!({"path": of_family("ip6")}))?;
    b_side.keeps_range().await?;
    let mut sent = b_side.home.sent_by(&b_side.host.addresses);
    sent.retain(|packet| packet.source.is_ipv4());
    ensure!(sent.is_empty(), "over IPv4 with only-ip6: {sent:?}");
    Ok(())
}

async fn direct() -> Result<()> {
    let running = Running::new(NatKind::DualStack, NatKind::DualStack).over(&[Transport::Quic]);
    let both = running
        .prepare()
        .await?
        .a_env(FAMILY, "only-ip4")
        .start()
        .await?;
    both.dial().await?;
    let path = both.settled(PATIENCE).await?;
    ensure!(path["hops"][0]["family"] == "ip4", "{path}");
    Ok(())
}

/// The connections of both families are made, the one of `slow` a moment later; one is left, of the family `expected`.
async fn prefers(a: &str, b: &str, slow: Family, expected: &str) -> Result<()> {
    for transport in Transport::ALL {
        let running = Running::new(NatKind::DualStack, NatKind::DualStack).over(&[transport]);
        let mut prepared = running.prepare().await?;
        prepared = prepared.a_env(FAMILY, a).b_env(FAMILY, b);
        let mut both = prepared.start().await?;
        for node in [&both.a, &both.b] {
            reserved_in_both(node).await?;
        }
        let link = Link::rtt(Duration::from_millis(20)).only(slow);
        both.lab.impair(link)?;
        let dial = both.dial().await?;
        if a != "auto" {
            dial.result()?
                .has(&json!({"path": {"hops": [{"family": expected}]}}))?;
        }
        // The faster one may be alone for a moment.
        for (node, peer) in both.ways() {
            let look = |status: &Value| {
                let direct = control::paths(status, &peer.id, "direct");
                let is_it = |path: &&Value| path["hops"][0]["family"] == expected;
                (direct.len() == 1 && direct.iter().all(is_it)).then_some(())
            };
            let what = "the connection of the preferred family alone";
            node.until(what, PATIENCE, look).await?;
        }
    }
    Ok(())
}

async fn reserved_in_both(node: &Node) -> Result<()> {
    let look = |status: &Value| {
        let families = status["relays"][0]["reserved_families"].as_array();
        families.filter(|held| held.len() == 2).map(|_| ())
    };
    node.until("reservations in both families", PATIENCE, look)
        .await
}

/// The dialer has no leg to the relay yet, and prefers another family than the peer.
async fn fresh() -> Result<()> {
    for transport in Transport::ALL {
        let lab = Lab::of_test().await?;
        let relay = Relay::start(&lab, "relay").await?;
        let a_side = Peer::new(&lab, "a", NatKind::DualStack).await?;
        let b_side = Peer::new(&lab, "b", NatKind::DualStack).await?;
        let b = relay.run("b", &b_side.host, &[transport])?;
        let b = b.env(FAMILY, "prefer-ip4").reserves(&b_side.host).await?;
        reserved_in_both(&b).await?;
        let dial = relay.dial("a", &a_side.host, &[transport], &b.id)?;
        let mut dial = dial.env(FAMILY, "prefer-ip6").on(&a_side.host)?;
        let path = json!({"kind": "direct", "hops": [{"family": "ip6"}]});
        dial.ended().await?.result()?.has(&json!({"path": path}))?;
    }
    Ok(())
}
