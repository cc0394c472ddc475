//! The protocols of the relay: composition only.

use std::time::Duration;

use libp2p::{identify, identity::Keypair, swarm::NetworkBehaviour};

use p2pnode_protocol::{
    directory, draining,
    hop::Hop,
    introduction::{Introduce, Notify},
    join::Join,
    ping::{self, Pace},
};
use p2pnode_transports::Displacer;

use crate::{
    config::Limits,
    observe::metrics::Carried,
    swarm::{circuit, exchange, gate, gated::Gated, keep_alive, shared_state::SharedState},
};

/// Which software peers talk to; libp2p compares it with nothing.
const PROTOCOL_VERSION: &str = "/p2pnode/1";

/// The name and version that identify sends.
const AGENT: &str = concat!("relay-node/", env!("CARGO_PKG_VERSION"));

/// Each connection is pinged this often, which also keeps the mappings of NATs on the way: RFC 4787 REQ-5 lets them drop an
/// idle UDP mapping after two minutes, and many do after 30 s. One that answers none in this time, twice in a row, is dead:
/// TCP by itself would not notice.
const PACE: Pace = Pace {
    interval: Duration::from_secs(15),
    timeout: Duration::from_secs(10),
};

/// Requests for the other leg of a circuit at once on one connection. A node has one for each circuit that opens, and asks again
/// later if one is dropped.
const HOP_REQUESTS: usize = 32;

/// Requests for introductions at once on one connection, and introductions that are sent.
const INTRODUCTIONS: usize = 32;

/// Tokens at once on one connection. A node presents one on each, and another one when its file changes.
const TOKENS: usize = 2;

/// All protocols. What refuses comes first, so that no other sees a connection that is refused.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) gate: gate::Behaviour,
    pub(crate) join: exchange::Behaviour<Join>,
    pub(crate) relay: circuit::Behaviour,
    pub(crate) keep_alive: keep_alive::Behaviour,
    pub(crate) draining: draining::Behaviour,
    pub(crate) hop: Gated<exchange::Behaviour<Hop>>,
    pub(crate) introduction: Gated<exchange::Behaviour<Introduce, Notify>>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) directory: Gated<directory::Behaviour>,
}

impl Behaviour {
    /// The behaviours within `limits`, for peers that `state` admits; circuits count bytes in `carried`, and `displacer` ends
    /// handshakes.
    pub(crate) fn new(
        key: &Keypair,
        limits: &Limits,
        state: &SharedState,
        carried: Carried,
        displacer: Displacer,
    ) -> Self {
        let local = key.public().to_peer_id();
        Self {
            gate: gate::Behaviour::new(state.clone(), displacer),
            join: exchange::Behaviour::new(TOKENS),
            relay: circuit::Behaviour::new(limits, carried),
            keep_alive: keep_alive::Behaviour::default(),
            draining: draining::Behaviour::default(),
            hop: Gated::new(exchange::Behaviour::new(HOP_REQUESTS), state.clone()),
            introduction: Gated::new(exchange::Behaviour::new(INTRODUCTIONS), state.clone()),
            identify: identify::Behaviour::new(
                identify::Config::new(PROTOCOL_VERSION.to_owned(), key.public())
                    .with_agent_version(AGENT.to_owned())
                    // Peers are to use the external addresses; the others are this host's own business.
                    .with_hide_listen_addrs(true)
                    // The relay dials only other relays, at configured addresses, so it need not remember where peers are.
                    .with_cache_size(0),
            ),
            ping: ping::Behaviour::new(|_, _| PACE),
            // How many records there are, the state bounds.
            directory: Gated::new(directory::Behaviour::server(local), state.clone()),
        }
    }
}
