//! Peers and relays that do not admit a node: it reports the refusal, and does not ask without end.

use std::fs;

use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN},
    bins::bins,
    prelude::*,
};

lab_tests! {
    a_dial_over_quic_of_a_peer_that_does_not_admit_this_node_is_refused_at_once: refused(Transport::Quic);
    a_dial_over_tcp_of_a_peer_that_does_not_admit_this_node_is_refused_at_once: refused(Transport::Tcp);
    a_dial_of_an_address_whose_node_does_not_admit_this_one_is_refused_at_once: refused_at_address();
    a_dial_over_quic_of_a_peer_without_memory_ends_with_its_refusal: full(Transport::Quic, "the server refused to accept a new connection");
    a_dial_over_tcp_of_a_peer_without_memory_ends_with_its_reset: full(Transport::Tcp, "reset by the peer");
    a_dial_over_quic_of_a_relayed_peer_without_memory_ends_with_that: full_behind_a_relay(Transport::Quic);
    a_dial_over_tcp_of_a_relayed_peer_without_memory_ends_with_that: full_behind_a_relay(Transport::Tcp);
    a_quic_relay_that_does_not_admit_a_node_is_dialed_ever_less_often: relay_refuses(Transport::Quic);
    a_tcp_relay_that_does_not_admit_a_node_is_dialed_ever_less_often: relay_refuses(Transport::Tcp);
    a_dial_of_its_own_takes_nothing_from_the_node_that_runs_with_its_file: beside_a_node();
}

const NOBODY: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
const ALLOW: &str = "P2PNODE_ACCESS_ALLOW";

fn is_refusal(dial: &Dial) -> Result<()> {
    let reason = dial.is("unreachable")?.text("/reason");
    ensure!(reason.starts_with("refused: the peer closed 2"), "{reason}");
    let connected = dial.all("connected").count();
    ensure!(connected == 2, "{connected} connections");
    Ok(())
}

async fn refused(transport: Transport) -> Result<()> {
    let prepared = Running::homes().over(&[transport]).prepare().await?;
    let prepared = prepared.a_env(ADMIN_LISTEN, ADMIN);
    let both = prepared.b_env(ALLOW, NOBODY).start().await?;
    let refusal = |dial: &Dial, id: &str| {
        let reason = dial.result()?.text("/reason").to_owned();
        ensure!(reason.contains(id), "not {id}: {reason}");
        anyhow::Ok(reason)
    };
    for until in ["direct", "connected"] {
        let args = ["--until", until];
        let name = format!("{until}-by-node");
        let dial = both.a.dial_with(&name, &both.b.id, &args).await?;
        is_refusal(&dial)?;
        let reason = refusal(&dial, &both.a.id)?;
        // The node knows of it, though it has never reached the peer.
        let status = ["status", &both.b.id, "--json"];
        let known = both.a.control.json(&status).await?["refused"][0].clone();
        ensure!(
            known["peer"] == both.b.id.as_str() && known["reason"] == reason.as_str(),
            "{known}"
        );
        let why = both.a.control.text(&["why", &both.b.id]).await;
        let why = why.err().context("why knows no path")?.to_string();
        ensure!(why.contains(&reason), "{why}");
        let dial = both.relay.dial(
            &format!("{until}-alone"),
            &both.a.host,
            &[transport],
            &both.b.id,
        )?;
        let dial = dial.args(args).on(&both.a.host)?.ended().await?;
        is_refusal(&dial)?;
        let reason = refusal(&dial, "the throwaway identity of this command")?;
        ensure!(reason.contains("--key FILE"), "{reason}");
    }
    let read = admin::metrics(&both.a.host).await?;
    ensure!(read.sum("p2pnode_peers", &[]) == 0.0, "{read:?}");
    // The relay is as it was.
    ensure!(admin::readiness(&both.a.host, 200).await? == "ready\n");
    Ok(())
}

/// A node above `limits.memory` takes nobody. It spends no handshake on that, so TCP cannot carry the reason.
async fn full(transport: Transport, refusal: &str) -> Result<()> {
    let lab = Lab::of_test().await?;
    let (_site, host) = lab.home("a", NatKind::EimApdf).await?;
    let remote = lab.public_host("remote").await?;
    let node = NodeArgs::with_relays(Vec::new(), &[transport]);
    let node = node
        .run_on(&remote, "full")?
        .env("P2PNODE_LIMITS_MEMORY", "1MiB");
    let listen = transport.addr("0.0.0.0", 443);
    let node = node.args(["--listen", &listen]).runs(&remote).await?;
    node.process.event("listening", PATIENCE).await?;
    let at = transport.addr(remote.ip(false)?, 443);
    let dial = NodeArgs::with_relays(Vec::new(), &[transport]);
    let dial = dial.dial("a-dial", &node.id)?;
    let dial = dial.args(["--addr", &at]).on(&host)?.ended().await?;
    let reason = dial.is("unreachable")?.text("/reason");
    ensure!(reason.contains(refusal), "{reason}");
    Ok(())
}

