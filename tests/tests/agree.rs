//! `dial`, `status`, `why`, `/readyz`, metrics, events and log of a node agree about the same moment.

use std::fs;

use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN},
    faults::Traffic,
    prelude::*,
};

lab_tests! {
    what_a_node_shows_of_a_direct_peer_agrees_over_quic: direct(Transport::Quic);
    what_a_node_shows_of_a_direct_peer_agrees_over_tcp: direct(Transport::Tcp);
    what_a_node_shows_of_a_relayed_peer_agrees: relayed();
    what_a_node_shows_of_a_peer_that_no_punch_reaches_agrees: no_punch();
    what_a_node_shows_of_a_peer_that_is_lost_agrees: lost();
    what_a_node_shows_of_a_relay_that_is_gone_agrees: no_relay();
    what_a_node_shows_of_a_relay_that_refuses_it_agrees_and_is_said_once: refused();
    a_peer_has_its_name_wherever_it_is_shown_and_is_asked_for_by_it: named();
}

/// How many connections of this kind to `peer` are open by the events of a node.
fn open(node: &Node, peer: &str, kind: &str) -> usize {
    let events = node.process.events();
    let of = |name: &str, at: &str| {
        let of_peer = events.iter().filter(|event| event.text("/peer") == peer);
        of_peer
            .filter(|event| event.name() == name && event.text(at) == kind)
            .count()
    };
    of("connected", "/path/kind").saturating_sub(of("disconnected", "/kind"))
}

/// The best path of `peer` has this kind and reason wherever A shows it.
async fn agrees(both: &Both, result: &Event, kind: &str, reason: Value) -> Result<()> {
    let (a, peer) = (&both.a, both.b.id.as_str());
    result.has(&json!({"path": {"kind": kind}, "reason": reason}))?;
    let status = a.control.status().await?;
    let shown = control::peer(&status, peer);
    events::has(shown, &json!({"path": {"kind": kind}}))?;
    ensure!(shown["reason"] == reason, "{shown}");
    let why = a.control.why(peer).await?;
    events::has(&why, &json!({"candidates": [{"path": {"kind": kind}}]}))?;
    ensure!(why["reason"] == reason, "{why}");
    // A punch that has succeeded has failed on neither side.
    for node in [a, &both.b] {
        let events = node.process.events();
        let lost = |event: &&Event| event.text("/reason") == "circuit_lost";
        ensure!(!events.iter().any(|event| lost(&event)), "{events:?}");
    }
    let read = admin::metrics(&a.host).await?;
    for path in ["direct", "relayed"] {
        let peers = read.sum("p2pnode_peers", &[("path", path)]);
        ensure!(peers == f64::from(u8::from(path == kind)), "{read:?}");
    }
    // The circuit may come after the direct connection.
    let best = ["direct", "relayed"]
        .into_iter()
        .find(|kind| open(a, peer, kind) > 0);
    ensure!(best == Some(kind), "{best:?}");
    ensure!(admin::readiness(&a.host, 200).await? == "ready\n");
    Ok(())
}

async fn direct(transport: Transport) -> Result<()> {
    let running = Running::homes().over(&[transport]).prepare().await?;
    let both = running.a_env(ADMIN_LISTEN, ADMIN).start().await?;
    let dial = both.dial().await?;
    both.settled(PATIENCE).await?;
    agrees(&both, dial.result()?, "direct", Value::Null).await?;
    // Also of the relay: it is connected wherever A shows it.
    let (a, relay) = (&both.a, both.relay.id.as_str());
    let why = a.control.why(relay).await?;
    events::has(&why, &json!({"candidates": [{"path": {"kind": "direct"}}]}))?;
    let text = a.control.text(&["status", relay]).await?;
    ensure!(
        text.contains("reserved")
            && !text.contains("unreachable")
            && !text.contains("p2pnode dial"),
        "{text}"
    );
    ensure!(open(a, relay, "direct") > 0, "the relay");
    Ok(())
}

/// The log and the page of the reason say the same as all the others.
async fn is_relayed_because(both: &Both, reason: &str) -> Result<()> {
    let result = both.dial_relayed().await?;
    agrees(both, &result, "relayed", json!(reason)).await?;
    let logged = format!("reason={reason}");
    both.a.process.logged(&logged, PATIENCE).await?;
    let text = both.a.control.text(&["why", &both.b.id]).await?;
    ensure!(text.contains(&format!("not direct: {reason}")), "{text}");
    Ok(())
}

