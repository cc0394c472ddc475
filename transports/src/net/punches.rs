//! Which punches are expected, and which inbound TCP connections belong to a waiting dial.
//!
//! A TCP punch is dialed from both ends. Where one SYN arrives before the other is sent, the listener on the punch port takes
//! it, and the dial finds its four numbers in use; where a NAT gave the remote another port, the dial goes nowhere and the
//! connection that comes in is the punch. Either way the dial and the listener have to meet: two ends that both took the
//! connection from their listener would both wait for the other to speak.

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

/// How many connections may wait for their dial to begin, and how many one dial may have to choose from: a punch makes one or
/// two; more come from somebody else.
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

/// A connection that was kept for a dial, and is an ordinary inbound one after all.
pub(crate) enum Returned {
    Stream(Inbound),
    /// Authenticated already, as a peer that the dial did not want.
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

/// What is known of the remote of a TCP punch before it has said a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// It takes TLS: it speaks a protocol of ours, which asks that of whoever speaks it.
    TakesTls,
    /// Nothing. What it takes is asked of it, which costs a round trip.
    Unknown,
}

struct Expected {
    id: u64,
    remote: Remote,
    /// The TCP addresses.
    remotes: Vec<SocketAddr>,
    /// The QUIC addresses. What comes in from there needs no sorting.
    quic: Vec<SocketAddr>,
    /// Connections are parked for a dial that has yet to begin, not after it.
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

    /// Whether a guard lives for this address.
    pub(crate) fn is_expected(&self, remote: SocketAddr) -> bool {
        self.lock()
            .expected
            .iter()
            .any(|e| e.remotes.iter().any(|r| same_socket(*r, remote)))
    }

    /// Whether a guard lives for this address that knows that the remote takes TLS.
    pub(crate) fn takes_tls(&self, remote: SocketAddr) -> bool {
        let table = self.lock();
        let mut known = table
            .expected
            .iter()
            .filter(|e| e.remote == Remote::TakesTls);
        known.any(|e| e.remotes.iter().any(|r| same_socket(*r, remote)))
    }

    /// Whether a guard lives for this QUIC address.
    pub(crate) fn is_expected_over_quic(&self, remote: SocketAddr) -> bool {
        self.lock()
            .expected
            .iter()
            .any(|e| e.quic.iter().any(|r| same_socket(*r, remote)))
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
        // Those that came too early, now that there is a dial for them.
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

    /// Takes the connection where it belongs to a dial, or gives it back.
    pub(crate) fn offer(&self, inbound: Inbound) -> Option<Inbound> {
        let mut table = self.lock();
        let inbound = table.hand_over(inbound)?;
        if table.parked.len() < PARKED && table.is_awaited(inbound.origin.remote) {
            table.parked.push(inbound);
            return None;
        }
        Some(inbound)
    }

    /// Gives a connection to the swarm after all.
    pub(crate) fn give_back(&self, returned: Returned) {
        self.lock().returned.push_back(returned);
        self.waker.wake();
    }

    /// The next connection that is an ordinary one after all.
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

    /// Sends the connection to the dial of its very address, else to one of its IP.
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

/// Flow label and scope of an IPv6 socket address say nothing about who it is.
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
