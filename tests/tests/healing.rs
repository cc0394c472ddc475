//! Networks as they are: names that cannot be resolved, paths that are slow or cut in the middle of pings.

use std::{fs, net::SocketAddr, time::Duration};

use p2pnode_tests::{
    admin::{self, ADMIN},
    delay::{Link, Uplink},
    faults::Traffic,
    prelude::*,
    probe,
    relay::RELAY_PORT,
};
use tokio::time::interval;

lab_tests! {
    a_relay_that_returns_while_its_name_cannot_be_resolved_is_reserved_on_again: nameless();
    a_round_trip_that_grows_to_3_s_costs_no_reservation_and_no_direct_path: slow(&[400, 1400, 3000]);
    a_round_trip_that_jumps_over_the_time_of_a_ping_and_back_costs_nothing_either: slow(&[3000, 10]);
    an_uplink_whose_queue_holds_6_s_for_40_s_costs_no_reservation_no_readiness_and_no_path: full_queue();
    pings_go_on_over_the_relay_at_once_when_the_direct_path_is_cut: cut_in_pings();
    pings_over_quic_that_no_path_carries_are_missed_as_they_fall_due_and_counted: all_cut(Transport::Quic);
    pings_over_tcp_that_no_path_carries_are_missed_as_they_fall_due_and_counted: all_cut(Transport::Tcp);
    a_port_whose_packets_are_lost_on_the_way_rests_and_another_one_takes_its_place: rests();
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
    // The last answer of the resolver is used for a moment.
    let unresolved =
        "a name cannot be resolved; dialing the addresses at which its peer answered last";
    node.process.logged(unresolved, PATIENCE).await?;
    let seen = node.seen();
    relay.restart().await?;
    node.process.event_after(seen, "reserved", PATIENCE).await?;
    let remembered = "connected at a remembered address of a name";
    node.process.logged(remembered, PATIENCE).await?;
    Ok(())
}

async fn slow(steps: &[u64]) -> Result<()> {
    let mut both = Running::homes().direct().await?;
    let relay = both.relay.id.clone();
    let seen = both.ways().map(|(node, _)| node.seen());
    // The lab drops what is on the way when the delay changes.
    for millis in steps {
        both.lab.impair(Link::rtt(Duration::from_millis(*millis)))?;
        // The next step comes when both ends of the direct path have measured this one, and each a leg.
        for (node, peer) in both.ways() {
            let is_measured = |path: &Value| {
                let measured = path["rtt_ms"].as_f64();
                measured.is_some_and(|rtt| {
                    rtt >= 0.9 * *millis as f64 && rtt <= 400.0 + 1.5 * *millis as f64
                })
            };
            let look = |status: &Value| {
                let legs = status["relays"].as_array()?.iter();
                let mut legs = legs.filter(|leg| leg["relay"] == relay.as_str());
                let mut legs = legs.next()?["paths"].as_array()?.iter();
                let direct = control::paths(status, &peer.id, "direct");
                let is_slow = legs.any(is_measured) && direct.into_iter().any(is_measured);
                is_slow.then_some(())
            };
            node.until("these round trips", PATIENCE * 2, look).await?;
        }
    }
    for ((node, _), seen) in both.ways().into_iter().zip(seen) {
        keeps_all(node, seen)?;
    }
    Ok(())
}

/// Packets take 10 ms each, and the queue holds 600. The flood fills it within 6 s, and then keeps it full.
async fn full_queue() -> Result<()> {
    const TICK: Duration = Duration::from_millis(50);
    let prepared = Running::homes().prepare().await?;
    let mut both = prepared
        .a_env("P2PNODE_ADMIN_LISTEN", ADMIN)
        .start()
        .await?;
    both.dial().await?;
    both.settled(PATIENCE).await?;
    let seen = both.ways().map(|(node, _)| node.seen());
    both.lab.impair(Link::uplink(Uplink {
        from: both.a_side.site.outside_ip4().context("A's address")?,
        each: Duration::from_millis(10),
        holds: Duration::from_secs(6),
    }))?;
    let socket = probe::udp(&both.a.host, 50_000).await?;
    let discard = SocketAddr::new(both.relay.host.ip(false)?, 9);
    let flood = tokio::spawn(async move {
        let mut ticks = interval(TICK);
        let (filling, full) = (std::iter::repeat_n(10, 120), std::iter::repeat_n(5, 800));
        for packets in filling.chain(full) {
            ticks.tick().await;
            for _ in 0..packets {
                socket.send_to(&[0; 1000], discard).await?;
            }
        }
        anyhow::Ok(())
    });
    let mut longest = 0.0_f64;
    let mut looks = interval(TICK * 10);
    while !flood.is_finished() {
        looks.tick().await;
        let ready = admin::get(&both.a.host, "/readyz").await?;
        ensure!(ready.status == 200, "{}", ready.body);
        let status = both.a.control.status().await?;
        let direct = control::paths(&status, &both.b.id, "direct");
        let rtts = direct.iter().filter_map(|path| path["rtt_ms"].as_f64());
        longest = rtts.fold(longest, f64::max);
    }
    flood.await??;
    ensure!(
        longest >= 5000.0,
        "no ping waited in the queue: {longest} ms"
    );
    for ((node, peer), seen) in both.ways().into_iter().zip(seen) {
        keeps_all(node, seen)?;
        let status = node.control.status().await?;
        let kind = &control::peer(&status, &peer.id)["path"]["kind"];
        ensure!(kind == "direct", "{status}");
    }
    Ok(())
}

