//! Relays that are none, relays that are silent, peers that are not there: exit codes and one-line errors.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, strays},
    bins::{Bins, bins},
    holder::hold,
    lab::{Host, Lab},
    nat::{NatKind, RANGE},
    node::output,
    relay::Relay,
};

p2pnode_tests::lab_tests!();

struct Faulty {
    bins: Bins,
    host: Host,
    remote: Host,
    capture: p2pnode_tests::capture::Capture,
    lab: Lab,
}

impl Faulty {
    async fn new(name: &str) -> Result<Self> {
        let lab = Lab::new(name).await?;
        let site = lab.site("a", NatKind::EimApdf).await?;
        Ok(Self {
            bins: bins()?,
            host: lab.host("host-a", &site).await?,
            remote: lab.public_host("remote").await?,
            capture: lab.capture(&site).await?,
            lab,
        })
    }

    /// A peer id that nobody has.
    async fn nobody(&self, name: &str) -> Result<String> {
        let key = self.lab.artifacts().file(&format!("{name}.key"));
        let key = key.to_str().context("path of the artifacts")?;
        let id = output(
            &self.host.device,
            &self.bins.p2pnode,
            &["id", "--key", key],
            Duration::from_secs(10),
        )
        .await?;
        Ok(String::from_utf8(id.stdout)?.trim().to_owned())
    }

    /// Dials `peer` through `relay`, which must fail with one line that holds all of `words`, and without a packet from
    /// outside the range.
    async fn dial(
        self,
        peer: &str,
        relay: String,
        transport: Transport,
        words: &[&str],
    ) -> Result<()> {
        let args = NodeArgs {
            relays: vec![relay],
            transports: vec![transport],
            range: RANGE,
        };
        let mut dial = args
            .dial(&self.bins, "dial", peer)
            .start(&self.host.device, self.lab.artifacts())?;
        let status = dial.exit(PATIENCE).await?;
        let log = dial.log();
        ensure!(status.code() == Some(4), "{status}: {log}");
        ensure!(!log.contains("panicked"), "{log}");
        let outcome = dial.event("result", PATIENCE).await?;
        ensure!(
            outcome.text("/outcome") == "unreachable",
            "{}",
            outcome.json
        );
        let reason = outcome.text("/reason");
        ensure!(
            reason.lines().count() == 1,
            "the reason is not one line: {reason:?}"
        );
        for word in words {
            ensure!(
                reason.contains(word),
                "the reason does not name {word:?}: {reason}"
            );
        }
        self.capture.settle().await?;
        let strays = strays(&self.capture, &self.host, &RANGE);
        ensure!(
            strays.is_empty(),
            "packets from outside the range: {strays:?}"
        );
        self.lab.succeeded();
        Ok(())
    }
}

async fn no_relay(name: &str, transport: Transport) -> Result<()> {
    let faulty = Faulty::new(name).await?;
    let nobody = faulty.nobody("nobody").await?;
    let listen = match transport {
        Transport::Quic => "/ip4/0.0.0.0/udp/443/quic-v1",
        Transport::Tcp => "/ip4/0.0.0.0/tcp/443",
    };
    let args = NodeArgs {
        relays: Vec::new(),
        transports: vec![transport],
        range: RANGE,
    };
    let node = args
        .run(&faulty.lab, &faulty.bins, "no-relay")
        .args(["--listen", listen]);
    let node = node.start(&faulty.remote.device, faulty.lab.artifacts())?;
    let id = node
        .event("started", PATIENCE)
        .await?
        .text("/peer_id")
        .to_owned();
    node.event("listening", PATIENCE).await?;
    let relay = format!(
        "{}/p2p/{id}",
        listen.replace("0.0.0.0", &faulty.remote.ip(false)?.to_string())
    );
    faulty
        .dial(&nobody, relay, transport, &[&id, "not a relay"])
        .await
}

#[tokio::test]
async fn a_quic_relay_that_is_none_is_named() -> Result<()> {
    no_relay("no-relay-quic", Transport::Quic).await
}

#[tokio::test]
async fn a_tcp_relay_that_is_none_is_named() -> Result<()> {
    no_relay("no-relay-tcp", Transport::Tcp).await
}

/// The port is bound and nobody reads: QUIC packets vanish; TCP connects and then hears nothing.
async fn silent(name: &str, transport: Transport) -> Result<()> {
    let faulty = Faulty::new(name).await?;
    let nobody = faulty.nobody("nobody").await?;
    let _silent = hold(&faulty.remote, 443..=443)?;
    let suffix = match transport {
        Transport::Quic => "udp/443/quic-v1",
        Transport::Tcp => "tcp/443",
    };
    let relay = format!("/ip4/{}/{suffix}/p2p/{nobody}", faulty.remote.ip(false)?);
    let peer = faulty.nobody("peer").await?;
    faulty
        .dial(&peer, relay, transport, &[&nobody, "relay"])
        .await
}

#[tokio::test]
async fn a_quic_relay_that_answers_nothing_is_named() -> Result<()> {
    silent("silent-relay-quic", Transport::Quic).await
}

#[tokio::test]
async fn a_tcp_relay_that_answers_nothing_is_named() -> Result<()> {
    silent("silent-relay-tcp", Transport::Tcp).await
}

#[tokio::test]
async fn a_peer_without_a_reservation_is_named_with_the_relay() -> Result<()> {
    let faulty = Faulty::new("no-reservation").await?;
    let relay = Relay::start(&faulty.lab, &faulty.bins, "relay").await?;
    let nobody = faulty.nobody("nobody").await?;
    let address = relay.addresses(&faulty.host, &[Transport::Quic]).remove(0);
    faulty
        .dial(
            &nobody,
            address,
            Transport::Quic,
            &[&nobody, &relay.id, "no reservation"],
        )
        .await
}
