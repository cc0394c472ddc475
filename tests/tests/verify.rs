//! The checks themselves: what they must refuse, they refuse.

use p2pnode_tests::{prelude::*, probe};

lab_tests! {
    one_packet_from_outside_the_range_is_noticed: stray(NatKind::EimApdfRewrite);
    one_packet_from_outside_the_range_is_noticed_also_where_a_firewall_stops_it: stray(NatKind::RangeFirewall);
    a_report_that_disagrees_with_the_wire_is_refused: false_report();
    a_relayed_path_for_another_reason_is_refused: false_reason();
    a_path_that_is_gone_3_s_after_the_punch_is_noticed: gone();
}

async fn stray(kind: NatKind) -> Result<()> {
    let lab = Lab::of_test().await?;
    let far = lab.public_host("far").await?;
    let side = Peer::new(&lab, "a", kind).await?;
    for port in [*RANGE.end(), RANGE.end() + 1] {
        let socket = probe::udp(&side.host, port).await?;
        socket.send_to(&[0], (far.ip(false)?, 443)).await?;
    }
    ensure!(side.keeps_range().await.is_err(), "it is not noticed");
    let strays = side.home.strays(&side.host, &RANGE);
    let port = format!(":{} >", RANGE.end() + 1);
    ensure!(strays.len() == 1 && strays[0].contains(&port), "{strays:?}");
    Ok(())
}

async fn false_report() -> Result<()> {
    let pair = Pair::of_test(NatKind::EimApdfRewrite, NatKind::EimApdf);
    let mut peers = pair.over(&[Transport::Quic]).start().await?;
    let dial = peers.dial().await?;
    let pings = dial.all("ping").count();
    peers.verify_direct(&dial, pings).await?;

    for (pointer, lie) in [
        ("/path/hops/0/local", json!("192.168.1.2:40099")),
        ("/path/hops/0/remote", json!("198.18.0.99:40000")),
        ("/path/hops/0/transport", json!("tcp")),
        ("/path/kind", json!("relayed")),
        ("/outcome", json!("relayed")),
    ] {
        let mut told = dial.clone();
        let results = told
            .events
            .iter_mut()
            .filter(|event| event.name() == "result");
        for value in results.filter_map(|event| event.json.pointer_mut(pointer)) {
            *value = lie.clone();
        }
        let believed = peers.verify_direct(&told, pings).await.is_ok();
        ensure!(!believed, "{pointer} = {lie} is believed");
    }
    for dropped in ["relayed", "direct"] {
        let mut told = dial.clone();
        told.events
            .retain(|event| event.name() != "connected" || event.path_kind() != dropped);
        for event in &mut told.events {
            // An introduction needs no relayed connection, nor does a peer that comes in before its word.
            let is_connected = event.name() == "connected";
            if let Some(how) = event.json.pointer_mut("/path/how").filter(|_| is_connected) {
                *how = json!("punched");
            }
            if let Some(by) = event.json.pointer_mut("/by") {
                *by = json!("dcutr");
            }
        }
        let believed = peers.verify_direct(&told, pings).await.is_ok();
        ensure!(
            !believed,
            "no {dropped} connection was announced, and that is believed"
        );
    }
    let told = Dial { code: 3, ..dial };
    let believed = peers.verify_direct(&told, pings).await.is_ok();
    ensure!(!believed, "exit code 3 is believed to be direct");
    Ok(())
}

async fn false_reason() -> Result<()> {
    let pair = Pair::of_test(NatKind::Ip6Firewall, NatKind::EimApdf).over(&[Transport::Quic]);
    let mut peers = pair.start().await?;
    let dial = peers.dial().await?;
    ensure!(
        peers.verify_direct(&dial, 3).await.is_err(),
        "it is believed to be direct"
    );
    let believed = peers.verify_relayed(&dial, "timeout").await.is_ok();
    ensure!(!believed, "another reason is believed");
    Ok(())
}

async fn gone() -> Result<()> {
    let pair = Pair::of_test(NatKind::EimApdf, NatKind::EimApdf).over(&[Transport::Quic]);
    let peers = pair.start().await?;
    // A dial with one ping is over at once.
    let mut dial = peers.start_dial("a", 1)?;
    let direct = peers.became_direct(&dial).await?;
    dial.exit(PATIENCE).await?;
    let believed = peers.verify_one_is_left(&dial, direct).await.is_ok();
    ensure!(
        !believed,
        "a dial that has ended is believed to be connected"
    );
    Ok(())
}
