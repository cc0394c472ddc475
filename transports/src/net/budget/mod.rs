//! How much a remote may make this process hold: bytes that were received and not read, and streams that the remote opened.
//!
//! Each peer has a [`Class`], which the owner of the transport sets by what the peer does. The class bounds every connection of
//! the peer, over TCP, over QUIC and inside circuits. `ledger` counts for connections of yamux, whose own windows are per stream.
//! QUIC has a window for the whole connection, so there the class is that window.

mod account;
mod ledger;
mod opens;
mod room;

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_protocol::{Family, Transport, bucket::Measure};

use crate::net::addr::to_socket_addr;

pub(crate) use account::{Account, Admitted};
pub(crate) use ledger::{Frame, WAITING};
pub(crate) use opens::{Opens, Pause};
pub(crate) use room::Room;

/// What a peer may make this process hold, per connection. The least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nothing is known of the peer. A connection that exceeds the bytes is closed.
    Stranger,
    /// The owner has to do with the peer. A connection that exceeds the bytes is not read until the program has read what is there.
    Known,
    /// The connection carries an application's bytes, or somebody's circuit. Exceeding is as for [`Self::Known`].
    Carrying,
    /// The peer has sessions of services, each on a stream, and the configuration names it. Exceeding is as for [`Self::Known`].
    Serving,
}

impl Class {
    /// The streams that the remote opened and that are in use at once. Others wait.
    #[must_use]
    pub const fn streams(self) -> u32 {
        match self {
            Self::Stranger => 16,
            Self::Known => 256,
            Self::Carrying => 1024,
            // As many sessions as the memory for them admits by default.
            Self::Serving => 16_384,
        }
    }

    /// The bytes that were received and not read.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Stranger => 1 << 20,
            Self::Known => 4 << 20,
            Self::Carrying | Self::Serving => 32 << 20,
        }
    }
}

/// What a connection that carries begins with, of the bytes of its class. It doubles each time that as much was read: a remote whose
/// bytes nobody reads never gets more. One stream of a relay's over QUIC that nobody reads fills half of it.
pub(crate) const CARRYING: u32 = 8 << 20;

impl Class {
    /// The bytes above which a connection is not read on while the process is short of memory: 8 KiB of a stranger's, which is a
    /// message of any protocol.
    pub(crate) const fn bytes_if_short(self) -> u64 {
        self.bytes() as u64 / 128
    }

    /// How often the remote may open a stream. A stranger opens about ten on a new connection, and then one for each request. Sessions
    /// of services are streams, of which a service refuses more than 2,000 a second.
    const fn opens(self) -> Measure {
        let (burst, micros) = match self {
            Self::Stranger => (256, 50_000),
            Self::Known => (2048, 4000),
            Self::Carrying | Self::Serving => (32_768, 250),
        };
        Measure {
            burst,
            period: Duration::from_micros(micros),
        }
    }

    /// The same at a relay, where a stream is a circuit at most.
    const fn opens_at_relay(self) -> Measure {
        match self {
            Self::Stranger => Self::Stranger.opens(),
            Self::Known | Self::Carrying | Self::Serving => Self::Known.opens(),
        }
    }
}

/// How often a peer of a class may open a stream.
pub(crate) type Pace = fn(Class) -> Measure;

/// Why this side has closed a connection that held too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Overuse {
    /// The remote is a stranger and sent more than a stranger may.
    #[error("closed: the peer exceeded the unread bytes or waiting streams of a stranger")]
    Stranger,
    /// The process holds too much, and this connection held the most.
    #[error("closed: the process exceeded its memory, and the connection held the most")]
    Memory,
}

/// The classes of peers, and what their connections hold. Cheap to clone; works from any thread.
#[derive(Clone)]
pub struct Budgets {
    registry: Arc<Mutex<Registry>>,
    room: Room,
}