/// The caller learns it as one of the causes that a relay cannot tell apart, and the peer's `status` says that it is so. A peer with
/// a moment's room takes the circuit, and closes it.
async fn full_behind_a_relay(transport: Transport) -> Result<()> {
    let prepared = Running::homes().over(&[transport]).prepare().await?;
    let prepared = prepared.b_env("P2PNODE_LIMITS_MEMORY", "1MiB");
    let both = prepared.start().await?;
    let dial = both.a.dial_with("dial", &both.b.id, &[]).await?;
    let reason = dial.is("unreachable")?.text("/reason");
    ensure!(reason.contains("is full"), "{reason}");
    if reason.contains("its `status` says why") {
        let status = both.b.control.json(&["status", "--json"]).await?;
        ensure!(status["turned_away"][0]["reason"] == "memory", "{status}");
    }
    Ok(())
}

async fn refused_at_address() -> Result<()> {
    let lab = Lab::of_test().await?;
    let (_site, host) = lab.home("a", NatKind::EimApdf).await?;
    let remote = lab.public_host("remote").await?;
    for (transport, port) in [(Transport::Quic, 443), (Transport::Tcp, 444)] {
        let node = NodeArgs::with_relays(Vec::new(), &[transport]);
        let node = node.run_on(&remote, transport.name())?.env(ALLOW, NOBODY);
        let listen = transport.addr("0.0.0.0", port);
        let node = node.args(["--listen", &listen]).runs(&remote).await?;
        node.process.event("listening", PATIENCE).await?;
        let at = transport.addr(remote.ip(false)?, port);
        let dial = NodeArgs::with_relays(Vec::new(), &[transport]);
        let dial = dial.dial(&format!("{transport}-dial"), &node.id)?;
        is_refusal(&dial.args(["--addr", &at]).on(&host)?.ended().await?)?;
    }
    Ok(())
}

async fn relay_refuses(transport: Transport) -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start_with(&lab, "relay", &[("RELAY_NODE_ACCESS_ALLOW", NOBODY)]).await?;
    let (_site, host) = lab.home("a", NatKind::EimApdf).await?;
    let node = relay.run("node", &host, &[transport])?.runs(&host).await?;
    node.process.logged("times=4", PATIENCE).await?;
    let log = node.process.log();
    let about = log.lines().filter(|line| line.contains(&relay.id)).count();
    ensure!(about <= 8, "{about} lines of log: {log}");
    Ok(())
}

async fn beside_a_node() -> Result<()> {
    let both = Running::homes().start().await?;
    both.dial().await?;
    both.settled(PATIENCE).await?;
    let file = both.lab.artifacts().file("a.yaml");
    let key = both.lab.artifacts().file("a.key");
    let relays = both.relay.addresses(&both.a.host, &Transport::ALL);
    let relays = serde_json::to_string(&relays)?;
    fs::write(
        &file,
        format!("identity: {{ key_file: {key:?} }}\nrelays: {relays}\n"),
    )?;
    let seen = both.ways().map(|(node, _)| node.seen());
    let dial = Launch::new("alone", bins()?.p2pnode)
        .arg("--config")
        .arg(file);
    let dial = dial.args([
        "dial",
        &both.b.id,
        "--standalone",
        "--json",
        "--timeout",
        "8s",
    ]);
    dial.on(&both.a.host)?.ended().await?.is("direct")?;
    let ends = |event: &&Event| ["disconnected", "reservation_lost"].contains(&event.name());
    let a = both.a.process.events();
    let ended = a[seen[0]..].iter().find(ends);
    ensure!(ended.is_none(), "{ended:?}");
    let b = both.b.process.events();
    let mut callers = b[seen[1]..]
        .iter()
        .filter(|event| event.name() == "connected");
    ensure!(
        callers.all(|event| event.text("/peer") != both.a.id),
        "A's identity"
    );
    both.settled(PATIENCE).await?;
    Ok(())
}
