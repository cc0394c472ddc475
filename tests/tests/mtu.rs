//! Paths that drop large packets and send no ICMP messages about that.

use p2pnode_tests::prelude::*;

lab_tests! {
    tcp_goes_over_a_narrow_path_with_small_segments: direct(Transport::Tcp);
    quic_goes_over_a_narrow_path: direct(Transport::Quic);
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
