//! A relay goes and comes back: reservations follow it, direct connections do not notice.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{PATIENCE, Transport},
    nat::NatKind,
    node::Process,
    pair::{Pair, Peers},
};

p2pnode_tests::lab_tests!();

/// What the node promises, from the relay's return to the reservation.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// More pings than any of these tests lasts.
const PINGS: usize = 1000;

struct Talking {
    peers: Peers,
    dial: Process,
}

impl Talking {
    async fn new(name: &str, transport: Transport) -> Result<Self> {
        let peers = Pair::new(name, NatKind::EimApdf, NatKind::EimApdfRewrite)
            .transport(transport)
            .start()
            .await?;
        let dial = peers.start_dial("a", PINGS)?;
        let talking = Self { peers, dial };
        talking.ping_after(0).await?;
        Ok(talking)
    }

    fn last_ping(&self) -> u64 {
        let events = self.dial.events();
        events
            .iter()
            .filter_map(|event| event.json["seq"].as_u64())
            .max()
            .unwrap_or(0)
    }

    /// Waits for a ping after number `last` that went over the direct path.
    async fn ping_after(&self, last: u64) -> Result<()> {
        let kind = self.dial.until("a ping", PATIENCE, |events| {
            let ping = events
                .iter()
                .find(|event| event.json["seq"].as_u64() > Some(last))?;
            Some(ping.text("/kind").to_owned())
        });
        let kind = kind.await?;
        ensure!(kind == "direct", "a ping went over a {kind} path");
        Ok(())
    }

    /// Starts the relay, waits for the reservation, and asserts the promise and the direct connection.
    async fn relay_returns(mut self, seen: usize) -> Result<()> {
        self.peers
            .relay
            .restart(&self.peers.lab, &self.peers.bins)
            .await?;
        let returned = Instant::now();
        let reserved = self
            .peers
            .b_process
            .event_after(seen, "reserved", PATIENCE)
            .await?;
        let took = reserved.at.saturating_duration_since(returned);
        ensure!(
            took <= BACK_WITHIN,
            "the reservation came back {took:?} after the relay"
        );
        self.ping_after(self.last_ping()).await?;
        for process in [&self.dial, &self.peers.b_process] {
            let lost = process
                .events()
                .iter()
                .any(|event| event.name() == "disconnected" && event.text("/kind") == "direct");
            // Of two direct connections that a punch made one is closed; the one that is left carries the pings.
            let opened = process
                .events()
                .iter()
                .filter(|event| event.name() == "connected" && event.path_kind() == "direct")
                .count();
            ensure!(
                !lost || opened > 1,
                "{} lost the direct connection",
                process.name()
            );
        }
        self.peers.verify_range().await?;
        self.peers.lab.succeeded();
        Ok(())
    }
}

async fn noticed(name: &str, transport: Transport) -> Result<()> {
    let mut talking = Talking::new(name, transport).await?;
    talking.peers.relay.process.kill().await?;
    talking
        .peers
        .b_process
        .event("reservation_lost", PATIENCE)
        .await
        .context("the relay is dead")?;
    talking.ping_after(talking.last_ping()).await?;
    let seen = talking.peers.b_process.events().len();
    talking.relay_returns(seen).await
}

async fn at_once(name: &str, transport: Transport) -> Result<()> {
    let mut talking = Talking::new(name, transport).await?;
    let seen = talking.peers.b_process.events().len();
    talking.peers.relay.process.kill().await?;
    talking.relay_returns(seen).await
}

#[tokio::test]
async fn a_quic_relay_that_was_missed_is_reserved_on_again_within_5_s_of_its_return() -> Result<()>
{
    noticed("relay-missed-quic", Transport::Quic).await
}

#[tokio::test]
async fn a_tcp_relay_that_was_missed_is_reserved_on_again_within_5_s_of_its_return() -> Result<()> {
    noticed("relay-missed-tcp", Transport::Tcp).await
}

#[tokio::test]
async fn a_quic_relay_that_restarts_at_once_is_reserved_on_again_within_5_s() -> Result<()> {
    at_once("relay-restarts-quic", Transport::Quic).await
}

#[tokio::test]
async fn a_tcp_relay_that_restarts_at_once_is_reserved_on_again_within_5_s() -> Result<()> {
    at_once("relay-restarts-tcp", Transport::Tcp).await
}
