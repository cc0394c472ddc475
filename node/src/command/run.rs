//! `p2pnode run`: a node that runs until a signal.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use libp2p::identity::Keypair;
use p2pnode_daemon::{
    admin::{self, Health},
    service_manager::{self, Watchdog},
};
use prometheus_client::registry::Registry;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use crate::{
    Handle, Stopped,
    config::Config,
    control,
    core::event::Event,
    observe::{metrics::Metrics, output::Printer, readiness},
    swarm::{node, token_file::TokenFile},
};

/// How long the reader of stdout may take for the last events.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// Runs a node until `shutdown`, and alongside it what `reloads` makes for it.
///
/// # Errors
///
/// If the file of join tokens is invalid, or a socket cannot be bound.
pub(crate) async fn run<R: Future<Output = ()> + Send + 'static>(
    keypair: &Keypair,
    config: &Config,
    printer: Printer,
    reloads: impl FnOnce(Handle) -> R,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    p2pnode_daemon::clock::warn_if_unset();
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
    for warning in config.warnings() {
        tracing::warn!(own = tracing::field::Empty, "{warning}");
    }
    let shutdown = async {
        shutdown.await;
        service_manager::stopping();
    };
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let readiness = readiness::new();
    let health = Health {
        readiness: readiness.clone(),
        metrics: Arc::new(registry),
    };
    let bound = admin::Bound::bind(config.admin_listen).await?;
    let node = node::start(
        keypair,
        config,
        config.reservations,
        metrics,
        readiness,
        tokens,
        shutdown,
    )?;
    node.serve(config)?;
    let mut router = admin::router(health.clone());
    if config.admin_page {
        router = router.merge(control::page(node.handle.clone()));
    }
    let admin = bound.serve(&config.admin_hosts, router);
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
    tokio::spawn(reloads(node.handle.clone()));
    tokio::spawn(report_alive(node.handle.clone()));
    service_manager::ready();
    let started = Event::Started {
        peer_id: keypair.public().to_peer_id(),
        port_range: config.dial.port_range,
    };
    let mut printed = print(printer, started, node.events);
    let ended = node.task.await;
    // A reader that does not read keeps the last events from nobody else.
    if timeout(LAST_EVENTS, &mut printed).await.is_err() {
        printed.abort();
    }
    ended.context("the event loop panicked; please report this with the log")?;
    if let Some(control) = control {
        control.stop().await;
    }
    admin.stop().await;
    Ok(())
}

/// Reports to the service manager that the event loop answers, as long as it does.
async fn report_alive(node: Handle) {
    let mut watchdog = Watchdog::of_process();
    loop {
        watchdog.due().await;
        match node.status().await {
            Ok(_) => service_manager::alive(),
            Err(Stopped) => return,
        }
    }
}

/// Prints the events in a thread of its own: the node does not wait for the reader of stdout. Events that cannot be written are lost.
fn print(
    mut printer: Printer,
    started: Event,
    mut events: mpsc::Receiver<Event>,
) -> JoinHandle<()> {
    spawn_blocking(move || {
        let mut is_lost = false;
        let mut next = Some(started);
        while let Some(event) = next {
            let printed = printer.print(&event);
            if let (Err(error), false) = (&printed, is_lost) {
                tracing::warn!(
                    own = tracing::field::Empty,
                    "cannot write to stdout: {error}; events are lost"
                );
            }
            is_lost = printed.is_err();
            next = events.blocking_recv();
        }
    })
}
