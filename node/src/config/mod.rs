//! The resolved configuration: the values in force after flags, environment, file and defaults are merged and checked.
//!
//! [`Config::read`] describes each key once: its meaning, its kind and its default. [`p2pnode_daemon::config`] merges the
//! sources and collects the faults. Nothing here opens a socket or reads a clock.

mod checks;
mod host;
mod keys;
mod kinds;
mod mapping;
mod punch;
mod service;
mod share;
mod target;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_daemon::{
    config::{Program, placeholder},
    identity, logging,
};
use p2pnode_services::config::{Known, Services};
use p2pnode_transports::{Congestion, FamilyPolicy, PortRange};

pub(crate) use checks::in_dial_range;
pub(crate) use keys::Purpose;
pub(crate) use mapping::{Dns, Expose, MappingMode, Mappings, PUNCH, Publish};
pub(crate) use punch::{AdvertiseTemplate, PunchFilter};
pub(crate) use service::Service;
pub(crate) use target::{Names, Target, check_not_own, peer_of_address};

/// The names of the program: variables begin with `P2PNODE_`.
pub(crate) const PROGRAM: Program = Program {
    name: "p2pnode",
    env: "P2PNODE",
};

/// Everything that a node needs to know before it binds its first socket. See `p2pnode config schema` for its keys.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the node's key comes from.
    pub(crate) key: Key,
    /// Public listen addresses; empty: only the punch sockets and circuits accept.
    pub(crate) listen: Vec<Multiaddr>,
    /// How the node dials.
    pub(crate) dial: Dial,
    /// The relays, in the order given.
    pub(crate) relays: Vec<RelayAddr>,
    /// How many relays to hold a reservation on at once.
    pub(crate) reservations: usize,
    /// Hole punching.
    pub(crate) punch: Punch,
    /// Port mappings of the router.
    pub(crate) mappings: Mappings,
    /// Where dials look for peers before they ask a relay.
    pub(crate) discovery: Discovery,
    /// Peers known by name.
    pub(crate) peers: BTreeMap<String, KnownPeer>,
    /// What is offered to other nodes, and what is brought here.
    pub(crate) services: Services,
    /// Who may connect; empty: any peer.
    pub(crate) allowed_peers: BTreeSet<PeerId>,
    /// File of the join tokens that relays require; `None`: there are none.
    pub(crate) token_file: Option<PathBuf>,
    /// Address of the admin HTTP server; `None`: no server.
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Names under which it answers, besides IP addresses and `localhost`.
    pub(crate) admin_hosts: Vec<String>,
    /// Whether it has a page.
    pub(crate) admin_page: bool,
    /// Path of the control socket.
    pub(crate) control_socket: PathBuf,
    /// Bytes of resident memory above which no new connection is taken, and those are closed that hold the most; 0: no limit.
    pub(crate) memory: u64,
    /// Logging.
    pub(crate) log: Log,
}

/// Where the node's key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// A file, made with mode 0600 if there is none.
    File(PathBuf),
    /// A fresh key that is never stored.
    Throwaway {
        /// The configured file: of the node that runs with the same configuration.
        configured: Option<PathBuf>,
    },
}

impl Key {
    /// The file: also of the node that runs with the same configuration.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Throwaway { configured } => configured.as_deref(),
        }
    }

    /// The id of the key in the file, if there is one that this user may read.
    pub(crate) fn id(&self) -> Option<PeerId> {
        let key = identity::load(self.file()?).ok()?;
        Some(key.public().to_peer_id())
    }
}

/// What services and forwards may name, besides the names of peers.
pub(crate) fn known(own: Option<PeerId>) -> Known {
    Known {
        own,
        addresses: host::own_ip4(),
        ..Known::default()
    }
}

/// How the node dials.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    /// The source ports that packets may leave from.
    pub port_range: PortRange,
    /// The range that several nodes share: `port_range` is a part of it, or all of it.
    pub shared_range: PortRange,
    /// Whether `shared_range` is to be divided and it is unknown which part is this node's: only where no port is bound.
    pub lacks_ordinal: bool,
    /// Which IP families to use, and which to prefer.
    pub family: FamilyPolicy,
    /// How fast QUIC sends.
    pub congestion: Congestion,
    /// Dial over QUIC.
    pub quic: bool,
    /// Dial over TCP.
    pub tcp: bool,
}

