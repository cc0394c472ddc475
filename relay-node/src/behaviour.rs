//! The protocols of the relay: composition only.

use std::time::Duration;

use libp2p::{
    allow_block_list::{self, AllowedPeers},
    connection_limits, identify,
    identity::Keypair,
    ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::{config::Config, hop, keep_alive, limits, server};

/// Tells peers which software they talk to; libp2p compares it with nothing.
const PROTOCOL_VERSION: &str = "/p2pnode/1";

/// The name and version that identify tells.
const AGENT: &str = concat!("relay-node/", env!("CARGO_PKG_VERSION"));

/// libp2p pings each connection this often, which also keeps the mappings of NATs on the way: RFC 4787 REQ-5 lets them
/// drop an idle UDP mapping after two minutes, and many do after 30 s.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// A connection that answers no ping for this long, twice in a row, is dead: TCP by itself would not notice.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// All protocols. Those that refuse come first, so that no other sees a connection that is refused.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) access: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    pub(crate) connections: connection_limits::Behaviour,
    pub(crate) relay: server::Behaviour,
    pub(crate) keep_alive: keep_alive::Behaviour,
    pub(crate) hop: hop::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: p2pnode_bin_shared::ping::Behaviour,
}

impl Behaviour {
    /// The behaviours as `config` wants them.
    pub(crate) fn new(key: &Keypair, config: &Config) -> Self {
        let local = key.public().to_peer_id();
        let access = (!config.access.allow.is_empty()).then(|| {
            let mut allowed = allow_block_list::Behaviour::default();
            for peer in &config.access.allow {
                allowed.allow_peer(*peer);
            }
            allowed
        });
        Self {
            access: access.into(),
            connections: connection_limits::Behaviour::new(limits::connections(&config.limits)),
            relay: server::Behaviour::new(local, limits::relay(&config.limits)),
            keep_alive: keep_alive::Behaviour::default(),
            hop: hop::Behaviour::default(),
            identify: identify::Behaviour::new(
                identify::Config::new(PROTOCOL_VERSION.to_owned(), key.public())
                    .with_agent_version(AGENT.to_owned())
                    // Peers are to use the external addresses; the others are this host's own business.
                    .with_hide_listen_addrs(true)
                    // The relay dials nobody, so it need not remember where peers are.
                    .with_cache_size(0),
            ),
            ping: p2pnode_bin_shared::ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(PING_INTERVAL)
                    .with_timeout(PING_TIMEOUT),
            ),
        }
    }
}
