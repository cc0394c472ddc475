//! The protocols that a node runs. Composition only.

use std::collections::BTreeSet;

use libp2p::{
    PeerId, allow_block_list,
    connection_limits::{self, ConnectionLimits},
    identify,
    identity::Keypair,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use p2pnode_protocol::{directory, draining, ping};

use crate::{
    config::RelayAddr,
    core::liveness::Link,
    punch,
    swarm::{circuits::Client, introduction, streams, transport::Clients},
};

/// Connections per peer. In a punch, each of up to eight candidates may connect from both sides before the surplus is closed. One
/// more is relayed.
const CONNECTIONS_PER_PEER: u32 = 17;

/// Connections that may be in their handshake at once, each way: bounds what strangers can make a node hold.
const PENDING_CONNECTIONS: u32 = 256;

/// Connections in all.
const CONNECTIONS: u32 = 4096;

/// The protocols that a node runs.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // First, so that it refuses before any protocol is set up.
    pub(crate) access: Toggle<allow_block_list::Behaviour<allow_block_list::AllowedPeers>>,
    limits: connection_limits::Behaviour,
    pub(crate) relay_ip4: Client,
    pub(crate) relay_ip6: Client,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) punch: punch::Behaviour,
    pub(crate) introduction: introduction::Behaviour,
    pub(crate) streams: streams::Behaviour,
    draining: draining::Behaviour,
    pub(crate) directory: directory::Behaviour,
}

impl Behaviour {
    /// `allowed` are the peers that may connect, if not all may; `relays` are the configured ones.
    pub(crate) fn new(
        keypair: &Keypair,
        allowed: Option<&BTreeSet<PeerId>>,
        relays: &[RelayAddr],
        clients: Clients,
        punch: punch::Behaviour,
        introduction: introduction::Behaviour,
    ) -> Self {
        let known = relays.iter().map(|relay| (relay.peer, relay.addr.clone()));
        let directory = directory::Behaviour::client(keypair.public().to_peer_id(), known);
        let relays: BTreeSet<PeerId> = relays.iter().map(|relay| relay.peer).collect();
        let access = allowed.map(|allowed| {
            let mut access =
                allow_block_list::Behaviour::<allow_block_list::AllowedPeers>::default();
            for peer in allowed {
                access.allow_peer(*peer);
            }
            access
        });
        let limits = ConnectionLimits::default()
            .with_max_established(Some(CONNECTIONS))
            .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER))
            .with_max_pending_incoming(Some(PENDING_CONNECTIONS))
            .with_max_pending_outgoing(Some(PENDING_CONNECTIONS));
        let identify = identify::Config::new("/p2pnode/1".to_owned(), keypair.public())
            .with_agent_version(concat!("p2pnode/", env!("CARGO_PKG_VERSION")).to_owned())
            // Listen addresses are also those inside this host and its networks. Peers get addresses from a record or in a punch.
            .with_hide_listen_addrs(true)
            // The addresses that peers report in identify are not dialed. Addresses are given, or come with a punch.
            .with_cache_size(0);
        Self {
            access: access.into(),
            limits: connection_limits::Behaviour::new(limits),
            relay_ip4: clients.ip4,
            relay_ip6: clients.ip6,
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(move |peer, relayed| {
                let link = match relayed {
                    true => Link::Circuit,
                    false if relays.contains(peer) => Link::Leg,
                    false => Link::Direct,
                };
                link.pace()
            }),
            punch,
            introduction,
            streams: streams::Behaviour::default(),
            draining: draining::Behaviour::default(),
            directory,
        }
    }
}