/// Nothing of it was lost since then.
fn keeps_all(node: &Node, seen: usize) -> Result<()> {
    let events = node.process.events();
    let lost = ["reservation_lost", "disconnected"];
    let lost = events[seen..]
        .iter()
        .find(|event| lost.contains(&event.name()));
    ensure!(lost.is_none(), "{}: {lost:?}", node.process.name());
    Ok(())
}

/// A NAT that remembers an earlier connection drops the SYNs of the next one from the same port, and of no other.
async fn rests() -> Result<()> {
    let lab = Lab::of_test().await?;
    let mut relay = Relay::start(&lab, "relay").await?;
    let (site, host) = lab.home("node", NatKind::EimApdf).await?;
    let node = relay.node("node", &host, &[Transport::Tcp]).await?;
    let status = node.control.status().await?;
    let port = status["punch_ports"]["tcp/ip4"].as_u64();
    let port = u16::try_from(port.context("a punch port")?)?;
    let seen = node.seen();
    relay.process.kill().await?;
    let lost = node.process.event_after(seen, "reservation_lost", PATIENCE);
    lost.await?;
    site.cut(&[Traffic::From(port, port)])?;
    relay.restart().await?;
    node.process.event_after(seen, "reserved", PATIENCE).await?;
    let rests = node.process.event_after(seen, "port_rests", PATIENCE);
    let remote = format!("{}:{RELAY_PORT}", relay.host.ip(false)?);
    let expected = json!({"port": port, "remote": remote, "reason": "conntrack"});
    rests.await?.has(&expected)?;
    let why = ["why", &relay.id, "--json"];
    let why = node.control.json(&why).await?;
    ensure!(why["finding"]["id"] == "conntrack", "{why}");
    // The next connection leaves from another port at once.
    let seen = node.seen();
    relay.process.kill().await?;
    relay.restart().await?;
    let leg = node
        .process
        .event_after(seen, "connected", PATIENCE)
        .await?;
    let local = leg.json["path"]["hops"][0]["local"].to_string();
    ensure!(!local.contains(&format!(":{port}\"")), "{}", leg.line);
    node.process.event_after(seen, "reserved", PATIENCE).await?;
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

/// Cuts every path while this dial pings, until two pings had none. What the dial printed by then: how many it has missed.
async fn cut_all(both: &Both, dial: &Process) -> Result<u64> {
    let third = |event: &Event| event.name() == "ping" && event.json["seq"] == 2;
    dial.first("the second ping", 0, third).await?;
    both.a_side.site.cut(&[Traffic::Outside])?;
    let second = |event: &Event| {
        let no_path = event.name() == "ping_missed" && event.json["no_path"] == true;
        no_path && event.json["missed"].as_u64() >= Some(3)
    };
    let missed = dial.first("a third missed ping", 0, second).await?;
    missed.has(&json!({"seq": 3}))?;
    missed.json["missed"].as_u64().context("missed")
}

/// The result of a dial counts what the dial has printed.
fn counts(dial: &Dial) -> Result<&Event> {
    let result = dial.result()?;
    let count = |name: &str| dial.all(name).count();
    let (answered, missed) = (count("ping"), count("ping_missed"));
    result.has(&json!({"pings": {"answered": answered, "missed": missed}}))?;
    let last = dial.all("ping_missed").last().context("a missed ping")?;
    ensure!(last.json["missed"] == missed, "{last:?}");
    Ok(result)
}

async fn all_cut(transport: Transport) -> Result<()> {
    let both = Running::homes().over(&[transport]).direct().await?;
    let through = both.a.control.dial_within("through", &both.b.id, "20s");
    let alone = both
        .relay
        .dial("alone", &both.a.host, &[transport], &both.b.id)?;
    for dial in [through, alone] {
        let mut dial = dial.args(["--count", "5"]).on(&both.a.host)?;
        cut_all(&both, &dial).await?;
        both.a_side.site.mend()?;
        let dial = dial.ended().await?;
        counts(&dial)?.has(&json!({"pings": {"answered": 5}}))?;
    }
    both.a.direct(&both.b.id, PATIENCE).await?;
    // The paths stay cut.
    let dial = both.a.control.dial_within("for-good", &both.b.id, "8s");
    let mut dial = dial.args(["--count", "100"]).on(&both.a.host)?;
    cut_all(&both, &dial).await?;
    let dial = dial.ended().await?;
    let result = counts(&dial)?;
    result.has(&json!({"outcome": "unreachable", "attempts": 0}))?;
    let reason = result.text("/reason");
    ensure!(reason.contains("the path was lost"), "{reason}");
    both.a_side.site.mend()?;
    Ok(())
}
