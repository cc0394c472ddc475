//! Networks as they are: names that cannot be resolved, paths that are slow or cut in the middle of pings, dials in a row.

use std::{fs, time::Duration};

use p2pnode_tests::{delay::Link, faults::Traffic, prelude::*};

lab_tests! {
    a_relay_that_returns_while_its_name_cannot_be_resolved_is_reserved_on_again: nameless();
    a_round_trip_that_grows_to_3_s_costs_no_reservation_and_no_direct_path: slow();
    pings_go_on_over_the_relay_at_once_when_the_direct_path_is_cut: cut_in_pings();
    tcp_dials_of_one_identity_in_a_row_through_a_nat_are_all_direct: in_a_row();
}

const NAME: &str = "relay.p2pnode.example";

async fn nameless() -> Result<()> {
    let lab = Lab::of_test().await?;
    let mut relay = Relay::start(&lab, "relay").await?;
    let host = lab.public_host("node").await?;
    host.device.set_host(NAME, relay.host.ip(false)?)?;
    let addresses = relay.addresses(&host, &Transport::ALL);
    let ip = format!("/ip4/{}/", relay.host.ip(false)?);
    let named = addresses.iter().filter(|address| address.starts_with(&ip));
    let named = named.map(|address| address.replacen(&ip, &format!("/dns4/{NAME}/"), 1));
    let args = NodeArgs::with_relays(named.collect(), &Transport::ALL);
    let node = args.run_on(&host, "node")?.reserves(&host).await?;

    // The name is gone, and no server answers.
    host.device
        .run_sync(|| Ok(fs::write("/etc/hosts", "127.0.0.1 localhost\n")?))?;
    let seen = node.seen();
    relay.process.kill().await?;
    let lost = node.process.event_after(seen, "reservation_lost", PATIENCE);
    lost.await?;
    let seen = node.seen();
    relay.restart().await?;
    node.process.event_after(seen, "reserved", PATIENCE).await?;
    for text in [
        "a name cannot be resolved; dialing the addresses at which its peer answered last",
        "connected at a remembered address of a name",
    ] {
        node.process.logged(text, PATIENCE).await?;
    }
    Ok(())
}

async fn slow() -> Result<()> {
    let mut both = Running::homes().direct().await?;
    let seen = both.ways().map(|(node, _)| node.seen());
    let relay = both.relay.id.clone();
    for millis in [400, 800, 1400, 2200, 3000] {
        both.lab.impair(Link::rtt(Duration::from_millis(millis)))?;
        // The next step comes when both ends of the direct path have measured this one, and each a leg.
        for (node, peer) in both.ways() {
            let is_measured = |path: &Value| path["rtt_ms"].as_f64() >= Some(0.9 * millis as f64);
            let look = |status: &Value| {
                let legs = status["relays"].as_array()?.iter();
                let mut legs = legs.filter(|leg| leg["relay"] == relay.as_str());
                let mut legs = legs.next()?["paths"].as_array()?.iter();
                let direct = control::paths(status, &peer.id, "direct");
                let is_slow = legs.any(is_measured) && direct.into_iter().any(is_measured);
                is_slow.then_some(())
            };
            node.until("slow round trips", PATIENCE * 2, look).await?;
        }
    }
    for ((node, _), seen) in both.ways().into_iter().zip(seen) {
        let events = node.process.events();
        let lost = ["reservation_lost", "disconnected"];
        let lost = events[seen..]
            .iter()
            .find(|event| lost.contains(&event.name()));
        ensure!(lost.is_none(), "{}: {lost:?}", node.process.name());
    }
    Ok(())
}

async fn cut_in_pings() -> Result<()> {
    let both = Running::homes().over(&[Transport::Quic]).direct().await?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    let dial = both.a.control.dial_within("a-pings", &both.b.id, "20s");
    let mut dial = dial.args(["--count", "5"]).on(&both.a.host)?;
    let ping = |seq: u64, kind: &'static str| {
        move |event: &Event| event.json["seq"] == seq && event.text("/kind") == kind
    };
    dial.first("a ping", 0, ping(2, "direct")).await?;
    both.a_side.site.cut(&[Traffic::With(b_outside)])?;
    let missed = dial.event("ping_missed", PATIENCE).await?;
    missed.has(&json!({"seq": 3, "missed": 1, "kind": "direct"}))?;
    let relayed = dial.first("a relayed path", 0, |event| event.path_kind() == "relayed");
    let relayed = relayed.await?;
    let next = dial.first("the next ping", 0, ping(3, "relayed")).await?;
    let took = next.at.saturating_duration_since(relayed.at);
    ensure!(took < Duration::from_secs(1), "{took:?} after the path");
    dial.first("the last ping", 0, ping(5, "relayed")).await?;
    both.a_side.site.mend()?;
    dial.ended().await?.result()?;
    Ok(())
}

async fn in_a_row() -> Result<()> {
    let mut lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let (_a_site, a) = lab.home("a", NatKind::EimApdf).await?;
    let (_b_site, b) = lab.home("b", NatKind::EimApdfRewrite).await?;
    let node = relay.node("b", &b, &[Transport::Tcp]).await?;
    lab.impair(Link::rtt(Duration::from_millis(200)))?;
    let key = lab.artifacts().file("a.key");
    for number in 0..4 {
        let name = format!("dial-{number}");
        let dial =
            NodeArgs::new(&relay, &a, &[Transport::Tcp]).dial_within(&name, &node.id, "10s")?;
        let dial = dial.arg("--key").arg(&key).on(&a)?.ended().await?;
        dial.is("direct")
            .with_context(|| format!("dial {number}"))?;
    }
    Ok(())
}