/// One address of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelayAddr {
    /// The relay's peer id.
    pub peer: PeerId,
    /// Its transport address, without the `/p2p` suffix.
    pub addr: Multiaddr,
}

/// Hole punching.
#[derive(Debug, Clone)]
pub(crate) struct Punch {
    /// Whether to punch at all.
    pub enabled: bool,
    /// Addresses to advertise in addition to the observed ones; `{port}` stands for the punch port.
    pub advertise: Vec<AdvertiseTemplate>,
    /// If not empty, only candidates that match one of these are sent and dialed.
    pub allow: Vec<PunchFilter>,
    /// Candidates that match one of these are neither sent nor dialed.
    pub deny: Vec<PunchFilter>,
    /// Whether to search for a pair of ports where a punch fails because of a symmetric NAT.
    pub search: bool,
    /// When direct paths leave a port of which the NAT drops the mapping by age.
    pub rotate: Rotate,
}

/// When direct paths leave a port of which the NAT drops the mapping by age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Rotate {
    /// Never.
    Off,
    /// As a relay sees mappings end.
    #[default]
    Auto,
    /// Mappings end at this age.
    After(Duration),
}

/// Where dials look for peers before they ask a relay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Discovery {
    /// Services of which each address may be the peer's.
    pub dns: Vec<Service>,
    /// Multicast DNS on the links of this host.
    pub mdns: Mdns,
}

/// What a node does with multicast DNS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mdns {
    /// Nothing.
    #[default]
    Off,
    /// It asks for the peers that it dials.
    Ask,
    /// It answers as well, so that others find it.
    AskAndAnswer,
}

impl Discovery {
    /// Whether dials look nowhere.
    #[must_use]
    pub(crate) fn is_off(&self) -> bool {
        self.dns.is_empty() && self.mdns == Mdns::Off
    }
}

/// A peer known by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownPeer {
    /// Its id.
    pub id: PeerId,
    /// Addresses to try before any circuit, without the `/p2p` suffix.
    pub addrs: Vec<Multiaddr>,
}

/// Logging, to stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// What is logged.
    pub level: logging::Filter,
    /// How lines look.
    pub format: logging::Format,
}

impl Config {
    /// What is worth a warning, one line each.
    #[must_use]
    pub(crate) fn warnings(&self) -> Vec<String> {
        let relays = self.relays.iter().map(|relay| ("relays", &relay.addr));
        let peers = self.peers.values().flat_map(|peer| &peer.addrs);
        let mut warnings =
            placeholder::warnings(relays.chain(peers.map(|address| ("peers", address))));
        if self.dial.lacks_ordinal {
            warnings.push(
                "dial.ordinal is not set: `run` needs the number of its node, which a pod gives as P2PNODE_DIAL_ORDINAL"
                    .to_owned(),
            );
        }
        warnings.extend(self.mappings.publish.warnings());
        warnings
    }
}

impl Config {
    /// The addresses of the peers that have a name.
    #[must_use]
    pub(crate) fn peer_addrs(&self) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        let peers = self.peers.values();
        peers.map(|peer| (peer.id, peer.addrs.clone())).collect()
    }

    /// The peers that have a name.
    #[must_use]
    pub(crate) fn peer_names(&self) -> p2pnode_services::config::Peers {
        self.names().peers()
    }
}

impl Punch {
    /// Whether a candidate may be sent and dialed: some `allow` matches it, or there is none, and no `deny` does.
    #[must_use]
    pub(crate) fn permits(&self, candidate: &Multiaddr) -> bool {
        let matches =
            |filters: &[PunchFilter]| filters.iter().any(|filter| filter.matches(candidate));
        (self.allow.is_empty() || matches(&self.allow)) && !matches(&self.deny)
    }

    /// Whether some `allow` names a private network, or this host, and matches the candidate.
    #[must_use]
    pub(crate) fn names(&self, candidate: &Multiaddr) -> bool {
        let mut private = self.allow.iter().filter(|filter| filter.is_private());
        private.any(|filter| filter.matches(candidate))
    }
}

impl std::fmt::Display for RelayAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/p2p/{}", self.addr, self.peer)
    }
}
