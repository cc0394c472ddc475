//! Starts a node: sockets, swarm, machines, event loop.

use std::{future::Future, time::Instant};

use libp2p::identity::Keypair;
use p2pnode_daemon::admin::Readiness;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    config::Config,
    core::{event::Event, peers::PeerTable, relays::RelayKeeper},
    observe::{metrics::Metrics, observers::Observers},
    swarm::{build as swarm, event_loop::EventLoop, handle::Handle, join::Tokens},
};

/// A node that runs as a task of its own.
pub(crate) struct Node {
    /// To command it.
    pub(crate) handle: Handle,
    /// What it tells of itself.
    pub(crate) events: mpsc::Receiver<Event>,
    /// Ends after the shutdown that it was given.
    pub(crate) task: JoinHandle<()>,
}

/// Binds the sockets and starts the event loop, which holds that many reservations, presents `tokens` and runs until
/// `shutdown`.
pub(crate) fn start(
    keypair: &Keypair,
    config: &Config,
    reservations: usize,
    metrics: Metrics,
    readiness: Readiness,
    tokens: Option<Tokens>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<Node> {
    let started = Instant::now();
    let (swarm, sockets) = swarm::build(keypair, config)?;
    let ports: Vec<String> = sockets
        .punch_ports()
        .iter()
        .map(|((transport, family), port)| format!("{transport}/{family} {port}"))
        .collect();
    tracing::info!(peer_id = %swarm.local_peer_id(), range = %sockets.range(), punch_ports = ports.join(", "), "the node is up");
    let (handle, commands) = Handle::channel(*swarm.local_peer_id());
    metrics.watch(&sockets);
    let (observers, events) = Observers::new(metrics, readiness);
    let peers = PeerTable::new(config.dial.family);
    let relays = RelayKeeper::new(&config.relays, reservations, config.dial.family, started);
    let event_loop = EventLoop::new(
        keypair.clone(),
        swarm,
        sockets,
        peers,
        relays,
        config,
        observers,
        tokens,
        started,
    );
    let task = tokio::spawn(event_loop.run(commands, shutdown));
    Ok(Node {
        handle,
        events,
        task,
    })
}
