//! The resolved configuration: what is in force after flags, environment, file and defaults were merged and checked.
//! It opens no socket and reads no clock.
//!
//! [`Config::read`] describes each key, once; the rest of it is [`p2pnode_daemon::config`].

pub(crate) mod reload;

mod access;
mod keys;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_daemon::{
    config::{Program, placeholder},
    logging,
};
use p2pnode_protocol::join::TokenId;

/// The names of the program: variables begin with `RELAY_NODE_`.
pub const PROGRAM: Program = Program {
    name: "relay-node",
    env: "RELAY_NODE",
};

/// Everything a relay needs to know before it binds its first socket.
#[derive(Debug, Clone)]
pub struct Config {
    /// File of the relay's key, made with mode 0600 if there is none.
    pub key_file: PathBuf,
    /// Addresses to listen on.
    pub listen: Listen,
    /// Addresses at which peers reach the relay, where it cannot know them from its interfaces.
    pub external: Vec<Multiaddr>,
    /// The other relays, by peer id and address; one may have several addresses.
    pub relays: Vec<(PeerId, Multiaddr)>,
    /// STUN.
    pub stun: Stun,
    /// How much the relay carries.
    pub limits: Limits,
    /// Who may use the relay.
    pub access: Access,
    /// How long circuits may go on once the relay was asked to end; zero: not at all.
    pub drain_timeout: Duration,
    /// Address of the admin HTTP server; `None`: no server.
    pub admin: Option<SocketAddr>,
    /// Names under which it answers, besides IP addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// Whether it has a page.
    pub admin_page: bool,
    /// Path of the control socket; `None` where the host has no place for one and none is given.
    pub control: Option<PathBuf>,
    /// Logging.
    pub log: Log,
}

impl Config {
    /// What is worth a warning, one line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let external = self.external.iter().map(|address| ("external", address));
        let relays = self.relays.iter().map(|(_, address)| ("relays", address));
        placeholder::warnings(external.chain(relays))
    }
}

/// Addresses to listen on.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The addresses; never empty.
    pub addrs: Vec<Multiaddr>,
    /// Whether the user gave them. If not, those of a family that the host lacks are left out; one that was asked for is an
    /// error instead.
    pub given: bool,
}

/// Where STUN is answered, besides the ports of QUIC and TCP.
#[derive(Debug, Clone)]
pub struct Stun {
    /// The second port, over UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Whether the user gave it. If not, an address that cannot be bound is left out.
    pub given: bool,
    /// Addresses of relays that answer for this one on the same ports, and for which it answers.
    pub partners: Vec<IpAddr>,
}

/// How much the relay carries. 0 is no limit, everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Reservations in all.
    pub reservations: usize,
    /// Reservations of one peer.
    pub reservations_per_peer: usize,
    /// Reservations of all peers that come from one place.
    pub reservations_per_source: PerSource,
    /// How long a reservation lasts unless it is renewed.
    pub reservation_duration: Duration,
    /// Circuits in all.
    pub circuits: usize,
    /// Circuits of one peer.
    pub circuits_per_peer: usize,
    /// How long a circuit lasts.
    pub circuit_duration: Duration,
    /// Bytes that a circuit carries, both directions together.
    pub circuit_bytes: u64,
    /// Bytes that all circuits of one peer carry in a second, both directions together.
    pub bytes_per_second_per_peer: u64,
    /// Connections in all.
    pub connections: u32,
    /// Connections of one peer.
    pub connections_per_peer: u32,
    /// Connections from one place.
    pub connections_per_source: PerSource,
    /// Connections whose handshake is not over.
    pub pending_connections: u32,
    /// Records in the directory, including copies from other relays.
    pub records: usize,
    /// Bytes of resident memory above which no new connection is taken, and those are closed that hold the most.
    pub memory: u64,
}

impl Limits {
    /// No limits at all.
    pub const UNLIMITED: Self = {
        let per_source = PerSource { ip4: 0, ip6_net: 0 };
        Self {
            reservations: 0,
            reservations_per_peer: 0,
            reservations_per_source: per_source,
            reservation_duration: Duration::ZERO,
            circuits: 0,
            circuits_per_peer: 0,
            circuit_duration: Duration::ZERO,
            circuit_bytes: 0,
            bytes_per_second_per_peer: 0,
            connections: 0,
            connections_per_peer: 0,
            connections_per_source: per_source,
            pending_connections: 0,
            records: 0,
            memory: 0,
        }
    };
}

/// How many of something peers from one place may have. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerSource {
    /// From an IPv4 address.
    pub ip4: usize,
    /// From an IPv6 /64.
    pub ip6_net: usize,
}

/// Who may use the relay.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// These peers; any if empty, unless there are tokens.
    pub allow: Vec<PeerId>,
    /// Whether peers are admitted that present a join token of this relay.
    pub tokens: bool,
    /// The revoked tokens, including those of the file.
    pub revoked: Vec<TokenId>,
    /// The file that names more of them, one a line.
    pub revoked_file: Option<PathBuf>,
}

/// Logging, to stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// What is logged.
    pub level: logging::Filter,
    /// How lines look.
    pub format: logging::Format,
}
