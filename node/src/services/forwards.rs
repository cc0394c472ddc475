//! The forwards that there are.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use libp2p::PeerId;
use p2pnode_services::config::{Address, Forward, Listen, What};

use super::{lines::Sink, running::lock};

/// What something keeps by its existence.
pub(super) trait Keeps: Debug + Send + Sync {}

impl<T: Debug + Send + Sync> Keeps for T {}

/// The forwards of this node, by number.
#[derive(Debug, Default)]
pub(super) struct Forwards(pub(super) BTreeMap<u64, Entry>);

/// A forward that listens.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) forward: Forward,
    pub(super) shared: Arc<Shared>,
    pub(super) is_configured: bool,
    /// Paths to its peers are kept.
    pub(super) wishes: Vec<Box<dyn Keeps>>,
    /// What takes clients, or datagrams.
    pub(super) _listener: Box<dyn Keeps>,
}

/// Where a forward leads, in the order in which it is tried.
pub(super) type Route = Arc<[(What, PeerId)]>;

/// What the tasks of a forward share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) number: u64,
    /// Where it listens, with the port that the system chose.
    pub(super) listen: Listen,
    pub(super) to: Mutex<Route>,
    pub(super) sessions: AtomicUsize,
    /// The forward is gone: no further peer is tried.
    pub(super) is_gone: AtomicBool,
    pub(super) sink: Option<Sink>,
}

/// A forward cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: {source}: {}", remedy(.source))]
pub(crate) struct ForwardError {
    pub(super) listen: Listen,
    pub(super) source: io::Error,
}

impl ForwardError {
    /// The same for another listener.
    pub(super) fn of_tcp(at: std::net::SocketAddr, source: io::Error) -> Self {
        let listen = Address::Tcp(at.ip(), at.port());
        Self { listen, source }
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "few kinds have a remedy of their own"
)]
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop the other process, or choose another address",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, and a Unix socket a directory that this user may write: choose another address"
        }
        io::ErrorKind::AddrNotAvailable => "this host has no such address",
        io::ErrorKind::InvalidInput => {
            "its ports are for dialing and punching: choose a port outside it"
        }
        io::ErrorKind::NotFound => "make its directory first",
        io::ErrorKind::AlreadyExists => {
            "a file that is no socket is there: move it away, or choose another path"
        }
        _ => "choose another address",
    }
}

impl Forwards {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.0.values()
    }

    /// The forward is gone before its sessions end: no further peer is tried. The caller drops it without the lock.
    pub(super) fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.0.remove(&number)?;
        entry.shared.is_gone.store(true, Relaxed);
        Some(entry)
    }

    /// All of them.
    pub(super) fn take(&mut self) -> Vec<Entry> {
        let numbers: Vec<_> = self.0.keys().copied().collect();
        numbers.iter().filter_map(|it| self.remove(*it)).collect()
    }
}

impl Shared {
    pub(super) fn route(&self) -> Route {
        Arc::clone(&lock(&self.to))
    }

    pub(super) fn lead_to(&self, to: &[(What, PeerId)]) {
        *lock(&self.to) = to.into();
    }

    /// What it brings, as it is written.
    pub(super) fn to(&self) -> String {
        let route = self.route();
        let to = route.iter().map(|(what, peer)| format!("{what}@{peer}"));
        to.collect::<Vec<_>>().join(", ")
    }
}
