//! Many peers at once.

use p2pnode_tests::prelude::*;
use tokio::task::JoinSet;

lab_tests! {
    fifty_peers_that_dial_one_node_at_once_all_end_direct: crowd();
}

const PEERS: u16 = 50;
const SITES: u16 = 5;

/// Fifty nodes, ten each behind five NATs, all dial one behind another at the same moment. They run before: what is tested is
/// the node that is called and the relay, not how many processes two processors can start in a second.
async fn crowd() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let (_site, host) = lab.home("b", NatKind::EimApdfRewrite).await?;
    let node = relay.node("b", &host, &[Transport::Quic]).await?;

    let mut sites = Vec::new();
    let mut crowd = Vec::new();
    for i in 0..SITES {
        let (site, host) = lab.home(&format!("a{i}"), NatKind::EimApdf).await?;
        for number in i * (PEERS / SITES)..(i + 1) * (PEERS / SITES) {
            let first = 41000 + 10 * number;
            let args = NodeArgs::new(&relay, &host, &[Transport::Quic]).range(first..=first + 9);
            let peer = args.run_on(&host, &format!("peer-{number}"))?;
            crowd.push(peer.reserves(&host).await?);
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
    node.until("fifty punched peers", PATIENCE, all_direct)
        .await
}
