//! `mappings.mode`: a node has its punch ports mapped by a real router, miniupnpd, and leaves nothing behind.

use std::fs;

use p2pnode_tests::{prelude::*, probe, sandbox};

lab_tests! {
    pcp_opens_the_punch_ports_from_the_range_and_closes_them_at_the_end: maps("pcp", "Pcp");
    nat_pmp_opens_the_punch_ports_from_the_range_and_closes_them_at_the_end: maps("nat-pmp", "NatPmp");
    upnp_opens_the_punch_ports_from_the_range_and_closes_them_at_the_end: maps("upnp", "Upnp");
    of_everything_that_a_router_knows_auto_takes_pcp: maps("auto", "Pcp");
}

/// What miniupnpd adds its rules to. The site's own firewall lets in what they translate.
const CHAINS: &str = "
add rule inet lab forward ct status dnat accept
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

async fn router(lab: &Lab, peer: &Peer) -> Result<Process> {
    let router = peer.host.ip(false)?.to_string();
    let (network, _) = router.rsplit_once('.').context("an address of IPv4")?;
    let chains = lab.artifacts().file("chains.nft");
    // Before the rule that drops.
    fs::write(&chains, CHAINS.replace("add rule", "insert rule"))?;
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

async fn maps(mode: &str, method: &str) -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let stranger = lab.public_host("stranger").await?;
    let peer = Peer::new(&lab, "a", NatKind::EimApdf).await?;
    let _daemon = router(&lab, &peer).await?;
    let launch = relay
        .run("a", &peer.host, &Transport::ALL)?
        .env("P2PNODE_MAPPINGS_MODE", mode);
    let mut node = launch.reserves(&peer.host).await?;
    for protocol in ["UDP", "TCP"] {
        let mapped = |lines: &[Event]| {
            let says = |line: &&Event| {
                line.line.contains(protocol) && line.line.contains(&format!("method={method}"))
            };
            lines.iter().find(says).map(|_| ())
        };
        node.process
            .log_until(&format!("{protocol} mapped"), PATIENCE, mapped)
            .await?;
    }
    let status = node.control.status().await?;
    let port = status["punch_ports"]["tcp/ip4"]
        .as_u64()
        .context("a TCP punch port")?;
    let outside = peer.site.outside_ip4().context("an outside address")?;
    let mapped = (outside, u16::try_from(port)?).into();
    ensure!(
        probe::connects(&stranger, 7001, mapped).await?,
        "{mapped} is closed"
    );
    let rules = || {
        peer.site
            .shell("nft list chain inet miniupnpd prerouting_miniupnpd")
    };
    ensure!(rules()?.matches("dnat").count() == 2, "{}", rules()?);
    node.process.terminate()?;
    ensure!(node.process.exit(PATIENCE).await?.success());
    ensure!(
        rules()?.matches("dnat").count() == 0,
        "left behind: {}",
        rules()?
    );
    ensure!(
        !probe::connects(&stranger, 7002, mapped).await?,
        "{mapped} is open"
    );
    peer.settle().await?;
    peer.keeps_range().await
}
