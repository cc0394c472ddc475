//! The protocols of the relay: composition only.

use std::time::Duration;

use libp2p::{connection_limits, identify, identity::Keypair, swarm::NetworkBehaviour};

use p2pnode_protocol::{
    directory, draining,
    ping::{self, Pace},
};

use crate::{
    config::Config,
    core::{
        admission::{self, Admission, Gated},
        handshakes, limits,
    },
    swarm::{
        circuit::{self, Carried},
        connection_sources, hop, introduction as meet, keep_alive, memory,
    },
};

/// Tells peers which software they talk to; libp2p compares it with nothing.
const PROTOCOL_VERSION: &str = "/p2pnode/1";

/// The name and version that identify tells.
const AGENT: &str = concat!("relay-node/", env!("CARGO_PKG_VERSION"));

/// Each connection is pinged this often, which also keeps the mappings of NATs on the way: RFC 4787 REQ-5 lets them drop an
/// idle UDP mapping after two minutes, and many do after 30 s. One that answers none in this time, twice in a row, is dead:
/// TCP by itself would not notice.
const PACE: Pace = Pace {
    interval: Duration::from_secs(15),
    timeout: Duration::from_secs(10),
};

/// All protocols. Those that refuse come first, so that no other sees a connection that is refused.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) memory: memory::Behaviour,
    pub(crate) admission: admission::Behaviour,
    pub(crate) connections: connection_limits::Behaviour,
    pub(crate) handshakes: handshakes::Behaviour,
    pub(crate) sources: connection_sources::Behaviour,
    pub(crate) relay: circuit::Behaviour,
    pub(crate) keep_alive: keep_alive::Behaviour,
    pub(crate) draining: draining::Behaviour,
    pub(crate) hop: Gated<hop::Behaviour>,
    pub(crate) meet: Gated<meet::Behaviour>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) directory: Gated<directory::Behaviour>,
}

impl Behaviour {
    /// The behaviours as `config` wants them, for peers that `admission` admits; circuits count bytes in `carried`.
    pub(crate) fn new(
        key: &Keypair,
        config: &Config,
        admission: &Admission,
        carried: Carried,
    ) -> Self {
        let local = key.public().to_peer_id();
        Self {
            memory: memory::Behaviour::new(config.limits.memory),
            admission: admission::Behaviour::new(admission.clone()),
            connections: connection_limits::Behaviour::new(limits::connections(
                &config.limits,
                config.relays.len(),
            )),
            handshakes: handshakes::Behaviour::new(config.limits.pending_connections),
            sources: connection_sources::Behaviour::new(config.limits.connections_per_source),
            relay: circuit::Behaviour::new(local, &config.limits, admission.clone(), carried),
            keep_alive: keep_alive::Behaviour::default(),
            draining: draining::Behaviour::default(),
            hop: Gated::new(hop::Behaviour::default(), admission.clone()),
            meet: Gated::new(meet::Behaviour::default(), admission.clone()),
            identify: identify::Behaviour::new(
                identify::Config::new(PROTOCOL_VERSION.to_owned(), key.public())
                    .with_agent_version(AGENT.to_owned())
                    // Peers are to use the external addresses; the others are this host's own business.
                    .with_hide_listen_addrs(true)
                    // The relay dials only other relays, at configured addresses, so it need not remember where peers are.
                    .with_cache_size(0),
            ),
            ping: ping::Behaviour::new(|_, _| PACE),
            directory: Gated::new(
                directory::Behaviour::server(local, limits::records(&config.limits)),
                admission.clone(),
            ),
        }
    }
}
