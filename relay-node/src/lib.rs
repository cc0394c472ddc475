//! A [circuit relay v2] for `p2pnode` peers: it holds reservations, carries circuits until the peers have a direct
//! connection, and tells each peer the address from which it sees it.
//!
//! [circuit relay v2]: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md

pub mod core;
pub mod observe;
mod quic_scheduler;
pub mod swarm;

pub mod command;
pub mod config;

use std::{
    collections::HashMap, future::Future, io, net::SocketAddr, sync::Arc, time::Duration,
    time::Instant,
};

use libp2p::{Swarm, SwarmBuilder, identity::Keypair};
use p2pnode_daemon::{
    admin::{self, Health},
    signals::{Shutdown, Trigger},
};
use p2pnode_protocol::upgrade::LAZY;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tracing::{info, warn};

pub use crate::{
    config::{
        Config,
        reload::{Load, Reloads},
    },
    observe::output::Format,
    swarm::listen::Error as ListenError,
};
use crate::{
    core::{
        admission::{Admission, Rules},
        connections::Legs,
        peer_relays::Partners,
        replication::Copies,
    },
    observe::{metrics::Metrics, output::Output},
    quic_scheduler::FairRuntime,
    swarm::{
        behaviour::Behaviour, boxed_handler::Boxed, circuit::Carried, event_loop::EventLoop,
        external::ExternalAddresses, listen::Listeners,
    },
};

/// What sets up a connection has a bound of its own for each transport, of which it tells when it is over: 4 s for QUIC and 10 s for TCP.
/// libp2p's, which is the same for all, is not to come first.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);

/// A peer without a reservation and without a circuit is let go after this long: time for a `dial` to learn its own
/// addresses and to ask for the circuit.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the relay until `shutdown` is ready, drains it for `config.drain_timeout` at most, then closes all connections and
/// returns.
///
/// # Errors
/// When an address of `config.listen` cannot be bound ([`ListenError`]), the admin address cannot, or a listener fails
/// later.
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
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = observe::readiness::new();
    let local = key.public().to_peer_id();
    let known = config.relays.iter().map(|(relay, _)| *relay);
    let admission = Admission::new(local, Rules::new(&config.access, known), metrics.clone());
    let mut swarm = swarm(key, config, &admission, metrics.carried())?;
    let listeners = Listeners::bind(&mut swarm, &config.listen.addrs)?;
    let health = Health {
        readiness: readiness.clone(),
        metrics: Arc::new(registry),
    };
    let admin = Admin::start(config.admin, health.clone()).await?;
    let (control, questions) = observe::control::start(config.control.as_deref(), health).await;
    let output = Output::new(io::stdout(), format, local);
    let (external, changes) = ExternalAddresses::new(&config.external);
    let others = config.relays.iter().filter(|relay| relay.0 != local);
    let partners = Partners::new(others.cloned(), Instant::now());
    let mut event_loop = EventLoop {
        swarm,
        listeners,
        external,
        legs: Legs::default(),
        partners,
        copies: Copies::default(),
        early: HashMap::new(),
        metrics,
        readiness,
        output,
        drain_timeout: config.drain_timeout,
        drain: None,
        admission,
        reloads,
        questions,
        limits: config.limits,
        started: Instant::now(),
    };
    if config.external.is_empty() {
        info!(
            "no external address is configured: peers are told the addresses on which the relay listens; give --external if \
             they reach it at others"
        );
    }
    event_loop.apply(changes);
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
    admission: &Admission,
    carried: Carried,
) -> anyhow::Result<Swarm<Boxed<Behaviour>>> {
    let runtime = || Ok(FairRuntime::start()? as Arc<dyn quinn::Runtime>);
    let transport = p2pnode_transports::server(key, Arc::new(runtime))?;
    let swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_other_transport(|_| transport)?
        .with_behaviour(|key| Boxed(Behaviour::new(key, config, admission, carried)))?
        .with_swarm_config(|swarm| {
            swarm
                .with_idle_connection_timeout(IDLE_TIMEOUT)
                .with_substream_upgrade_protocol_override(LAZY)
        })
        .with_connection_timeout(CONNECTION_TIMEOUT)
        .build();
    Ok(swarm)
}

/// The admin server, if there is one.
struct Admin(Option<(Trigger, JoinHandle<io::Result<()>>)>);

impl Admin {
    async fn start(address: Option<SocketAddr>, health: Health) -> anyhow::Result<Self> {
        let Some(address) = address else {
            return Ok(Self(None));
        };
        let listener = admin::bind(address).await?;
        let (trigger, shutdown) = Shutdown::pair();
        let server = tokio::spawn(admin::serve(
            listener,
            admin::router(health),
            shutdown.requested(),
        ));
        Ok(Self(Some((trigger, server))))
    }

    async fn stop(self) {
        let Some((trigger, server)) = self.0 else {
            return;
        };
        trigger.trigger();
        match server.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "admin HTTP ended early"),
            Err(error) => warn!(%error, "admin HTTP failed"),
        }
    }
}
