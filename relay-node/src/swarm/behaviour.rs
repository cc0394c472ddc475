//! The protocols of the relay: composition only.

use std::time::Duration;

use libp2p::{identify, identity::Keypair, swarm::NetworkBehaviour};

use p2pnode_protocol::{
    autonat::Autonat,
    directory, draining,
    exchange::{self, Never},
    hop::Hop,
    introduction::{Introduce, Notify},
    join::Join,
    ping::{self, Pace},
    probe::Probe,
    shared_key::SharedKey,
};
use p2pnode_transports::{Budgets, Displacer};

use crate::{
    config::Limits,
    core::Request,
    observe::metrics::Carried,
    swarm::{
        circuit, gate,
        gated::{Gate, Gated},
        keep_alive,
        shared_state::SharedState,
    },
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

/// Requests for nonces at once on one connection.
const PROBES: usize = 8;

/// Dials back at once on one connection.
const DIAL_BACKS: usize = 4;

/// Tokens at once on one connection. A node presents one on each, and another one when its file changes.
const TOKENS: usize = 2;

/// All protocols. What refuses comes first, so that no other sees a connection that is refused.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) gate: gate::Behaviour,
    pub(crate) join: Gated<exchange::Behaviour<Join>>,
    pub(crate) relay: Gated<circuit::Behaviour>,
    pub(crate) keep_alive: keep_alive::Behaviour,
    pub(crate) draining: Gated<draining::Behaviour>,
    pub(crate) shared_key: exchange::Behaviour<Never, SharedKey>,
    pub(crate) hop: Gated<exchange::Behaviour<Hop>>,
    pub(crate) introduction: Gated<exchange::Behaviour<Introduce, Notify>>,
    pub(crate) probe: Gated<exchange::Behaviour<Probe>>,
    pub(crate) autonat: Gated<exchange::Behaviour<Autonat>>,
    pub(crate) identify: Gated<identify::Behaviour>,
    pub(crate) ping: ping::Behaviour,
    pub(crate) directory: Gated<directory::Behaviour>,
}

impl Behaviour {
    /// The behaviours within `limits`, for peers that `state` admits; circuits count bytes in `carried`, and `displacer` ends
    /// handshakes. `budgets` know what arrives on each connection.
    pub(crate) fn new(
        key: &Keypair,
        limits: &Limits,
        state: &SharedState,
        carried: Carried,
        displacer: Displacer,
        budgets: Budgets,
    ) -> Self {
        let local = key.public().to_peer_id();
        let open = |request| Gate::open(state, request);
        let admitted = |request| Gate::admitted(state, request);
        Self {
            gate: gate::Behaviour::new(state.clone(), displacer),
            join: Gated::new(exchange::Behaviour::new(TOKENS), open(Request::Join)),
            relay: Gated::new(
                circuit::Behaviour::new(limits, carried),
                open(Request::CircuitStream),
            ),
            keep_alive: keep_alive::Behaviour::default(),
            draining: Gated::new(draining::Behaviour::default(), open(Request::Draining)),
            shared_key: exchange::Behaviour::new(1),
            hop: Gated::new(
                exchange::Behaviour::new(HOP_REQUESTS),
                admitted(Request::Hop),
            ),
            introduction: Gated::new(
                exchange::Behaviour::new(INTRODUCTIONS),
                admitted(Request::Introduction),
            ),
            probe: Gated::new(exchange::Behaviour::new(PROBES), admitted(Request::Probe)),
            autonat: Gated::new(
                exchange::Behaviour::new(DIAL_BACKS),
                admitted(Request::Autonat),
            ),
            identify: Gated::new(
                identify::Behaviour::new(
                    identify::Config::new(PROTOCOL_VERSION.to_owned(), key.public())
                        .with_agent_version(AGENT.to_owned())
                        // Peers are to use the external addresses; the others are this host's own business.
                        .with_hide_listen_addrs(true)
                        // The relay dials only other relays, at configured addresses, so it need not remember where peers are.
                        .with_cache_size(0),
                ),
                open(Request::Identify),
            ),
            ping: ping::Behaviour::new(|_, _| PACE)
                .with_signs(move |peer, remote| budgets.signs_of_life(peer, remote)),
            // How many records there are, the state bounds.
            directory: Gated::new(
                directory::Behaviour::server(local),
                admitted(Request::Directory).with_reports(),
            ),
        }
    }
}
