//! Searches for a pair of ports, through NATs that map by destination.

use std::{
    net::{SocketAddr, TcpStream},
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{PATIENCE, Transport},
    carry::aging,
    delay::Link,
    events::Event,
    faults::Traffic,
    lab::Lab,
    nat::{NatKind, RANGE},
    relay::RELAY_PORT,
    running::Node,
    search::{Searched, Searching},
};

/// Ports enough that one series finds a random port in 99 of 100 searches.
const WIDE: RangeInclusive<u16> = 40000..=40255;

/// The age at which a NAT drops mappings.
const AGE: Duration = Duration::from_secs(6);

const QUIC: &[Transport] = &[Transport::Quic];

/// What a small router keeps, and how many new flows it takes in a second.
const LIMITS: &str = "nft -f - <<END
table inet small {
    chain forward {
        type filter hook forward priority -10; policy accept;
        ct state new ct count over 4096 counter drop
        ct state new limit rate over 1000/second burst 200 packets counter drop
    }
}
END";

p2pnode_tests::lab_tests! {
    threads: 2;
    symmetric_x_eim_apdf_is_direct: direct(NatKind::Symmetric, NatKind::EimApdf, WIDE, ["random", "stable"]);
    eim_apdf_x_symmetric_is_direct: direct(NatKind::EimApdf, NatKind::Symmetric, WIDE, ["stable", "random"]);
    block_x_eim_apdf_rewrite_is_direct: direct(NatKind::SymmetricBlock, NatKind::EimApdfRewrite, RANGE, ["block", "stable"]);
    sequential_x_eim_apdf_is_direct: direct(NatKind::SymmetricSequential, NatKind::EimApdf, RANGE, ["sequential", "stable"]);
    block_x_block_is_direct: block_x_block();
    random_x_random_is_not_tried: random_is_not_tried();
    tcp_alone_is_not_searched: tcp_is_not_searched();
    both_sides_at_once_make_one_search: at_once();
    a_search_ends_with_its_relay_and_with_its_node: ends();
    a_search_ends_with_another_path: another_path();
    a_small_router_serves_other_hosts_during_a_search: small_router();
    a_path_leaves_a_mapping_before_it_dies_of_age: moves();
}

async fn direct(
    a: NatKind,
    b: NatKind,
    range: RangeInclusive<u16>,
    classes: [&str; 2],
) -> Result<()> {
    let lab = Lab::of_test().await?;
    is_found(Searched::start(&lab, a, b, range).await?, classes).await
}

async fn block_x_block() -> Result<()> {
    let lab = Lab::of_test().await?;
    is_found(Searched::in_small_blocks(&lab, RANGE).await?, ["block"; 2]).await
}

async fn is_found(peers: Searching, classes: [&str; 2]) -> Result<()> {
    let searched = peers.dial("a").await?;
    let dial = &searched.result;
    dial.is("direct")?;
    let search = dial.all("search").last().context("no search")?;
    let [here, there] = classes;
    ensure!(
        search.text("/class/here") == here && search.text("/class/there") == there,
        "{}",
        search.line
    );
    ensure!(search.text("/outcome") == "found", "{}", search.line);
    searched.verify_direct().await?;
    searched.peers.verify_packets().await
}

async fn random_is_not_tried() -> Result<()> {
    let lab = Lab::of_test().await?;
    let searched = Searched::start(&lab, NatKind::Symmetric, NatKind::Symmetric, RANGE).await?;
    let searched = searched.dial("a").await?;
    let dial = &searched.result;
    dial.is("relayed")?;
    let search = dial.all("search").last().context("no search")?;
    ensure!(
        search.text("/outcome") == "not_tried" && search.text("/reason") == "random_both",
        "{}",
        search.line
    );
    let probes = searched.peers.probes().await?;
    ensure!(probes == [0, 0], "{probes:?} probes");
    Ok(())
}

async fn tcp_is_not_searched() -> Result<()> {
    let lab = Lab::of_test().await?;
    let (a, b) = (NatKind::SymmetricBlock, NatKind::EimApdf);
    let searched = Searched::over(&lab, a, b, RANGE, &[Transport::Tcp]).await?;
    let searched = searched.dial("a").await?;
    searched.result.is("relayed")?;
    ensure!(searched.result.all("search").next().is_none());
    Ok(())
}

/// Both dial, and each has the other's answer.
async fn at_once() -> Result<()> {
    let lab = Lab::of_test().await?;
    let (a, b) = (NatKind::SymmetricBlock, NatKind::EimApdf);
    let peers = Searched::start(&lab, a, b, RANGE).await?;
    let a = peers.a_runs("a").await?;
    let ways = [(&a, &peers.b_node), (&peers.b_node, &a)];
    let dials = ways.map(|(from, to)| from.start_dial(&format!("dial-{}", to.id), &to.id));
    for (dial, (from, to)) in dials.into_iter().zip(ways) {
        dial?.ended().await?.is("direct")?;
        let events = from.process.events();
        let searches = events.iter().filter(|event| event.name() == "search");
        let found = searches.filter(|event| event.text("/outcome") == "found");
        ensure!(found.count() == 1, "{} has searched for {}", from.id, to.id);
    }
    peers.verify_packets().await
}

