//! Many peers at once.

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::{Bins, bins},
    control,
    lab::{Host, Lab},
    nat::NatKind,
    relay::Relay,
    running::Node,
};
use serde_json::Value;
use tokio::task::JoinSet;

p2pnode_tests::lab_tests!();

const PEERS: u16 = 50;
const SITES: u16 = 5;

async fn start(lab: &Lab, bins: &Bins, relay: &Relay, host: &Host, i: u16) -> Result<Node> {
    let first = 41000 + 10 * i;
    let args = NodeArgs::new(relay, host, &[Transport::Quic]).range(first..=first + 9);
    let launch = args.run(lab, bins, &format!("peer-{i}"));
    let node = Node::start(lab, bins, host, launch).await?;
    reserved(&node.process).await?;
    Ok(node)
}

/// Fifty nodes, ten each behind five NATs, all dial one behind another at the same moment. They run before: what is tested is
/// the node that is called and the relay, not how many processes two processors can start in a second.
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

    let mut sites = Vec::new();
    let mut crowd = Vec::new();
    for i in 0..SITES {
        let site = lab.site(&format!("a{i}"), NatKind::EimApdf).await?;
        let host = lab.host(&format!("host-a{i}"), &site).await?;
        for j in 0..PEERS / SITES {
            let number = i * (PEERS / SITES) + j;
            crowd.push(start(&lab, &bins, &relay, &host, number).await?);
        }
        sites.push(site);
    }
    let mut dials = JoinSet::new();
    for peer in &crowd {
        let (control, id) = (peer.control.clone(), node.id.clone());
        let name = peer.process.name().to_owned();
        dials.spawn(async move { control.dial_at_once(&id).await.context(name) });
    }
    while let Some(result) = dials.join_next().await {
        let result = result??;
        ensure!(result["outcome"] == "direct", "{result}");
    }
    let all_direct = |status: &Value| {
        let peers = status["peers"].as_array()?;
        let direct = |peer: &Value| {
            let id = peer["peer"].as_str().unwrap_or_default();
            control::paths(status, id, "direct").len() == 1
                && control::paths(status, id, "relayed").is_empty()
                && peer["last_punch"]["outcome"] == "direct"
        };
        (peers.len() == usize::from(PEERS) && peers.iter().all(direct)).then_some(())
    };
    node.until(&lab, "fifty punched peers", PATIENCE, all_direct)
        .await?;
    lab.succeeded();
    Ok(())
}
