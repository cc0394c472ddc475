//! Relays that are none, relays that are silent, peers that are not there: exit codes and one-line errors.

use p2pnode_tests::{capture::Capture, holder::hold, node::printed, prelude::*, relay::RELAY_PORT};

lab_tests! {
    a_quic_relay_that_is_none_is_named: no_relay(Transport::Quic);
    a_tcp_relay_that_is_none_is_named: no_relay(Transport::Tcp);
    a_quic_relay_that_answers_nothing_is_named: silent(Transport::Quic);
    a_tcp_relay_that_answers_nothing_is_named: silent(Transport::Tcp);
    a_peer_without_a_reservation_is_named_with_the_relay: no_reservation();
}

struct Faulty {
    host: Host,
    remote: Host,
    nobody: String,
    capture: Capture,
    lab: Lab,
    _site: Site,
}

impl Faulty {
    async fn new() -> Result<Self> {
        let lab = Lab::of_test().await?;
        let (site, host) = lab.home("a", NatKind::EimApdf).await?;
        let key = lab.artifacts().file("nobody.key");
        let key = key.to_str().context("path of the artifacts")?;
        Ok(Self {
            nobody: printed(&host, &bins()?.p2pnode, &["id", "--key", key]).await?,
            host,
            remote: lab.public_host("remote").await?,
            capture: lab.capture(&site).await?,
            lab,
            _site: site,
        })
    }

    /// Dials `peer` through `relay`, which must fail with one line that holds all of `words`, and without a packet from
    /// outside the range.
    async fn fails(
        &self,
        peer: &str,
        relay: String,
        transport: Transport,
        words: &[&str],
    ) -> Result<()> {
        let args = NodeArgs::with_relays(vec![relay], &[transport]);
        let dial = args.dial("dial", peer)?.on(&self.host)?.ended().await?;
        ensure!(!dial.log.contains("panicked"), "{}", dial.log);
        let reason = dial.is("unreachable")?.text("/reason");
        ensure!(reason.lines().count() == 1, "not one line: {reason:?}");
        for word in words {
            ensure!(reason.contains(word), "{word:?} is not named: {reason}");
        }
        self.capture.keeps(&self.host, &RANGE).await
    }
}

async fn no_relay(transport: Transport) -> Result<()> {
    let faulty = Faulty::new().await?;
    let node =
        NodeArgs::with_relays(Vec::new(), &[transport]).run_on(&faulty.remote, "no-relay")?;
    let node = node.args(["--listen", &transport.addr("0.0.0.0", RELAY_PORT)]);
    let node = node.runs(&faulty.remote).await?;
    node.process.event("listening", PATIENCE).await?;
    let address = transport.addr(faulty.remote.ip(false)?, RELAY_PORT);
    let relay = format!("{address}/p2p/{}", node.id);
    let words = [node.id.as_str(), "not a relay"];
    faulty.fails(&faulty.nobody, relay, transport, &words).await
}

/// The port is bound and nobody reads: QUIC packets vanish; TCP connects and then receives nothing.
async fn silent(transport: Transport) -> Result<()> {
    const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
    let faulty = Faulty::new().await?;
    let _silent = hold(&faulty.remote, RELAY_PORT..=RELAY_PORT)?;
    let address = transport.addr(faulty.remote.ip(false)?, RELAY_PORT);
    let relay = format!("{address}/p2p/{}", faulty.nobody);
    faulty
        .fails(PEER, relay, transport, &[&faulty.nobody, "relay"])
        .await
}

async fn no_reservation() -> Result<()> {
    let faulty = Faulty::new().await?;
    let relay = Relay::start(&faulty.lab, "relay").await?;
    let address = relay.address(&faulty.host, Transport::Quic)?;
    let words = [&faulty.nobody, relay.id.as_str(), "no reservation"];
    faulty
        .fails(&faulty.nobody, address, Transport::Quic, &words)
        .await
}