/// Two peers whose packets do not arrive, so that a search lasts.
async fn apart(lab: &Lab, a: NatKind, b: NatKind, over: &[Transport]) -> Result<Searching> {
    let peers = Searched::over(lab, a, b, RANGE, over).await?;
    let a = peers.a.site.outside_ip4().context("no address outside")?;
    peers.b.site.cut(&[Traffic::Udp(a)])?;
    Ok(peers)
}

async fn ends() -> Result<()> {
    let lab = Lab::of_test().await?;
    let mut peers = apart(&lab, NatKind::Symmetric, NatKind::EimApdf, QUIC).await?;
    let mut a = peers.a_runs("a").await?;
    let _dial = a.start_dial("dial", &peers.b_node.id)?;
    peers.a_sends().await?;
    a.process.terminate()?;
    ensure!(a.process.exit(PATIENCE).await?.success());
    is_needless(&peers.b_node, 0).await?;

    // With another key, so that nobody rests.
    let seen = peers.b_node.seen();
    let again = peers.a_runs("again").await?;
    let _dial = again.start_dial("dial-again", &peers.b_node.id)?;
    let sent = peers.probes().await?[0];
    while peers.probes().await?[0] == sent {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    peers.relay.process.kill().await?;
    is_needless(&again, 0).await?;
    is_needless(&peers.b_node, seen).await
}

/// Its search ends because its path is gone.
async fn is_needless(node: &Node, skip: usize) -> Result<()> {
    let is_over = |event: &Event| event.name() == "search";
    let over = node
        .process
        .first("the end of the search", skip, is_over)
        .await?;
    ensure!(over.text("/outcome") == "needless", "{}", over.line);
    Ok(())
}

/// While UDP does not arrive, B's router begins to forward TCP.
async fn another_path() -> Result<()> {
    let lab = Lab::of_test().await?;
    let (a, b) = (NatKind::Symmetric, NatKind::EimApdf);
    let peers = apart(&lab, a, b, &Transport::ALL).await?;
    let a = peers.a_runs("a").await?;
    let _dial = a.start_dial("dial", &peers.b_node.id)?;
    peers.a_sends().await?;
    let (inside, outside) = (peers.b.host.ip(false)?, peers.b.site.outside_ip4());
    let outside = outside.context("no address outside")?;
    peers.b.site.shell(&format!(
        "nft -f - <<END
table ip forwarded {{
    chain prerouting {{
        type nat hook prerouting priority -110; policy accept;
        ip daddr {outside} tcp dport 40000-40050 dnat to {inside}
    }}
}}
insert rule inet lab forward ct status dnat accept
END"
    ))?;
    let port = peers.b_node.control.status().await?["punch_ports"]["tcp/ip4"].clone();
    let address = format!("/ip4/{outside}/tcp/{port}/p2p/{}", peers.b_node.id);
    a.dial("by-tcp", &address).await?.is("direct")?;
    is_needless(&a, 0).await?;
    is_needless(&peers.b_node, 0).await?;
    peers.verify_packets().await
}

async fn small_router() -> Result<()> {
    let lab = Lab::of_test().await?;
    let kind = NatKind::SymmetricBlock;
    let peers = apart(&lab, kind, kind, QUIC).await?;
    peers.a.site.shell(LIMITS)?;
    let other = lab.host("other", &peers.a.site).await?;
    let a = peers.a_runs("a").await?;
    let _dial = a.start_dial("dial", &peers.b_node.id)?;
    peers.a_sends().await?;
    let relay = SocketAddr::new(peers.relay.host.ip(false)?, RELAY_PORT);
    let mut flows = Vec::new();
    while a
        .process
        .events()
        .iter()
        .all(|event| event.name() != "search")
    {
        let opened = other.device.run_sync(move || {
            Ok(TcpStream::connect_timeout(&relay, Duration::from_secs(1)).is_ok())
        })?;
        flows.push(opened);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let dropped = peers.a.site.shell("nft list chain inet small forward")?;
    ensure!(
        flows.len() > 20 && flows.iter().all(|opened| *opened),
        "{flows:?}: {dropped}"
    );
    ensure!(
        dropped.matches("packets 0 bytes 0").count() == 2,
        "{dropped}"
    );
    Ok(())
}

async fn moves() -> Result<()> {
    // By the third move, the mappings of the first two ports are dead.
    let aged = aging(
        Lab::of_test().await?,
        Link::default(),
        AGE,
        PATIENCE,
        3,
        true,
    )
    .await?;
    ensure!(aged.moves.len() == 3 && aged.losses == 0, "{aged:?}");
    Ok(())
}
