//! Which punches are expected, and which inbound TCP connections belong to a waiting dial.
//!
//! Both sides dial a TCP punch. If one SYN arrives before the other is sent, the listener on the punch port takes it, and the dial
//! finds its 4-tuple in use. If a NAT mapped another port for the remote, the dial fails and the connection that comes in is the
//! punch. In both cases the dial needs what the listener accepted. Otherwise both sides could take the role of the listener, and
//! each would wait for the other's first bytes.

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{channel::mpsc, task::AtomicWaker};
use libp2p::{core::transport::ListenerId, multiaddr::Multiaddr, tcp};

use crate::net::connection::Connection;

/// How many connections may wait for their dial to begin, and how many one dial may choose from. A punch makes one or two; any
/// more come from another host.
const PARKED: usize = 16;
const PER_DIAL: usize = 4;

/// Where a connection came in.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) listener: ListenerId,
    pub(crate) local: SocketAddr,
    pub(crate) local_addr: Multiaddr,
    pub(crate) remote: SocketAddr,
    pub(crate) remote_addr: Multiaddr,
}

/// A connection that came in on the punch port.
pub(crate) struct Inbound {
    pub(crate) origin: Origin,
    pub(crate) stream: tcp::tokio::TcpStream,
}

/// A connection that was kept for a dial and turns out to be an ordinary inbound one.
pub(crate) enum Returned {
    Stream(Inbound),
    /// Authenticated already, as another peer than the dial wanted.
    Connection(Origin, Connection),
}

#[derive(Default)]
pub(crate) struct Punches {
    table: Mutex<Table>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    expected: Vec<Expected>,
    waiting: Vec<Waiting>,
    parked: Vec<Inbound>,
    returned: VecDeque<Returned>,
}

/// What is known of the remote of a TCP punch before it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// It supports TLS: it uses a protocol of p2pnode, which requires that.
    TakesTls,
    /// Nothing. The negotiation of TLS or Noise costs a round trip.
    Unknown,
    /// Not even that it is there: the address may be a third party's. It gets one first packet, which is not repeated until
    /// something comes back.
    Unvouched,
}

struct Expected {
    id: u64,
    remote: Remote,
    /// The TCP addresses.
    remotes: Vec<SocketAddr>,
    /// The QUIC addresses. QUIC connections from there need no sorting.
    quic: Vec<SocketAddr>,
    /// Connections are parked only for a dial that has yet to begin.
    dialed: bool,
}

struct Waiting {
    id: u64,
    remote: SocketAddr,
    sender: mpsc::Sender<Inbound>,
}

impl Punches {
    pub(crate) fn expect(
        this: &Arc<Self>,
        remotes: Vec<SocketAddr>,
        quic: Vec<SocketAddr>,
        remote: Remote,
    ) -> PunchGuard {
        let mut table = this.lock();
        let id = table.next_id();
        table.expected.push(Expected {
            id,
            remote,
            remotes,
            quic,
            dialed: false,
        });
        PunchGuard {
            punches: Arc::clone(this),
            id,
        }
    }

    /// What the guards that live for this TCP address know: the most that any of them does.
    pub(crate) fn is_expected(&self, remote: SocketAddr) -> Option<Remote> {
        self.known(remote, |expected| &expected.remotes)
    }

    /// The same of a QUIC address.
    pub(crate) fn is_expected_over_quic(&self, remote: SocketAddr) -> Option<Remote> {
        self.known(remote, |expected| &expected.quic)
    }

    fn known(
        &self,
        remote: SocketAddr,
        list: impl Fn(&Expected) -> &Vec<SocketAddr>,
    ) -> Option<Remote> {
        let table = self.lock();
        let guards = table.expected.iter();
        let guards = guards.filter(|e| list(e).iter().any(|r| same_socket(*r, remote)));
        guards.map(|e| e.remote).min()
    }