async fn relayed() -> Result<()> {
    let running = Running::homes().over(&[Transport::Quic]).prepare().await?;
    let running = running.a_env(ADMIN_LISTEN, ADMIN);
    let running = running.a_env("P2PNODE_PUNCH_ENABLED", "false");
    is_relayed_because(&running.start().await?, "disabled").await
}

async fn no_punch() -> Result<()> {
    let running = Running::new(NatKind::Symmetric, NatKind::Symmetric);
    let running = running.over(&[Transport::Tcp]).prepare().await?;
    let both = running.a_env(ADMIN_LISTEN, ADMIN).start().await?;
    is_relayed_because(&both, "timeout").await?;
    // The next dial punches again.
    let seen = both.a.seen();
    let again = both.dial_relayed().await?;
    again.has(&json!({"reason": "timeout"}))?;
    let punch = both.a.process.event_after(seen, "punch", PATIENCE).await?;
    punch.has(&json!({"peer": both.b.id, "outcome": "failed"}))
}

async fn lost() -> Result<()> {
    let running = Running::homes().over(&[Transport::Tcp]).prepare().await?;
    let both = running.a_env(ADMIN_LISTEN, ADMIN).start().await?;
    both.dial().await?;
    both.settled(PATIENCE).await?;
    let (a, peer) = (&both.a, both.b.id.as_str());
    both.a_side.site.cut(&[Traffic::Outside])?;
    let paused = a.process.event("search_paused", PATIENCE * 2).await?;
    paused.has(&json!({"peer": peer, "reason": "no_relay"}))?;
    let status = a.control.status().await?;
    events::has(
        &status,
        &json!({"lost": [{"peer": peer, "paused": "no_relay"}]}),
    )?;
    ensure!(control::peer(&status, peer)["path"].is_null(), "{status}");
    let text = a.control.text(&["status"]).await?;
    ensure!(text.contains("paused, no relay is reachable"), "{text}");
    ensure!(open(a, peer, "direct") + open(a, peer, "relayed") == 0);
    ensure!(open(a, &both.relay.id, "direct") == 0, "the relay");
    let ready = admin::readiness(&a.host, 503).await?;
    ensure!(ready.contains(&both.relay.id), "{ready}");
    let read = admin::metrics(&a.host).await?;
    ensure!(read.sum("p2pnode_peers", &[]) == 0.0, "{read:?}");
    ensure!(read.sum("p2pnode_reservations", &[]) == 0.0, "{read:?}");
    let lost = read.sum("p2pnode_path_changes_total", &[("reason", "lost")]);
    ensure!(lost >= 1.0, "{read:?}");
    both.a_side.site.mend()?;
    a.process.event("search_resumed", PATIENCE * 2).await?;
    Ok(())
}

/// What `p2pnode` prints on stderr, and its exit code.
async fn fails(node: &Node, name: &str, args: &[&str]) -> Result<(i32, String)> {
    let mut command = node.control.command(name, args).on(&node.host)?;
    let code = command.exit(PATIENCE).await?.code().unwrap_or_default();
    Ok((code, command.log()))
}

async fn no_relay() -> Result<()> {
    let running = Running::homes().over(&[Transport::Quic]).prepare().await?;
    let mut both = running.a_env(ADMIN_LISTEN, ADMIN).start().await?;
    both.relay.process.kill().await?;
    both.a.process.event("relay_unreachable", PATIENCE).await?;
    let relay = both.relay.id.as_str();
    let look = |status: &Value| {
        let reason = status["relays"][0]["reason"].as_str()?;
        Some(reason.to_owned())
    };
    let reason = both.a.until("a reason", PATIENCE, look).await?;
    let ready = admin::readiness(&both.a.host, 503).await?;
    ensure!(ready.contains(relay), "{ready}");
    let read = admin::metrics(&both.a.host).await?;
    read.is("p2pnode_reservations", &[("relay", "0")], 0.0)?;
    let text = both.a.control.text(&["status", relay]).await?;
    ensure!(
        text.contains("unreachable") && !text.contains("p2pnode dial"),
        "{text}, and not {reason}"
    );
    let (code, said) = fails(&both.a, "why-relay", &["why", relay]).await?;
    ensure!(code == 1 && said.contains("is not connected"), "{said}");
    ensure!(!said.contains("p2pnode dial"), "{said}");
    for command in ["status", "why", "dial"] {
        let (code, said) =
            fails(&both.a, &format!("{command}-own"), &[command, &both.a.id]).await?;
        ensure!(
            code == 2 && !said.contains("connects it"),
            "{command}: {code}, {said}"
        );
    }
    // The dial takes its time, and the relay comes back in it.
    let mut dial = both.start_dial()?;
    dial.event("dialing", PATIENCE).await?;
    both.relay.restart().await?;
    dial.ended().await?.is("direct")?;
    Ok(())
}