struct Registry {
    /// The class of peers that have none of their own.
    begin: Class,
    pace: Pace,
    classes: HashMap<PeerId, Class>,
    open: HashMap<PeerId, Vec<Open>>,
    /// Connections over QUIC, by their remote.
    quic: HashMap<SocketAddr, Weak<dyn Budgeted>>,
    /// How many have been opened.
    opened: u64,
}

struct Open {
    /// Older ones have lower numbers.
    number: u64,
    connection: Weak<dyn Budgeted>,
}

impl Open {
    fn is_gone(&self) -> bool {
        self.connection.strong_count() == 0
    }
}

/// What a connection begins with.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) class: Class,
    pub(crate) pace: Pace,
    /// What all connections together may take.
    pub(crate) room: Room,
}

/// A connection that has a budget.
pub(crate) trait Budgeted: Send + Sync {
    fn set_class(&self, class: Class);
    /// The bytes that it holds, about; `None` if it is about to be closed.
    fn held(&self) -> Option<u64>;
    /// There is memory again, for which it may have waited.
    fn read_on(&self) {}
    /// Whether more has arrived since memory is short, and was not read, than may.
    fn holds_much(&self) -> bool {
        false
    }
    /// Closes it: [`Overuse::Memory`].
    fn close(&self);
    /// Its transport and its remote, unless it runs inside another connection.
    fn remote(&self) -> Option<(Transport, SocketAddr)> {
        None
    }
    /// Grows with what shows that its remote hears this side, or has much to say.
    fn signs_of_life(&self) -> u64 {
        0
    }
    /// How many bytes may be in flight on it over QUIC.
    fn congestion_window(&self) -> u64 {
        0
    }
}

/// A connection that was closed, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Largest {
    /// Its peer.
    pub peer: PeerId,
    /// The class of the peer.
    pub class: Class,
    /// What it held, in bytes. Over TCP and in circuits this is exact but for the state of the connection itself. Over QUIC it is an
    /// estimate from what arrived and what was read, at most the window of the class.
    pub held: u64,
}

impl Largest {
    /// What closing it frees, in bytes, about: what it held, and its own state.
    #[must_use]
    pub const fn frees(&self) -> u64 {
        self.held + CONNECTION
    }
}

/// What a connection costs on which nothing is unread: its task, the state of TLS or QUIC, and of the protocols.
const CONNECTION: u64 = 64 << 10;

/// What holds less than this is idle. An idle connection of a stranger is closed after all that are not, the oldest first: an honest
/// stranger soon gets another class. An idle one of somebody else is not closed for want of memory.
const IDLE: u64 = 64 << 10;

impl Budgets {
    /// Every peer begins as `begin`.
    #[must_use]
    pub fn new(begin: Class) -> Self {
        Self {
            registry: Arc::new(Mutex::new(Registry {
                begin,
                pace: Class::opens,
                classes: HashMap::new(),
                open: HashMap::new(),
                quic: HashMap::new(),
                opened: 0,
            })),
            room: Room::unlimited(),
        }
    }

    /// Those of a relay, where every peer begins as [`Class::Stranger`] and a stream is a circuit at most.
    #[must_use]
    pub fn of_relay() -> Self {
        let budgets = Self::new(Class::Stranger);
        budgets.lock().pace = Class::opens_at_relay;
        budgets
    }

    /// From now on a new peer begins as `begin`.
    pub fn begin_as(&self, begin: Class) {
        self.lock().begin = begin;
    }

    /// Sets the class of a peer, for its open connections and for those to come. With [`Class::Stranger`] the peer is as any other.
    pub fn set_class(&self, peer: PeerId, class: Class) {
        let open: Vec<_> = {
            let mut registry = self.lock();
            if class == registry.begin {
                registry.classes.remove(&peer);
            } else {
                registry.classes.insert(peer, class);
            }
            registry.open_with(&peer)
        };
        for connection in open {
            connection.set_class(class);
        }
    }

    /// The class of a peer.
    #[must_use]
    pub fn class(&self, peer: &PeerId) -> Class {
        self.lock().class(peer)
    }