    /// Registers a dial of `remote` that an inbound connection may complete.
    pub(crate) fn wait(this: &Arc<Self>, remote: SocketAddr) -> Wait {
        let (sender, receiver) = mpsc::channel(PER_DIAL);
        let mut table = this.lock();
        let id = table.next_id();
        for expected in &mut table.expected {
            expected.dialed |= expected.remotes.iter().any(|r| r.ip() == remote.ip());
        }
        table.waiting.push(Waiting { id, remote, sender });
        // Connections that came before their dial.
        for inbound in std::mem::take(&mut table.parked) {
            if let Some(other) = table.hand_over(inbound) {
                table.parked.push(other);
            }
        }
        Wait {
            punches: Arc::clone(this),
            id,
            inbound: receiver,
        }
    }

    /// Takes the connection if it belongs to a dial; otherwise returns it.
    pub(crate) fn offer(&self, inbound: Inbound) -> Option<Inbound> {
        let mut table = self.lock();
        let inbound = table.hand_over(inbound)?;
        if table.parked.len() < PARKED && table.is_awaited(inbound.origin.remote) {
            table.parked.push(inbound);
            return None;
        }
        Some(inbound)
    }

    /// Gives a connection to the swarm.
    pub(crate) fn give_back(&self, returned: Returned) {
        self.lock().returned.push_back(returned);
        self.waker.wake();
    }

    /// The next connection for the swarm.
    pub(crate) fn poll_returned(&self, cx: &Context<'_>) -> Poll<Returned> {
        self.waker.register(cx.waker());
        self.lock()
            .returned
            .pop_front()
            .map_or(Poll::Pending, Poll::Ready)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock, and no state is half written if it did.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends the connection to the dial of its address, otherwise to a dial of its IP.
    fn hand_over(&mut self, mut inbound: Inbound) -> Option<Inbound> {
        let remote = inbound.origin.remote;
        let exact = |w: &Waiting| same_socket(w.remote, remote);
        let same_ip = |w: &Waiting| w.remote.ip() == remote.ip() && !exact(w);
        let exact_first = self.waiting.iter().filter(|w| exact(w));
        let order: Vec<u64> = exact_first
            .chain(self.waiting.iter().filter(|w| same_ip(w)))
            .map(|w| w.id)
            .collect();
        for id in order {
            let Some(waiting) = self.waiting.iter_mut().find(|w| w.id == id) else {
                continue;
            };
            match waiting.sender.try_send(inbound) {
                Ok(()) => return None,
                Err(full) => inbound = full.into_inner(),
            }
        }
        Some(inbound)
    }

    /// Whether a punch from there is expected and has not been dialed yet.
    fn is_awaited(&self, remote: SocketAddr) -> bool {
        let undialed = self.expected.iter().filter(|e| !e.dialed);
        undialed
            .flat_map(|e| &e.remotes)
            .any(|r| r.ip() == remote.ip())
    }
}

/// Flow label and scope of an IPv6 socket address do not identify the remote.
fn same_socket(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() && a.port() == b.port()
}

/// A dial that an inbound connection may complete.
pub(crate) struct Wait {
    punches: Arc<Punches>,
    id: u64,
    pub(crate) inbound: mpsc::Receiver<Inbound>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.punches.lock().waiting.retain(|w| w.id != self.id);
        self.inbound.close();
        while let Ok(inbound) = self.inbound.try_recv() {
            self.punches.give_back(Returned::Stream(inbound));
        }
    }
}

/// A punch that is expected as long as this lives. See [`Handle::expect_punch`](crate::Handle::expect_punch).
#[must_use = "the punch is expected only as long as the guard lives"]
pub struct PunchGuard {
    punches: Arc<Punches>,
    id: u64,
}

impl Drop for PunchGuard {
    fn drop(&mut self) {
        let mut table = self.punches.lock();
        table.expected.retain(|e| e.id != self.id);
        let parked = std::mem::take(&mut table.parked);
        let (keep, free): (Vec<_>, Vec<_>) = parked
            .into_iter()
            .partition(|p| table.is_awaited(p.origin.remote));
        table.parked = keep;
        table
            .returned
            .extend(free.into_iter().map(Returned::Stream));
        drop(table);
        self.punches.waker.wake();
    }
}

impl fmt::Debug for PunchGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PunchGuard").finish_non_exhaustive()
    }
}
