//! The protocols that a node runs. Composition only.

use std::{collections::BTreeSet, time::Duration};

use libp2p::{
    PeerId, allow_block_list, identify,
    identity::Keypair,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use p2pnode_protocol::{
    bucket::Measure,
    directory, draining, exchange,
    guarded::{Guarded, PerConnection},
    ping,
    shared_key::SharedKey,
};
use p2pnode_transports::Budgets;

use crate::{
    config::RelayAddr,
    core::liveness::Link,
    punch,
    swarm::{
        admission, autonat, circuits::Client, introduction, services, streams, transport::Clients,
    },
};

/// Streams that a remote may open on a connection for one protocol: to identify itself as often as its addresses change. An identify
/// message is up to 4 KiB that are read and compared.
pub(crate) const REQUESTS: Measure = Measure {
    burst: 32,
    period: Duration::from_millis(100),
};

/// Handshakes of DCUtR that a remote may begin over a circuit. Other implementations make three in a row and then rest.
pub(crate) const PUNCHES: Measure = Measure {
    burst: 12,
    period: Duration::from_secs(5),
};

/// The protocols that a node runs.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // First, so that it refuses before any protocol is set up.
    pub(crate) access: Toggle<allow_block_list::Behaviour<allow_block_list::AllowedPeers>>,
    pub(crate) admission: admission::Behaviour,
    pub(crate) relay_ip4: Client,
    pub(crate) relay_ip6: Client,
    pub(crate) identify: Guarded<identify::Behaviour, PerConnection>,
    pub(crate) ping: ping::Behaviour,
    pub(crate) punch: Guarded<punch::Behaviour, PerConnection>,
    pub(crate) introduction: introduction::Behaviour,
    pub(crate) streams: streams::Behaviour,
    services: services::Behaviour,
    pub(crate) autonat: autonat::Behaviour,
    draining: Guarded<draining::Behaviour, PerConnection>,
    shared_key: Guarded<exchange::Behaviour<SharedKey>, PerConnection>,
    pub(crate) directory: directory::Behaviour,
}

/// What refuses connections, or ends them for others.
pub(crate) struct Limits {
    pub(crate) admission: admission::Behaviour,
    pub(crate) requests: PerConnection,
    pub(crate) punches: PerConnection,
    /// They also count what arrives.
    pub(crate) budgets: Budgets,
}

/// What asks peers over protocols of ours.
pub(crate) struct Asks {
    pub(crate) introduction: introduction::Behaviour,
    pub(crate) streams: streams::Behaviour,
    pub(crate) services: services::Behaviour,
}

impl Behaviour {
    /// `allowed` are the peers that may connect, if not all may; `relays` are the configured ones. `limits` refuse
    /// connections.
    pub(crate) fn new(
        keypair: &Keypair,
        allowed: Option<&BTreeSet<PeerId>>,
        relays: &[RelayAddr],
        limits: Limits,
        clients: Clients,
        punch: punch::Behaviour,
        asks: Asks,
    ) -> Self {
        let known = relays.iter().map(|relay| (relay.peer, relay.addr.clone()));
        let directory = directory::Behaviour::client(keypair.public().to_peer_id(), known);
        let relays: BTreeSet<PeerId> = relays.iter().map(|relay| relay.peer).collect();
        let identify = identify::Config::new("/p2pnode/1".to_owned(), keypair.public())
            .with_agent_version(concat!("p2pnode/", env!("CARGO_PKG_VERSION")).to_owned())
            // Listen addresses are also those inside this host and its networks. Peers get addresses from a record or in a punch.
            .with_hide_listen_addrs(true)
            // The addresses that peers report in identify are not dialed. Addresses are given, or come with a punch.
            .with_cache_size(0);
        Self {
            access: access(allowed).into(),
            admission: limits.admission,
            relay_ip4: clients.ip4,
            relay_ip6: clients.ip6,
            identify: Guarded::new(identify::Behaviour::new(identify), limits.requests.clone()),
            ping: ping::Behaviour::new(move |peer, relayed| {
                let link = match relayed {
                    true => Link::Circuit,
                    false if relays.contains(peer) => Link::Leg,
                    false => Link::Direct,
                };
                link.pace()
            })
            .with_signs(move |peer, remote| limits.budgets.signs_of_life(peer, remote)),
            punch: Guarded::new(punch, limits.punches),
            introduction: asks.introduction,
            streams: asks.streams,
            services: asks.services,
            autonat: autonat::Behaviour::default(),
            draining: Guarded::new(draining::Behaviour::default(), limits.requests.clone()),
            shared_key: Guarded::new(exchange::Behaviour::new(1), limits.requests),
            directory,
        }
    }
}

/// Lets these peers connect; `None`: every peer.
pub(crate) fn access(
    allowed: Option<&BTreeSet<PeerId>>,
) -> Option<allow_block_list::Behaviour<allow_block_list::AllowedPeers>> {
    allowed.map(|allowed| {
        let mut access = allow_block_list::Behaviour::default();
        for peer in allowed {
            access.allow_peer(*peer);
        }
        access
    })
}
