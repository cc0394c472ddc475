//! Starts a node: sockets, swarm, machines, event loop.

use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    time::Instant,
};

use libp2p::identity::Keypair;
use p2pnode_daemon::admin::Readiness;
use p2pnode_protocol::addr;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    config::{Config, Key, MappingMode},
    core::{
        admission::{memory_of_services, of_services},
        event::Event,
        mappings::Method,
        state::{NodeState, Settings},
        tokens::Tokens,
    },
    discovery::{Discovery, Links},
    observe::{metrics::Metrics, observers::Observers, readiness},
    services::{Hub, PeerAddresses},
    swarm::{
        build as swarm, event_loop::EventLoop, handle::Handle, introduction::introducers,
        mappings::Mapper, netcheck::Plan, token_file::TokenFile,
    },
};

/// A node that runs as a task of its own.
pub(crate) struct Node {
    /// To command it.
    pub(crate) handle: Handle,
    /// What it reports of itself.
    pub(crate) events: mpsc::Receiver<Event>,
    /// Ends after the shutdown that it was given.
    pub(crate) task: JoinHandle<()>,
}

impl Node {
    /// Offers the services of the configuration, and brings its forwards here.
    ///
    /// # Errors
    /// If a forward cannot listen.
    pub(crate) fn serve(&self, config: &Config) -> anyhow::Result<()> {
        let file = match &config.key {
            Key::File(path) => Some(PeerAddresses::path(path)),
            Key::Throwaway { .. } => None,
        };
        let addresses = PeerAddresses::open(file.as_deref())?;
        let hub = self.handle.hub();
        hub.know_addresses(addresses);
        let served = hub.configure(&config.services, config.peer_addrs(), config.peer_names());
        served.map_err(|mut failed| failed.swap_remove(0).into())
    }

    /// Where the peers of the configuration are.
    pub(crate) fn know_peers(&self, config: &Config) {
        self.handle.hub().know(config.peer_addrs());
    }
}

/// Starts a node that nobody asks for metrics or readiness. It runs until the sender is dropped.
///
/// # Errors
///
/// If the file of join tokens is invalid, or if a socket cannot be bound.
pub(crate) fn start_held(
    keypair: &Keypair,
    config: &Config,
    reservations: usize,
) -> anyhow::Result<(Node, oneshot::Sender<()>)> {
    let local = keypair.public().to_peer_id();
    let open = |path| TokenFile::open(path, local);
    let tokens = config.token_file.as_deref().map(open).transpose()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        // An error means that the sender is gone.
        let _ = stopped.await;
    };
    let (metrics, readiness) = (Metrics::default(), readiness::new());
    let node = start(
        keypair,
        config,
        reservations,
        metrics,
        readiness,
        tokens,
        stopped,
    )?;
    Ok((node, stop))
}

/// Binds the sockets and starts the event loop, which holds that many reservations, presents `tokens` and runs until
/// `shutdown`.
pub(crate) fn start(
    keypair: &Keypair,
    config: &Config,
    reservations: usize,
    metrics: Metrics,
    readiness: Readiness,
    tokens: Option<(TokenFile, Tokens)>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<Node> {
    let sockets = of_services(p2pnode_daemon::rlimit::raise());
    let wanted = config.services.memory;
    let memory = memory_of_services(wanted, config.memory);
    if memory < wanted {
        tracing::info!(
            own = tracing::field::Empty,
            bytes = memory,
            "sessions hold a quarter of limits.memory at most, which is less than sessions.memory"
        );
    }
    let hub = Hub::new(&config.services, memory, sockets, metrics.sessions());
    let (swarm, sockets, guard) = swarm::build(keypair, config, &metrics, hub.clone())?;
    if let Some(problem) = readiness::unbound(&sockets) {
        tracing::warn!(own = tracing::field::Empty, "punch sockets: {problem}");
    }
    let mut ports: Vec<String> = sockets
        .punch_ports()
        .iter()
        .map(|((transport, family), port)| format!("{transport}/{family} {port}"))
        .collect();
    if ports.is_empty() {
        ports.push("none".to_owned());
    }
    tracing::info!(own = tracing::field::Empty, peer_id = %swarm.local_peer_id(), range = %sockets.range(), punch_ports = ports.join(", "), "the node is up");
    let local = *swarm.local_peer_id();
    hub.start_flows(sockets.datagrams());
    hub.know_ports(sockets.clone());
    metrics.watch(&sockets);
    let (observers, events) = Observers::new(metrics, readiness);
    let links = watch::Sender::new(Links::default());
    let discovery = Discovery::new(config, sockets.clone(), links.subscribe());
    let (token_file, tokens) = tokens.unzip();
    let settings = Settings {
        local,
        is_throwaway: matches!(config.key, Key::Throwaway { .. }),
        relays: config.dialed_relays(),
        reservations,
        family: config.dial.family,
        port_range: config.dial.port_range,
        punches: config.punch.enabled,
        searches: config.punch.search,
        rotate: config.punch.rotate,
        introducers: introducers(config),
        allowed: swarm::allowed(config),
        sources: discovery.sources(),
        tokens,
        seed: RandomState::new().hash_one(local),
    };
    let mapper = methods(config.mappings.mode).map(|methods| {
        let local = keypair.public().to_peer_id();
        let seed = RandomState::new().hash_one((local, "mappings"));
        let label = addr::base36(&local);
        let relays = Plan::new(config, sockets.clone());
        Mapper::start(&config.mappings, methods, relays, &label, seed)
    });
    let (mapper, mapped, exposes) = match mapper {
        Some((mapper, mapped, exposes)) => (Some(mapper), Some(mapped), Some(exposes)),
        None => (None, None, None),
    };
    let state = NodeState::new(settings, Instant::now());
    let event_loop = EventLoop::new(
        keypair.clone(),
        swarm,
        sockets,
        state,
        token_file,
        discovery,
        links,
        observers,
        hub.clone(),
        mapped,
        config,
    );
    let (handle, commands) = Handle::channel(local, event_loop.names(), hub, exposes);
    let task = tokio::spawn(async move {
        let _guard = guard;
        event_loop.run(commands, shutdown).await;
        if let Some(mapper) = mapper {
            mapper.stop().await;
        }
    });
    Ok(Node {
        handle,
        events,
        task,
    })
}

/// The ways to have ports mapped; `None` if there is none.
const fn methods(mode: MappingMode) -> Option<&'static [Method]> {
    match mode {
        MappingMode::Off => None,
        MappingMode::Auto => Some(&Method::ALL),
        MappingMode::Pcp => Some(&[Method::Pcp]),
        MappingMode::NatPmp => Some(&[Method::NatPmp]),
        MappingMode::Upnp => Some(&[Method::Upnp]),
        MappingMode::Hold => Some(&[Method::Hold]),
    }
}
