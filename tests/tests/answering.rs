//! Routers that take an early punch to their own stack, or that reject it, instead of dropping it.

use std::time::Duration;

use p2pnode_tests::{delay::Link, prelude::*};

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
}

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
