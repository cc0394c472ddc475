//! Interim: the resolved configuration, until the real one is here.
#![allow(missing_docs)]

use std::{net::SocketAddr, time::Duration};

use libp2p::{Multiaddr, PeerId, identity::Keypair};

#[derive(Debug, Clone)]
pub struct Config {
    pub key: Keypair,
    pub listen: Vec<Multiaddr>,
    pub external: Vec<Multiaddr>,
    pub limits: Limits,
    pub access: Access,
    pub admin: Option<SocketAddr>,
}

#[derive(Debug, Clone)]
pub struct Limits {
    pub reservations: usize,
    pub reservations_per_peer: usize,
    pub reservation_duration: Duration,
    pub circuits: usize,
    pub circuits_per_peer: usize,
    pub circuit_duration: Duration,
    pub circuit_bytes: u64,
    pub connections: u32,
    pub connections_per_peer: u32,
    pub pending_connections: u32,
}

#[derive(Debug, Clone, Default)]
pub struct Access {
    pub allow: Vec<PeerId>,
}
