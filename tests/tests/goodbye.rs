//! How a peer goes: one that says goodbye is left alone, one that is lost is looked for until it is back.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    control,
    events::Event,
    nat::NatKind,
    running::{Both, Node, Running},
};

p2pnode_tests::lab_tests!();

/// What a node logs when it dials a peer that it has lost.
const REDIAL: &str = "dialing a lost peer";

/// For a peer that is back to be found: the longest pause between two rounds of dials, and a punch that needs its second
/// attempt.
const FOUND: Duration = Duration::from_secs(60);

/// Which of the two goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaver {
    Dialer,
    Dialed,
}

/// Two nodes with one direct connection and nothing else.
async fn direct(name: &str, transport: Transport) -> Result<Both> {
    let both = Running::new(name, NatKind::EimApdf, NatKind::EimApdfRewrite)
        .transports(&[transport])
        .start()
        .await?;
    both.dial().await?;
    both.settled(PATIENCE).await?;
    Ok(both)
}

/// The end of the direct path to `peer` after the first `seen` events.
async fn path_ended(node: &Node, seen: usize, peer: &str) -> Result<Event> {
    let ended = |events: &[Event]| {
        let mut events = events.iter().skip(seen);
        events
            .find(|event| event.name() == "disconnected" && event.text("/peer") == peer)
            .cloned()
    };
    let ended = node.process.until("the end of the path", PATIENCE, ended);
    let ended = ended.await?;
    ensure!(ended.text("/kind") == "direct", "{}", ended.line);
    Ok(ended)
}

/// Whether the node has dialed a peer again, now that it has ended its work on everything that it told before: it dials in
/// the turn of its loop in which the peer is lost, and answers a status in a later one.
async fn has_redialed(node: &Node) -> Result<bool> {
    node.control.status().await?;
    Ok(node.process.log().contains(REDIAL))
}

async fn goodbye(name: &str, transport: Transport, leaver: Leaver) -> Result<()> {
    let mut both = direct(name, transport).await?;
    let Both { a, b, .. } = &mut both;
    let (gone, left) = match leaver {
        Leaver::Dialer => (a, b),
        Leaver::Dialed => (b, a),
    };
    let seen = left.process.events().len();
    gone.process.terminate()?;
    let status = gone.process.exit(PATIENCE).await?;
    ensure!(status.success(), "{}: {status}", gone.process.name());

    let ended = path_ended(left, seen, &gone.id).await?;
    // In the words of quinn and of yamux.
    let said = match transport {
        Transport::Quic => "closed by peer",
        Transport::Tcp => "connection is closed",
    };
    ensure!(
        ended.text("/reason").starts_with(said),
        "not a goodbye: {}",
        ended.line
    );
    ensure!(
        !has_redialed(left).await?,
        "a peer that said goodbye is dialed again: {}",
        ended.line
    );
    let status = left.control.status().await?;
    ensure!(control::peer(&status, &gone.id).is_null(), "{status}");
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_dialed_peer_that_ends_closes_its_quic_path_and_is_not_dialed_again() -> Result<()> {
    goodbye("goodbye-dialed-quic", Transport::Quic, Leaver::Dialed).await
}

#[tokio::test]
async fn a_dialed_peer_that_ends_closes_its_tcp_path_and_is_not_dialed_again() -> Result<()> {
    goodbye("goodbye-dialed-tcp", Transport::Tcp, Leaver::Dialed).await
}

#[tokio::test]
async fn a_dialing_peer_that_ends_closes_its_quic_path_and_is_not_dialed() -> Result<()> {
    goodbye("goodbye-dialer-quic", Transport::Quic, Leaver::Dialer).await
}

#[tokio::test]
async fn a_dialing_peer_that_ends_closes_its_tcp_path_and_is_not_dialed() -> Result<()> {
    goodbye("goodbye-dialer-tcp", Transport::Tcp, Leaver::Dialer).await
}

/// B's node is killed, and started again with its key once A looks for it.
async fn killed(name: &str, transport: Transport) -> Result<()> {
    let mut both = direct(name, transport).await?;
    let seen = both.a.process.events().len();
    both.b.process.kill().await?;

    let lost = path_ended(&both.a, seen, &both.b.id).await?;
    ensure!(
        has_redialed(&both.a).await?,
        "a peer that was killed is not dialed again: {}",
        lost.line
    );

    let artifacts = both.lab.artifacts();
    fs::copy(artifacts.file("b.key"), artifacts.file("b-again.key")).context("B's key")?;
    let launch = NodeArgs::new(&both.relay, &both.b.host, &[transport])
        .run(&both.lab, &both.bins, "b-again");
    let again = Node::start(&both.lab, &both.bins, &both.b.host, launch).await?;
    ensure!(again.id == both.b.id, "B came back as {}", again.id);
    both.b = again;
    reserved(&both.b.process).await?;

    // Over the relay, then direct.
    let back = |events: &[Event]| {
        let mut events = events.iter().skip(seen);
        events
            .find(|event| event.name() == "connected" && event.text("/peer") == both.b.id)
            .cloned()
    };
    let back = both.a.process.until("the way back", FOUND, back).await?;
    ensure!(back.path_kind() == "relayed", "{}", back.line);
    both.a.direct(&both.lab, &both.b.id, FOUND).await?;
    both.punched().await?;
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_peer_that_was_killed_is_dialed_over_the_relay_until_it_is_back_and_direct_over_quic()
-> Result<()> {
    killed("killed-quic", Transport::Quic).await
}

#[tokio::test]
async fn a_peer_that_was_killed_is_dialed_over_the_relay_until_it_is_back_and_direct_over_tcp()
-> Result<()> {
    killed("killed-tcp", Transport::Tcp).await
}
