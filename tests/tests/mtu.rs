//! Paths that drop large packets and send no ICMP messages about that.

use p2pnode_tests::prelude::*;

lab_tests! {
    tcp_goes_over_a_narrow_path_with_small_segments: direct(Transport::Tcp);
    quic_goes_over_a_narrow_path: direct(Transport::Quic);
    a_path_that_is_too_narrow_for_quic_is_the_finding_of_a_dial: too_narrow();
}

/// A packet of QUIC's handshake has 1,228 bytes at least.
async fn too_narrow() -> Result<()> {
    let pair = Pair::of_test(NatKind::EimApdf, NatKind::EimApdf).over(&[Transport::Quic]);
    let peers = pair.start().await?;
    peers.a.site.narrow(1000)?;
    let args = NodeArgs::new(&peers.relay, &peers.a.host, &[Transport::Quic]);
    let dial = args.dial_within("a", &peers.b_id, "6s")?;
    let dial = dial.on(&peers.a.host)?.ended().await?;
    let finding = &dial.is("unreachable")?.json["finding"];
    ensure!(finding["id"] == "mtu", "{finding}: {}", dial.log);
    Ok(())
}

async fn direct(transport: Transport) -> Result<()> {
    let pair = Pair::of_test(NatKind::EimApdf, NatKind::EimApdf).over(&[transport]);
    let mut peers = pair.start().await?;
    peers.a.site.narrow(1300)?;
    let dial = peers.dial().await?;
    dial.is("direct")?;
    let is_reported = dial.log.contains("mtu");
    ensure!(is_reported == (transport == Transport::Tcp), "{}", dial.log);
    let finding = &dial.result()?.json["finding"]["id"];
    ensure!(
        (finding == "mtu") == (transport == Transport::Tcp),
        "{finding}"
    );
    Ok(())
}
