//! How a peer goes: one that closes its path gracefully is left alone for a while, one that is lost is dialed until it is back.

use p2pnode_tests::prelude::*;

lab_tests! {
    a_dialed_peer_that_ends_closes_its_quic_path_and_is_not_dialed_at_once: ends(Transport::Quic, false);
    a_dialed_peer_that_ends_closes_its_tcp_path_and_is_not_dialed_at_once: ends(Transport::Tcp, false);
    a_dialing_peer_that_ends_closes_its_quic_path_and_is_not_dialed: ends(Transport::Quic, true);
    a_dialing_peer_that_ends_closes_its_tcp_path_and_is_not_dialed: ends(Transport::Tcp, true);
    a_peer_that_was_killed_is_dialed_until_it_is_back_and_direct_over_quic: killed(Transport::Quic);
    a_peer_that_was_killed_is_dialed_until_it_is_back_and_direct_over_tcp: killed(Transport::Tcp);
}

const REDIAL: &str = "dialing a lost peer";

async fn path_ended(node: &Node, seen: usize, peer: &str) -> Result<Event> {
    let ended = |event: &Event| event.disconnects(peer, "direct");
    node.process.first("the end of the path", seen, ended).await
}

async fn ends(transport: Transport, dialer_goes: bool) -> Result<()> {
    let mut both = Running::homes().over(&[transport]).direct().await?;
    let (gone, left) = match dialer_goes {
        true => (&mut both.a, &mut both.b),
        false => (&mut both.b, &mut both.a),
    };
    let seen = left.seen();
    gone.process.terminate()?;
    let status = gone.process.exit(PATIENCE).await?;
    ensure!(status.success(), "{status}");

    let ended = path_ended(left, seen, &gone.id).await?;
    // In the words of quinn and of yamux.
    let said = match transport {
        Transport::Quic => "closed by peer",
        Transport::Tcp => "connection is closed",
    };
    ensure!(ended.text("/reason").starts_with(said), "{}", ended.line);
    let status = left.control.status().await?;
    ensure!(control::peer(&status, &gone.id).is_null(), "{status}");
    // A node dials in the turn of its loop in which the peer is lost, and answers a status in a later one; what it has logged by then
    // is read when it has ended.
    left.process.terminate()?;
    left.process.exit(PATIENCE).await?;
    ensure!(
        !left.process.log().contains(REDIAL),
        "it is dialed again: {}",
        ended.line
    );
    Ok(())
}

/// B's node is killed, and started again with its key once A looks for it.
async fn killed(transport: Transport) -> Result<()> {
    let mut both = Running::homes().over(&[transport]).direct().await?;
    let seen = both.a.seen();
    both.b.process.kill().await?;
    path_ended(&both.a, seen, &both.b.id).await?;
    both.a.process.logged(REDIAL, PATIENCE).await?;

    both.b = both.relay.node("b", &both.b.host, &[transport]).await?;
    // Over the relay, then direct: the longest pause between two rounds of dials, and a punch that needs its second attempt.
    let back = |event: &Event| event.name() == "connected" && event.text("/peer") == both.b.id;
    let back = both.a.process.first("the way back", seen, back).await?;
    ensure!(back.path_kind() == "relayed", "{}", back.line);
    both.a.direct(&both.b.id, PATIENCE * 2).await?;
    both.punched().await
}