    /// How many bytes all connections hold that were received and not read.
    #[must_use]
    pub fn held(&self) -> u64 {
        let open = self.connections();
        open.iter()
            .filter_map(|(_, _, _, connection)| connection.held())
            .sum()
    }

    /// All connections together may take so many bytes until this is called again; `u64::MAX` is no limit. When they are taken,
    /// connections are read no further that hold more than a small part of their bytes.
    pub fn set_room(&self, bytes: u64) {
        if self.room.set(bytes) {
            for (.., connection) in self.connections() {
                connection.read_on();
            }
        }
    }

    /// Closes connections of strangers until about `bytes` are free: the ones that hold the most, then the oldest. Others, of which
    /// only those that hold something, are closed until `of_others` are free.
    pub fn close(&self, bytes: u64, of_others: u64) -> Vec<Largest> {
        let open = self.connections().into_iter();
        let mut open: Vec<_> = open
            .filter_map(|(number, peer, class, connection)| {
                let held = connection.held()?;
                Some((number, Largest { peer, class, held }, connection))
            })
            .filter(|(_, largest, _)| largest.class == Class::Stranger || largest.held >= IDLE)
            .collect();
        open.sort_by_key(|(number, largest, _)| {
            let held = Reverse(largest.held / IDLE);
            (largest.class != Class::Stranger, held, *number)
        });
        let mut free = 0;
        let closed = open.into_iter().take_while(|(_, largest, _)| {
            let is_due = match largest.class {
                Class::Stranger => free < bytes,
                Class::Known | Class::Carrying | Class::Serving => free < of_others,
            };
            free += largest.frees();
            is_due
        });
        closed
            .map(|(_, largest, connection)| {
                connection.close();
                largest
            })
            .collect()
    }

