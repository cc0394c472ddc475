//! The checks themselves: what they must refuse, they refuse.

use anyhow::{Result, ensure};
use p2pnode_tests::{
    args::{PATIENCE, Transport, strays},
    lab::Lab,
    nat::{NatKind, RANGE},
    pair::{Dial, Pair},
    probe,
};
use serde_json::json;

p2pnode_tests::lab_tests!();

#[tokio::test]
async fn one_packet_from_outside_the_range_is_noticed_also_where_a_firewall_stops_it() -> Result<()>
{
    for kind in [NatKind::EimApdfRewrite, NatKind::RangeFirewall] {
        let lab = Lab::new(&format!("stray-{kind}")).await?;
        let far = lab.public_host("far").await?;
        let site = lab.site("a", kind).await?;
        let host = lab.host("host-a", &site).await?;
        let capture = lab.capture(&site).await?;
        let good = probe::udp(&host, *RANGE.end()).await?;
        let bad = probe::udp(&host, RANGE.end() + 1).await?;
        for socket in [&good, &bad] {
            socket.send_to(&[0], (far.ip(false)?, 443)).await?;
        }
        capture.settle().await?;
        let strays = strays(&capture, &host, &RANGE);
        let port = format!(":{} >", RANGE.end() + 1);
        ensure!(
            strays.len() == 1 && strays[0].contains(&port),
            "{kind}: {strays:?}"
        );
        lab.succeeded();
    }
    Ok(())
}

#[tokio::test]
async fn a_report_that_disagrees_with_the_wire_is_refused() -> Result<()> {
    let mut peers = Pair::new("false-report", NatKind::EimApdfRewrite, NatKind::EimApdf)
        .transport(Transport::Quic)
        .start()
        .await?;
    let dial = peers.dial().await?;
    peers.verify_direct(&dial).await?;

    let lies = [
        ("/path/hops/0/local", json!("192.168.1.2:40099")),
        ("/path/hops/0/remote", json!("198.18.0.99:40000")),
        ("/path/hops/0/transport", json!("tcp")),
        ("/path/kind", json!("relayed")),
        ("/outcome", json!("relayed")),
    ];
    for (pointer, lie) in lies {
        let mut events = dial.events.clone();
        for event in events.iter_mut().filter(|event| event.name() == "result") {
            if let Some(value) = event.json.pointer_mut(pointer) {
                *value = lie.clone();
            }
        }
        let told = Dial {
            pings: dial.pings,
            code: dial.code,
            events,
        };
        ensure!(
            peers.verify_direct(&told).await.is_err(),
            "{pointer} = {lie} is believed"
        );
    }
    for (what, dropped) in [
        ("relayed connection", "relayed"),
        ("direct connection", "direct"),
    ] {
        let mut events = dial.events.clone();
        events.retain(|event| event.name() != "connected" || event.path_kind() != dropped);
        for event in &mut events {
            // An introduction needs no relayed connection, nor does a peer that comes in before its word.
            if event.name() == "connected"
                && let Some(how) = event.json.pointer_mut("/path/how")
            {
                *how = json!("punched");
            }
            if let Some(by) = event.json.pointer_mut("/by") {
                *by = json!("dcutr");
            }
        }
        let told = Dial {
            pings: dial.pings,
            code: dial.code,
            events,
        };
        ensure!(
            peers.verify_direct(&told).await.is_err(),
            "no {what} was announced, and that is believed"
        );
    }
    let told = Dial {
        pings: dial.pings,
        code: 3,
        events: dial.events,
    };
    ensure!(
        peers.verify_direct(&told).await.is_err(),
        "exit code 3 is believed to be direct"
    );
    peers.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_path_that_is_gone_3_s_after_the_punch_is_noticed() -> Result<()> {
    let peers = Pair::new("gone-too-early", NatKind::EimApdf, NatKind::EimApdf)
        .transport(Transport::Quic)
        .start()
        .await?;
    // A dial with one ping is over at once.
    let mut dial = peers.start_dial("a", 1)?;
    let direct = peers.became_direct(&dial).await?;
    dial.exit(PATIENCE).await?;
    ensure!(
        peers.verify_one_is_left(&dial, direct).await.is_err(),
        "a dial that has ended is believed to be connected"
    );
    peers.lab.succeeded();
    Ok(())
}
