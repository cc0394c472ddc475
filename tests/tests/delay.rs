//! The latency and loss that a lab is asked for are there.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    delay::Link,
    lab::{Host, Lab},
    nat::NatKind,
    probe,
};
use tokio::{net::UdpSocket, time::timeout};

p2pnode_tests::lab_tests!();

/// How long an answer is waited for. Only a lost one takes that long.
const PATIENCE: Duration = Duration::from_secs(2);
/// After which nothing more comes back of a batch: far longer than its round trip.
const QUIET: Duration = Duration::from_millis(200);

/// A socket that sends back what it gets, until the lab ends.
async fn echo(host: &Host, ip6: bool) -> Result<SocketAddr> {
    let local = SocketAddr::new(host.ip(ip6)?, 7);
    let socket = host
        .device
        .spawn(move |_| UdpSocket::bind(local))?
        .await?
        .with_context(|| format!("udp {local}"))?;
    tokio::spawn(async move {
        let mut byte = [0; 1];
        while let Ok((_, from)) = socket.recv_from(&mut byte).await {
            // A lost answer is what some of these tests are about.
            let _sent = socket.send_to(&byte, from).await;
        }
    });
    Ok(local)
}

/// The least of some round trips: the rest is the machine's.
async fn round_trip(socket: &UdpSocket, remote: SocketAddr) -> Result<Duration> {
    let mut least = None;
    for n in 0..5_u8 {
        let began = Instant::now();
        socket.send_to(&[n], remote).await?;
        let mut byte = [0; 1];
        timeout(PATIENCE, socket.recv(&mut byte))
            .await
            .with_context(|| format!("no answer from {remote}"))??;
        let took = began.elapsed();
        least = Some(least.map_or(took, |least: Duration| least.min(took)));
    }
    least.context("not measured")
}

#[tokio::test]
async fn a_round_trip_takes_what_was_asked_between_peers_and_to_the_relay_and_nothing_at_home()
-> Result<()> {
    let mut lab = Lab::new("delay-rtt").await?;
    let public = lab.public_host("public").await?;
    let a = lab.site("a", NatKind::EimApdf).await?;
    let b = lab.site("b", NatKind::None).await?;
    let (host_a, host_b) = (lab.host("host-a", &a).await?, lab.host("host-b", &b).await?);
    let neighbour = lab.host("neighbour", &b).await?;
    let remotes = [echo(&public, false).await?, echo(&host_b, false).await?];
    let from_a = probe::udp(&host_a, 40000).await?;
    let at_home = probe::udp(&neighbour, 40000).await?;

    for asked in [50, 20].map(Duration::from_millis) {
        lab.impair(Link::rtt(asked))?;
        for remote in remotes {
            let took = round_trip(&from_a, remote).await?;
            ensure!(took >= asked, "asked {asked:?}, took {took:?}");
        }
        let home = round_trip(&at_home, remotes[1]).await?;
        ensure!(home < asked / 2, "{home:?} between neighbours");
    }
    lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn ip6_is_slowed_as_ip4_is() -> Result<()> {
    let mut lab = Lab::new("delay-ip6").await?;
    let public = lab.public_host("public").await?;
    let site = lab.site("a", NatKind::Ip6Firewall).await?;
    let host = lab.host("host-a", &site).await?;
    let socket = probe::udp(&host, 40000).await?;
    let remote = echo(&public, true).await?;
    let asked = Duration::from_millis(30);
    lab.impair(Link::rtt(asked))?;
    let took = round_trip(&socket, remote).await?;
    ensure!(took >= asked, "asked {asked:?}, took {took:?}");
    lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn as_many_packets_are_lost_as_was_asked() -> Result<()> {
    const BATCHES: u8 = 10;
    const BATCH: usize = 50;
    const SENT: usize = BATCH * BATCHES as usize;
    let mut lab = Lab::new("delay-loss").await?;
    let public = lab.public_host("public").await?;
    let site = lab.site("a", NatKind::EimApdf).await?;
    let host = lab.host("host-a", &site).await?;
    let remote = echo(&public, false).await?;
    let socket = probe::udp(&host, 40000).await?;
    lab.impair(Link::rtt(Duration::from_millis(4)).loss(10.0))?;

    let mut came = 0;
    for batch in 0..BATCHES {
        for _ in 0..BATCH {
            socket.send_to(&[batch], remote).await?;
        }
        let mut byte = [0; 1];
        while timeout(QUIET, socket.recv(&mut byte)).await.is_ok() {
            came += 1;
        }
    }
    // 10 % each way leave 81 % of the answers, 405, give or take 9.
    ensure!((320..490).contains(&came), "{came} of {SENT} came back");
    lab.succeeded();
    Ok(())
}
