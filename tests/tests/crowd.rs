//! Many peers at once.

use anyhow::{Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::bins,
    control,
    lab::Lab,
    nat::NatKind,
    relay::Relay,
    running::Node,
};

p2pnode_tests::lab_tests!();

const PEERS: u16 = 50;
const SITES: u16 = 5;

/// Fifty peers, ten each behind five NATs, all dial one node behind another at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_peers_that_dial_one_node_at_once_all_end_direct() -> Result<()> {
    let bins = bins()?;
    let lab = Lab::new("crowd").await?;
    let relay = Relay::start(&lab, &bins, "relay").await?;
    let site = lab.site("b", NatKind::EimApdfRewrite).await?;
    let host = lab.host("host-b", &site).await?;
    let launch = NodeArgs::new(&relay, &host, &[Transport::Quic]).run(&lab, &bins, "b");
    let node = Node::start(&lab, &bins, &host, launch).await?;
    reserved(&node.process).await?;

    let mut hosts = Vec::new();
    for i in 0..SITES {
        let site = lab.site(&format!("a{i}"), NatKind::EimApdf).await?;
        let host = lab.host(&format!("host-a{i}"), &site).await?;
        hosts.push((site, host));
    }
    let mut dials = Vec::new();
    for i in 0..PEERS {
        let (_, host) = &hosts[usize::from(i % SITES)];
        let first = 41000 + 10 * i;
        let args = NodeArgs::new(&relay, host, &[Transport::Quic]).range(first..=first + 9);
        let dial = args
            .dial(&bins, &format!("dial-{i}"), &node.id)
            // They stay until the last one is there.
            .args(["--count", "1000"]);
        dials.push(dial.start(&host.device, lab.artifacts())?);
    }
    for dial in &dials {
        let direct = dial.until("a direct ping", PATIENCE * 2, |events| {
            let ping = events.iter().find(|event| event.name() == "ping")?;
            Some(ping.text("/kind").to_owned())
        });
        let kind = direct.await?;
        ensure!(kind == "direct", "{} pings over a {kind} path", dial.name());
    }
    let status = node.control.status().await?;
    let peers = status["peers"].as_array().map_or(0, Vec::len);
    ensure!(peers == usize::from(PEERS), "{peers} peers are connected");
    for peer in status["peers"].as_array().into_iter().flatten() {
        let id = peer["peer"].as_str().unwrap_or_default();
        ensure!(
            !control::paths(&status, id, "direct").is_empty()
                && peer["last_punch"]["outcome"] == "direct",
            "{peer}"
        );
    }
    lab.succeeded();
    Ok(())
}