async fn refused() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start_with(&lab, "relay", &[("RELAY_NODE_ACCESS_TOKENS", "true")]).await?;
    let (_site, host) = lab.home("a", NatKind::EimApdf).await?;
    let node = relay.run("a", &host, &[Transport::Quic])?;
    let node = node.env(ADMIN_LISTEN, ADMIN).runs(&host).await?;
    let refused = node.process.event("relay_refused", PATIENCE).await?;
    let reason = refused.text("/reason").to_owned();
    let status = node.control.status().await?;
    events::has(&status, &json!({"relays": [{"refused": reason}]}))?;
    let ready = admin::readiness(&host, 503).await?;
    ensure!(ready.contains(&reason), "{ready}");
    // It is dialed again and again, and that is no news. A dial has it dialed at once.
    for turn in 0..3 {
        let dial = node.dial(&format!("dial-{turn}"), &nobody()).await?;
        let said = dial.is("unreachable")?.text("/reason").to_owned();
        ensure!(said.contains(&reason), "{said}");
    }
    let events = node.process.events();
    let of = |name: &str| events.iter().filter(|event| event.name() == name).count();
    ensure!(
        of("connected") <= 1 && of("disconnected") <= 1,
        "{events:?}"
    );
    ensure!(of("relay_refused") == 1, "{events:?}");
    Ok(())
}

/// A peer that is nowhere.
fn nobody() -> String {
    "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt".to_owned()
}

async fn named() -> Result<()> {
    let prepared = Running::homes().over(&[Transport::Quic]).prepare().await?;
    let (lab, relay) = (&prepared.lab, &prepared.relay);
    let b = relay
        .node("b", &prepared.b.host, &[Transport::Quic])
        .await?;
    let file = lab.artifacts().file("a.yaml");
    fs::write(&file, format!("peers: {{ db: {{ id: {} }} }}\n", b.id))?;
    let a = relay.run("a", &prepared.a.host, &[Transport::Quic])?;
    let a = a
        .env("P2PNODE_CONFIG", &file)
        .reserves(&prepared.a.host)
        .await?;
    // The command has no configuration: the node knows the name.
    let dial = a.dial("by-name", "db").await?;
    dial.is("direct")?;
    let dialing = dial.all("dialing").next().context("no dialing")?;
    dialing.has(&json!({"peer": b.id, "name": "db"}))?;
    let status = a.control.status().await?;
    ensure!(control::peer(&status, &b.id)["name"] == "db", "{status}");
    ensure!(a.control.why("db").await?["name"] == "db");
    for args in [&["status", "db"][..], &["status"], &["why", "db"]] {
        let text = a.control.text(args).await?;
        ensure!(text.contains("db"), "{text}");
    }
    let serve = ["serve", "x", "tcp://127.0.0.1:7", "--allow", "db", "--json"];
    let listen = "tcp://127.0.0.1:7001";
    let forward = ["forward", "x@db", "--listen", listen, "--json"];
    for (args, begun) in [(&serve[..], "serving"), (&forward, "listening")] {
        let command = a.control.command(args[0], args).on(&a.host)?;
        command.event(begun, PATIENCE).await?;
    }
    for command in ["status", "why", "dial", "services"] {
        let (code, said) = fails(&a, &format!("{command}-unknown"), &[command, "cache"]).await?;
        ensure!(
            code == 2 && said.contains("db"),
            "{command}: {code}, {said}"
        );
    }
    Ok(())
}
