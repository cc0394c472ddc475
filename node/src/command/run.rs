//! `p2pnode run`: a node that runs until a signal.

use std::{future::Future, sync::Arc, time::SystemTime};

use anyhow::Context as _;
use libp2p::identity::Keypair;
use p2pnode_daemon::admin::{self, Health};
use prometheus_client::registry::Registry;

use crate::{
    config::Config,
    control,
    core::event::Event,
    observe::{metrics::Metrics, output::Printer, readiness},
    swarm::{node, token_file::TokenFile},
};

/// Runs a node until `shutdown`.
///
/// # Errors
///
/// If the file of join tokens is invalid, or a socket cannot be bound.
pub(crate) async fn run(
    keypair: &Keypair,
    config: &Config,
    mut printer: Printer,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let local = keypair.public().to_peer_id();
    let tokens = config.token_file.as_deref();
    let tokens = tokens
        .map(|path| TokenFile::open(path, local))
        .transpose()?;
    if let Some((_, tokens)) = &tokens {
        tokens.check()?;
        let relays = config.relays.iter().map(|relay| relay.peer).collect();
        for warning in tokens.warnings(&relays, SystemTime::now()) {
            tracing::warn!(own = tracing::field::Empty, "{warning}");
        }
    }
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let readiness = readiness::new();
    let health = Health {
        readiness: readiness.clone(),
        metrics: Arc::new(registry),
    };
    let admin =
        admin::Server::start(config.admin_listen, &config.admin_hosts, health.clone()).await?;
    let mut node = node::start(
        keypair,
        config,
        config.reservations,
        metrics,
        readiness,
        tokens,
        shutdown,
    )?;
    // Without a control socket the node still serves its peers: several nodes may run on one host with the defaults.
    let control = control::start(&config.control_socket, node.handle.clone(), health)
        .await
        .inspect_err(|error| {
            tracing::warn!(
                own = tracing::field::Empty,
                "{error}; status, why and dial cannot ask this node"
            )
        })
        .ok();
    let started = Event::Started {
        peer_id: keypair.public().to_peer_id(),
        port_range: config.dial.port_range,
    };
    // If stdout is closed or full, the node goes on: it serves its peers.
    let mut printed = printer.print(&started);
    while let Some(event) = node.events.recv().await {
        let is_lost = printed.is_err();
        printed = printer.print(&event);
        match &printed {
            Err(error) if !is_lost => {
                tracing::warn!("cannot write to stdout: {error}; events are lost")
            }
            Err(_) | Ok(()) => {}
        }
    }
    node.task
        .await
        .context("the event loop panicked; please report this with the log")?;
    if let Some(control) = control {
        control.stop().await;
    }
    admin.stop().await;
    Ok(())
}
