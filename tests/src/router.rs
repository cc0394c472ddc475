//! A site's router with miniupnpd: PCP, NAT-PMP and UPnP.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{
    args::PATIENCE,
    events::Event,
    lab::Lab,
    node::{Launch, Process},
    peer::Peer,
    running::Node,
    sandbox,
};

/// What miniupnpd adds its rules to. The site's own firewall lets in what they translate.
const ACCEPT: &str = "insert rule inet lab forward ct status dnat accept\n";
const CHAINS: &str = "
table inet miniupnpd {
    chain forward { type filter hook forward priority 1; policy accept; jump miniupnpd; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority dstnat; policy accept; jump prerouting_miniupnpd; }
    chain prerouting_miniupnpd { }
    chain postrouting { type nat hook postrouting priority srcnat - 1; policy accept; jump postrouting_miniupnpd; }
    chain postrouting_miniupnpd { }
}
";

/// It maps nothing from an address that is not public, and none of the lab is: it is given another one to name.
const CONFIG: &str = "
ext_ifname=ix
ext_ip=11.0.0.1
enable_natpmp=yes
enable_upnp=yes
min_lifetime=120
max_lifetime=86400
secure_mode=yes
http_port=5000
upnp_table_name=miniupnpd
upnp_nat_table_name=miniupnpd
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 0.0.0.0/0 1024-65535
";

pub async fn router(lab: &Lab, peer: &Peer) -> Result<Process> {
    // Before the rule that drops.
    let accept = lab.artifacts().file("accept.nft");
    fs::write(&accept, ACCEPT)?;
    peer.site.shell(&format!("nft -f {}", accept.display()))?;
    liar(lab, peer).await
}

/// The same without a way through the firewall for what it grants.
pub async fn liar(lab: &Lab, peer: &Peer) -> Result<Process> {
    let router = peer.host.ip(false)?.to_string();
    let (network, _) = router.rsplit_once('.').context("an address of IPv4")?;
    let chains = lab.artifacts().file("chains.nft");
    fs::write(&chains, CHAINS)?;
    peer.site.shell(&format!("nft -f {}", chains.display()))?;
    let config = lab.artifacts().file("miniupnpd.conf");
    fs::write(&config, format!("{CONFIG}listening_ip={network}.1/24\n"))?;
    let launch = Launch::new("miniupnpd", sandbox::tool("miniupnpd"))
        .args(["-d", "-f"])
        .arg(&config);
    let pid = lab.artifacts().file("miniupnpd.pid");
    let daemon = launch
        .arg("-P")
        .arg(pid)
        .on_router(&peer.site, lab.artifacts())?;
    daemon.logged("Listening for NAT-PMP", PATIENCE).await?;
    Ok(daemon)
}

/// How many mappings the router has.
pub fn granted(peer: &Peer) -> Result<usize> {
    let chain = "nft list chain inet miniupnpd prerouting_miniupnpd";
    Ok(peer.site.shell(chain)?.matches("dnat").count())
}

/// Waits until the router has so many. It takes one away for a moment to renew it.
pub async fn until_granted(peer: &Peer, wanted: usize) -> Result<()> {
    let reached = async {
        while granted(peer)? != wanted {
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    let reached = timeout(PATIENCE, reached).await;
    reached.with_context(|| format!("the router has not {wanted} mappings"))?
}

pub fn mappings(status: &Value) -> impl Iterator<Item = &Value> {
    status["mappings"].as_array().into_iter().flatten()
}

/// Waits for a change of a mapping after the first `skip` events.
pub async fn mapping(
    node: &Node,
    skip: usize,
    protocol: &str,
    state: &str,
    within: Duration,
) -> Result<Event> {
    let is_it = |event: &&Event| {
        event.name() == "mapping"
            && event.text("/protocol") == protocol
            && event.text("/state") == state
    };
    let look = |events: &[Event]| events.iter().skip(skip).find(is_it).cloned();
    let what = format!("{protocol} {state}");
    node.process.until(&what, within, look).await
}
