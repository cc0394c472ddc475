//! A relay from its configuration to its end: binds, serves, drains, closes.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use anyhow::Context as _;
use libp2p::{Swarm, SwarmBuilder, identity::Keypair};
use p2pnode_daemon::{
    admin::{self, Health},
    lossy, memory,
};
use p2pnode_protocol::upgrade::LAZY;
use p2pnode_transports::{Budgets, Displacer, Interfaces, Largest};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tracing::{field::Empty, info, warn};

use super::{
    autonat::DialBacks,
    behaviour::Behaviour,
    boxed_handler::BoxedHandlers,
    event_loop::EventLoop,
    listen::Listeners,
    probe::Prober,
    shared_state::{SharedState, now},
    stun::StunServer,
};
use crate::{
    config::{Config, reload::Reloads},
    core::{RelayState, Settings},
    observe::{
        control,
        metrics::Metrics,
        observer::Observer,
        output::{Format, Output},
        readiness,
    },
    quic_scheduler::FairRuntime,
};

/// What sets up a connection has a bound of its own for each transport, and reports when it is over: 4 s for QUIC and 10 s for TCP.
/// libp2p's, which is the same for all, is not to come first.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);

/// A peer without a reservation and without a circuit is let go after this long: time for a `dial` to learn its own
/// addresses and to ask for the circuit.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the relay until `shutdown` is ready, drains it for `config.drain_timeout` at most, then closes all connections and
/// returns.
///
/// # Errors
/// When an address of `config.listen` cannot be bound ([`ListenError`](crate::ListenError)), the admin address cannot, or a
/// listener fails later.
pub async fn run(
    key: &Keypair,
    config: &Config,
    format: Format,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    run_reloading(key, config, format, Reloads::never(), shutdown).await
}

/// The same with a configuration that may be read again meanwhile.
///
/// # Errors
/// As [`run`].
pub async fn run_reloading(
    key: &Keypair,
    config: &Config,
    format: Format,
    reloads: Reloads,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    p2pnode_daemon::clock::warn_if_unset();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = readiness::new();
    let local = key.public().to_peer_id();
    let now = now();
    let state = RelayState::new(local, &Settings::from(config), now);
    let state = SharedState::new(state, metrics.clone());
    let budgets = Budgets::of_relay();
    let interfaces = Interfaces::watch()
        .inspect_err(|error| warn!(%error, "cannot watch the addresses of this host"))
        .ok();
    if let Some(interfaces) = &interfaces {
        let addresses = interfaces.addresses().clone();
        state.lock().handle_host(addresses, interfaces.gateways());
    }
    let stun = StunServer::new(&config.stun, state.clone(), metrics.clone());
    let mut swarm = swarm(key, config, &state, &metrics, budgets.clone(), &stun)?;
    let listeners = Listeners::bind(&mut swarm, &config.listen.addrs)?;
    stun.listen(&config.stun)?;
    let health = Health {
        readiness: readiness.clone(),
        metrics: Arc::new(registry),
    };
    let bound = admin::Bound::bind(config.admin).await?;
    let (asks, questions) = control::questions();
    let mut router = admin::router(health.clone());
    if config.admin_page {
        router = router.merge(control::page(asks.clone()));
    }
    let admin = bound.serve(&config.admin_hosts, router);
    let control = control::start(config.control.as_deref(), health, asks).await;
    let output = Output::new(lossy::stdout(), format, local);
    if config.external.is_empty() {
        info!(
            own = Empty,
            "no external address is configured: the relay advertises the addresses on which it listens; give --external if \
             peers reach it at others"
        );
    }
    let connections = Connections {
        budgets: budgets.clone(),
        closed: metrics.closed_for_memory(),
    };
    let _guard = memory::Guard::start(config.limits.memory, connections)
        .context("cannot start the thread that watches the memory")?;
    if config.limits.memory > 0 && memory::resident().is_none() {
        warn!(
            own = Empty,
            "this system does not report resident memory; limits.memory is not enforced"
        );
    }
    let event_loop = EventLoop {
        swarm,
        state,
        budgets,
        observer: Observer::new(metrics, readiness, output),
        listeners,
        interfaces,
        copies: HashMap::new(),
        prober: Prober::default(),
        dial_backs: DialBacks::default(),
        reloads,
        questions,
        limits: config.limits,
        started: now.instant,
    };
    let served = event_loop.run(shutdown).await;
    if let Some(control) = control {
        control.stop().await;
    }
    admin.stop().await;
    served
}

fn swarm(
    key: &Keypair,
    config: &Config,
    state: &SharedState,
    metrics: &Metrics,
    budgets: Budgets,
    stun: &StunServer,
) -> anyhow::Result<Swarm<BoxedHandlers<Behaviour>>> {
    let runtime = || Ok(FairRuntime::start()? as Arc<dyn quinn::Runtime>);
    let displacer = Displacer::default();
    let arrivals = budgets.clone();
    let transport = displacer.wrap(p2pnode_transports::server_within(
        key,
        Arc::new(runtime),
        budgets,
        Some(stun.on_quic_port()),
    )?);
    let swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_other_transport(|_| transport)?
        .with_behaviour(|key| {
            BoxedHandlers(Behaviour::new(
                key,
                &config.limits,
                state,
                metrics.carried(),
                displacer,
                arrivals,
            ))
        })?
        .with_swarm_config(|swarm| {
            swarm
                .with_idle_connection_timeout(IDLE_TIMEOUT)
                .with_substream_upgrade_protocol_override(LAZY)
        })
        .with_connection_timeout(CONNECTION_TIMEOUT)
        .build();
    Ok(swarm)
}

/// The connections of a relay, and where those are counted that are closed.
struct Connections {
    budgets: Budgets,
    closed: Counter,
}

impl memory::Holders for Connections {
    fn set_room(&mut self, bytes: u64) {
        self.budgets.set_room(bytes);
    }

    fn close(&mut self, bytes: u64, of_others: u64) -> u64 {
        let closed = self.budgets.close(bytes, of_others);
        for largest in &closed {
            self.closed.inc();
            warn!(peer = %largest.peer, bytes = largest.held, "closed a connection: too little is left of limits.memory");
        }
        closed.iter().map(Largest::frees).sum()
    }
}
