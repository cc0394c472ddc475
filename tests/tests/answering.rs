//! Routers that take an early punch to their own stack, or that reject it, instead of dropping it.

use std::time::Duration;

use p2pnode_tests::{delay::Link, prelude::*, search::Searched};

lab_tests! {
    threads: 2;
    tcp_gets_through_to_a_router_that_accepts:
        direct(NatKind::EimApdf, NatKind::Accepts, Transport::Tcp, None);
    tcp_gets_through_from_behind_a_router_that_accepts:
        direct(NatKind::Accepts, NatKind::EimApdf, Transport::Tcp, None);
    tcp_gets_through_two_routers_that_accept:
        direct(NatKind::Accepts, NatKind::Accepts, Transport::Tcp, Some(20));
    quic_gets_through_two_routers_that_reject:
        direct(NatKind::Rejects, NatKind::Rejects, Transport::Quic, None);
    quic_gets_through_to_a_router_that_accepts: searched(NatKind::EimApdf, NatKind::Accepts);
    quic_gets_through_from_behind_a_router_that_accepts: searched(NatKind::Accepts, NatKind::EimApdf);
    quic_gets_through_two_routers_that_accept: searched(NatKind::Accepts, NatKind::Accepts);
}

/// What two fresh sockets of each side send at most: 16 probes, their answers and choices.
const PROBES: usize = 40;

/// `rtt` is in milliseconds. Without latency, packets of both sides cross only if they leave within a tenth of a millisecond.
async fn direct(a: NatKind, b: NatKind, transport: Transport, rtt: Option<u64>) -> Result<()> {
    let mut peers = Pair::of_test(a, b).over(&[transport]).start().await?;
    if let Some(rtt) = rtt {
        peers.lab.impair(Link::rtt(Duration::from_millis(rtt)))?;
    }
    let dial = peers.dial().await?;
    dial.is("direct")?;
    peers.a.keeps_range().await?;
    peers.b.keeps_range().await
}

/// Over QUIC an early packet takes the mapping of the punch socket. Fresh sockets get through, whose first packets end on the way.
async fn searched(a: NatKind, b: NatKind) -> Result<()> {
    let lab = Lab::of_test().await?;
    let peers = Searched::start(&lab, a, b, RANGE).await?;
    let searched = peers.dial("a").await?;
    let failed = searched.result.all("search");
    let failed: Vec<_> = failed
        .filter(|search| search.text("/outcome") != "found")
        .collect();
    ensure!(failed.is_empty(), "{failed:?}");
    searched.verify_direct().await?;
    let probes = searched.peers.probes().await?;
    ensure!(probes.iter().all(|sent| *sent <= PROBES), "{probes:?}");
    Ok(())
}
