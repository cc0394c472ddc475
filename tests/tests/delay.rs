//! The latency and loss that a lab is asked for are there.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use p2pnode_tests::{delay::Link, prelude::*, probe};
use tokio::{net::UdpSocket, time::timeout};

lab_tests! {
    a_round_trip_takes_what_was_asked_between_peers_and_to_the_relay_and_nothing_at_home: round_trips();
    as_many_packets_are_lost_as_was_asked: loss();
}

/// After which nothing more comes back of a batch: far longer than its round trip.
const QUIET: Duration = Duration::from_millis(200);

async fn echo(host: &Host, ip6: bool) -> Result<SocketAddr> {
    let local = SocketAddr::new(host.ip(ip6)?, 7);
    let socket = host
        .device
        .spawn(move |_| UdpSocket::bind(local))?
        .await??;
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
    let mut least = Duration::MAX;
    for n in 0..5_u8 {
        let began = Instant::now();
        socket.send_to(&[n], remote).await?;
        let answer = timeout(PATIENCE, socket.recv(&mut [0; 1])).await;
        answer.with_context(|| format!("no answer from {remote}"))??;
        least = least.min(began.elapsed());
    }
    Ok(least)
}

async fn round_trips() -> Result<()> {
    let mut lab = Lab::of_test().await?;
    let public = lab.public_host("public").await?;
    let (_a, host_a) = lab.home("a", NatKind::EimApdf).await?;
    let (b, host_b) = lab.home("b", NatKind::None).await?;
    let (_ip6, host_ip6) = lab.home("ip6", NatKind::Ip6Firewall).await?;
    let neighbour = lab.host("neighbour", &b).await?;
    let remotes = [echo(&public, false).await?, echo(&host_b, false).await?];
    let remote_ip6 = echo(&public, true).await?;
    let from_a = probe::udp(&host_a, 40000).await?;
    let from_ip6 = probe::udp(&host_ip6, 40000).await?;
    let at_home = probe::udp(&neighbour, 40000).await?;
    for asked in [50, 20].map(Duration::from_millis) {
        lab.impair(Link::rtt(asked))?;
        for (from, to) in [
            (&from_a, remotes[0]),
            (&from_a, remotes[1]),
            (&from_ip6, remote_ip6),
        ] {
            let took = round_trip(from, to).await?;
            ensure!(took >= asked, "asked {asked:?}, took {took:?} to {to}");
        }
        let home = round_trip(&at_home, remotes[1]).await?;
        ensure!(home < asked / 2, "{home:?} between neighbours");
    }
    Ok(())
}

async fn loss() -> Result<()> {
    const BATCHES: u8 = 10;
    const BATCH: usize = 50;
    let mut lab = Lab::of_test().await?;
    let public = lab.public_host("public").await?;
    let (_site, host) = lab.home("a", NatKind::EimApdf).await?;
    let remote = echo(&public, false).await?;
    let socket = probe::udp(&host, 40000).await?;
    lab.impair(Link::rtt(Duration::from_millis(4)).loss(10.0))?;
    let mut came = 0;
    for batch in 0..BATCHES {
        for _ in 0..BATCH {
            socket.send_to(&[batch], remote).await?;
        }
        while timeout(QUIET, socket.recv(&mut [0; 1])).await.is_ok() {
            came += 1;
        }
    }
    // 10 % each way leave 81 % of the 500 answers, 405, give or take 9.
    ensure!((320..490).contains(&came), "{came} of 500 came back");
    Ok(())
}