    /// What grows with signs of life on the open connections with `peer` at `address`. Over QUIC these are acknowledgements and flows
    /// of data. Over TCP they are bytes, whether or not anybody reads them. For a name these are the connections over its transport and family.
    #[must_use]
    pub fn signs_of_life(
        &self,
        peer: &PeerId,
        address: &Multiaddr,
    ) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let (transport, exact) = (Transport::of(address), to_socket_addr(address));
        let family = Family::of(address);
        let is_it = |(of, remote): (Transport, SocketAddr)| {
            transport == Some(of)
                && exact.is_none_or(|exact| exact == remote)
                && family.is_none_or(|family| family == Family::from(remote.ip()))
        };
        let open = self.open_with(peer, is_it);
        let open: Vec<_> = open.iter().map(Arc::downgrade).collect();
        Arc::new(move || {
            let open = open.iter().filter_map(Weak::upgrade);
            open.map(|connection| connection.signs_of_life())
                .fold(0, u64::wrapping_add)
        })
    }

    /// How many bytes may be in flight over QUIC with the peer at this address, as an open connection has found.
    pub(crate) fn congestion_window(&self, peer: &PeerId, ip: IpAddr) -> Option<u64> {
        let is_it = |(of, remote): (_, SocketAddr)| of == Transport::Quic && remote.ip() == ip;
        let open = self.open_with(peer, is_it).into_iter();
        open.map(|connection| connection.congestion_window()).max()
    }

    /// The open connections with `peer` whose transport and remote are wanted.
    fn open_with(
        &self,
        peer: &PeerId,
        is_wanted: impl Fn((Transport, SocketAddr)) -> bool,
    ) -> Vec<Arc<dyn Budgeted>> {
        let mut open: Vec<_> = {
            let registry = self.lock();
            registry.open_with(peer)
        };
        open.retain(|connection| connection.remote().is_some_and(&is_wanted));
        open
    }

    /// A datagram of so many bytes has come over QUIC from this remote. Whether it is to be dropped: while the process is short of
    /// memory, its connection is not read on. The remote sends it again.
    pub(crate) fn drops(&self, remote: SocketAddr, bytes: usize) -> bool {
        self.room.take(bytes as u64);
        if !self.room.is_short() {
            return false;
        }
        let remote = canonical(remote);
        let connection = self.lock().quic.get(&remote).and_then(Weak::upgrade);
        connection.is_some_and(|connection| connection.holds_much())
    }

    /// Registers a connection of `peer` that `make` makes with what the peer may do.
    pub(crate) fn open<B: Budgeted + 'static>(
        &self,
        peer: PeerId,
        make: impl FnOnce(Grant) -> Arc<B>,
    ) -> Arc<B> {
        let mut registry = self.lock();
        let connection = make(Grant {
            class: registry.class(&peer),
            pace: registry.pace,
            room: self.room.clone(),
        });
        registry.opened += 1;
        let number = registry.opened;
        let open = registry.open.entry(peer).or_default();
        open.retain(|other| !other.is_gone());
        let weak: Weak<B> = Arc::downgrade(&connection);
        open.push(Open {
            number,
            connection: weak.clone(),
        });
        if let Some((Transport::Quic, remote)) = connection.remote() {
            registry.quic.insert(remote, weak);
        }
        connection
    }

    /// A connection of `peer` with this remote is gone.
    pub(crate) fn closed(&self, peer: &PeerId, remote: Option<(Transport, SocketAddr)>) {
        let mut registry = self.lock();
        if let Some((Transport::Quic, remote)) = remote
            && let Entry::Occupied(entry) = registry.quic.entry(remote)
            && entry.get().strong_count() == 0
        {
            entry.remove();
        }
        if let Some(open) = registry.open.get_mut(peer) {
            open.retain(|other| !other.is_gone());
            if open.is_empty() {
                registry.open.remove(peer);
            }
        }
    }

    fn connections(&self) -> Vec<(u64, PeerId, Class, Arc<dyn Budgeted>)> {
        let mut registry = self.lock();
        // A stream may have outlived its connection.
        registry.open.retain(|_, open| {
            open.retain(|connection| !connection.is_gone());
            !open.is_empty()
        });
        let open = registry.open.iter().flat_map(|(peer, open)| {
            let class = registry.class(peer);
            open.iter().filter_map(move |open| {
                let connection = open.connection.upgrade()?;
                Some((open.number, *peer, class, connection))
            })
        });
        open.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Nothing panics while it holds the lock.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// IPv4 as itself, and nothing but the address and the port.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl Registry {
    fn open_with(&self, peer: &PeerId) -> Vec<Arc<dyn Budgeted>> {
        let open = self.open.get(peer).into_iter().flatten();
        open.filter_map(|open| open.connection.upgrade()).collect()
    }

    fn class(&self, peer: &PeerId) -> Class {
        self.classes.get(peer).copied().unwrap_or(self.begin)
    }
}

impl fmt::Debug for Budgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budgets").finish_non_exhaustive()
    }
}

/// The registration of a connection, which ends with it.
pub(crate) struct Registered<B: Budgeted + 'static> {
    connection: Option<Arc<B>>,
    peer: PeerId,
    budgets: Budgets,
}

impl<B: Budgeted + 'static> Registered<B> {
    pub(crate) fn new(budgets: &Budgets, peer: PeerId, make: impl FnOnce(Grant) -> Arc<B>) -> Self {
        Self {
            connection: Some(budgets.open(peer, make)),
            peer,
            budgets: budgets.clone(),
        }
    }
}

impl<B: Budgeted + 'static> std::ops::Deref for Registered<B> {
    type Target = Arc<B>;

    fn deref(&self) -> &Arc<B> {
        self.connection
            .as_ref()
            .expect("it is taken when this is dropped")
    }
}

impl<B: Budgeted + 'static> Drop for Registered<B> {
    fn drop(&mut self) {
        let remote = self.remote();
        self.connection = None;
        self.budgets.closed(&self.peer, remote);
    }
}

#[cfg(test)]
mod tests;
