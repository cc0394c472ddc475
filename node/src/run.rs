//! `p2pnode run`: a node that stays.

use std::{future::Future, time::Duration};

use anyhow::Context as _;
use libp2p::identity::Keypair;

use crate::{
    config::Config,
    event::Event,
    metrics::Metrics,
    node::{self, Manner},
    output::Printer,
};

/// Time between two pings of a connection.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Runs a node until `shutdown`.
///
/// # Errors
///
/// If a socket cannot be bound.
pub async fn run(
    keypair: &Keypair,
    config: &Config,
    mut printer: Printer,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let metrics = Metrics::default();
    let manner = Manner { reservations: config.reservations, ping_interval: PING_INTERVAL };
    let mut node = node::start(keypair, config, &manner, metrics, shutdown)?;
    printer.print(&Event::Started { peer_id: keypair.public().to_peer_id(), port_range: config.dial.port_range }).context("cannot write to stdout")?;
    while let Some(event) = node.events.recv().await {
        // A node serves peers, not its stdout: if that is closed it goes on.
        if printer.print(&event).is_err() {
            break;
        }
    }
    node.task.await.context("the event loop panicked; please report this with the log")
}
