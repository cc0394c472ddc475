//! The swarm: its transport, its protocols, its listeners.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use anyhow::Context as _;
use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError, identity::Keypair, multiaddr::Protocol, swarm,
};
use p2pnode_daemon::memory::Guard;
use p2pnode_protocol::{
    bucket::Measure,
    guarded::{PerConnection, Verdict},
    upgrade::LAZY,
};

use crate::{
    config::Config,
    core::admission::{Admission, Refused},
    observe::metrics::Metrics,
    punch,
    services::Hub,
    swarm::{
        admission,
        behaviour::{Asks, Behaviour, Limits, PUNCHES, REQUESTS},
        dial_error, introduction, memory, services, streams, transport,
    },
};

/// How long an idle connection is kept. Legs to relays and punched connections have to stay. Pings and QUIC's own timeout find
/// dead connections; this timeout does not.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Opens the punch sockets, builds the swarm and binds the public listeners.
pub(crate) fn build(
    keypair: &Keypair,
    config: &Config,
    metrics: &Metrics,
    hub: Hub,
) -> anyhow::Result<(Swarm<Behaviour>, p2pnode_transports::Handle, Guard)> {
    let parts = transport::build(keypair, &config.dial)?;
    let local = keypair.public().to_peer_id();
    let times = parts.circuit_times;
    let circuits = Arc::new(move |peer: &PeerId| times.take(peer));
    let mut punch = punch::Behaviour::new(
        local,
        punch::Settings::new(&config.punch, &config.dial, circuits),
        parts.sockets.clone(),
    );
    let relays: Vec<Multiaddr> = config
        .relays
        .iter()
        .map(|relay| relay.addr.clone().with(Protocol::P2p(relay.peer)))
        .collect();
    punch.set_relays(&relays);
    let allowed = allowed(config);
    let kin = parts.sockets.kin().clone();
    let asks = Asks {
        introduction: introduction::Behaviour::new(config, parts.sockets.clone()),
        streams: streams::Behaviour::new(kin),
        services: services::Behaviour::new(hub),
    };
    let relays = &config.relays;
    let connections = memory::Connections {
        budgets: parts.sockets.budgets().clone(),
        closed: metrics.closed_for_memory(),
    };
    let guard = Guard::start(config.memory, connections)
        .context("cannot start the thread that watches the memory")?;
    // Without a list of allowed peers, the relays are all that the configuration names.
    let named = relays.iter().map(|relay| relay.peer);
    let named = allowed.iter().flatten().copied().chain(named).collect();
    let admission = Admission::new(named, p2pnode_daemon::rlimit::raise());
    let behaviour = Behaviour::new(
        keypair,
        allowed.as_ref(),
        relays,
        Limits {
            admission: admission::Behaviour::new(admission, guard.pressure(), parts.displacer),
            requests: counted(REQUESTS, metrics),
            punches: counted(PUNCHES, metrics),
            budgets: parts.sockets.budgets().clone(),
        },
        parts.clients,
        punch,
        asks,
    );
    let settings = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE)
        .with_substream_upgrade_protocol_override(LAZY);
    let mut swarm = Swarm::new(parts.transport, behaviour, local, settings);
    for address in &config.listen {
        swarm
            .listen_on(address.clone())
            .map_err(|error| listen_error(address, error))?;
    }
    Ok((swarm, parts.sockets, guard))
}

/// At most a measure of streams on each connection. What is refused is counted.
fn counted(measure: Measure, metrics: &Metrics) -> PerConnection {
    let metrics = metrics.clone();
    PerConnection::new(measure, move |verdict| match verdict {
        Verdict::Serve => {}
        Verdict::Refuse => metrics.refused(Refused::RequestRate),
        Verdict::Close => metrics.refused(Refused::Flood),
    })
}

/// The peers that may connect; `None` lets every peer connect. The relays are part of the configuration and need no second
/// mention.
pub(crate) fn allowed(config: &Config) -> Option<BTreeSet<PeerId>> {
    let relays = config.relays.iter().map(|relay| relay.peer);
    let named = Some(&config.allowed_peers).filter(|named| !named.is_empty());
    named.map(|named| named.iter().copied().chain(relays).collect())
}

/// Names the address, what is wrong and what to do.
fn listen_error(address: &Multiaddr, error: TransportError<io::Error>) -> anyhow::Error {
    match error {
        TransportError::MultiaddrNotSupported(_) => {
            anyhow::anyhow!(
                "cannot listen on {address}: give /ip4 or /ip6 with /udp/PORT/quic-v1 or /tcp/PORT"
            )
        }
        TransportError::Other(error) => {
            let reason = dial_error::innermost(&error);
            let remedy = match dial_error::io_kind(&error) {
                Some(io::ErrorKind::AddrInUse) => "stop the other process or choose another port",
                Some(io::ErrorKind::PermissionDenied) => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE: grant it or choose a higher port"
                }
                Some(io::ErrorKind::AddrNotAvailable) => "this host has no such address",
                _ => return anyhow::anyhow!("cannot listen on {address}: {reason}"),
            };
            anyhow::anyhow!("cannot listen on {address}: {reason}: {remedy}")
        }
    }
}
