//! A ledger that the reader of a connection, its multiplexer and its streams share.

use std::{
    io, mem,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use p2pnode_protocol::Transport;

use super::{
    Budgeted, Class, Grant, Opens, Overuse,
    ledger::{Frame, Ledger, Verdict},
    room::Room,
};

/// What a connection of yamux holds, and who waits for it.
#[derive(Debug)]
pub(crate) struct Account {
    inner: Mutex<Inner>,
    /// The remote of the TCP connection, unless it runs inside another one.
    remote: Option<SocketAddr>,
    received: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    opens: Opens,
    /// What all connections together may take.
    room: Room,
    /// Why the connection is to be closed.
    over: Option<Overuse>,
    /// The task of the connection, which waits for streams to be read, for streams to end, or to be closed.
    task: Option<Waker>,
}

/// Whether a stream that the remote opened is used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    Now,
    /// When another ends.
    Later,
    /// At this time.
    At(Instant),
}

impl Account {
    pub(crate) fn new(grant: Grant, remote: Option<SocketAddr>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                ledger: Ledger::new(grant.class),
                opens: Opens::new(grant.pace, grant.class, now()),
                room: grant.room,
                over: None,
                task: None,
            }),
            remote,
            received: AtomicU64::new(0),
        }
    }

    /// So many bytes have arrived.
    pub(crate) fn received_more(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Why the connection is to be closed. Wakes the task if that comes about later.
    pub(crate) fn over(&self, cx: &Context<'_>) -> Option<Overuse> {
        let mut inner = self.lock();
        inner.wait(cx);
        inner.over
    }

    /// Whether more is read. In the middle of a frame (`is_within`) only the stranger waits, whose peer may have announced a large one.
    pub(crate) fn poll_read_on(&self, is_within: bool, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        inner.judge()?;
        if is_within && inner.ledger.class != Class::Stranger || !inner.is_waiting() {
            return Poll::Ready(Ok(()));
        }
        inner.wait(cx);
        Poll::Pending
    }

    pub(crate) fn begins(&self, frame: Frame) -> io::Result<()> {
        let mut inner = self.lock();
        inner.ledger.begins(frame);
        inner.room.take(Ledger::cost(frame));
        inner.judge()
    }

    pub(crate) fn arrived(&self) {
        self.lock().ledger.arrived();
    }

    /// Whether the remote has ended the stream, and all of it has arrived.
    pub(crate) fn has_ended(&self, stream: u32) -> bool {
        self.lock().ledger.has_ended(stream)
    }

    pub(crate) fn opened(&self, stream: u32) {
        self.lock().ledger.opened(stream);
    }

    /// Whether a stream of the remote may be used. If not, the task is woken when it may.
    pub(crate) fn admit(&self, stream: u32, cx: &Context<'_>) -> Admitted {
        let mut inner = self.lock();
        let now = now();
        inner.wait(cx);
        if !inner.ledger.admits() {
            return Admitted::Later;
        }
        if let Some(at) = inner.opens.wait(now) {
            return Admitted::At(at);
        }
        inner.opens.used(now);
        inner.ledger.uses(stream);
        Admitted::Now
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.lock().ledger.is_crowded()
    }

    pub(crate) fn read(&self, stream: u32, bytes: usize) {
        let mut inner = self.lock();
        let waited = inner.is_waiting();
        inner.ledger.read(stream, bytes);
        inner.wake_if(waited);
    }

    pub(crate) fn dropped(&self, stream: u32) {
        let mut inner = self.lock();
        let waited = inner.is_waiting() || !inner.ledger.admits();
        inner.ledger.dropped(stream);
        inner.wake_if(waited);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock of the runtime, which tests stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Inner {
    fn judge(&mut self) -> io::Result<()> {
        if self.ledger.verdict(false) == Verdict::Close {
            self.over.get_or_insert(Overuse::Stranger);
        }
        self.over.map_or(Ok(()), |over| Err(io::Error::other(over)))
    }

    fn is_waiting(&self) -> bool {
        self.ledger.verdict(self.room.is_short()) == Verdict::Wait
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.task {
            Some(task) => task.clone_from(cx.waker()),
            None => self.task = Some(cx.waker().clone()),
        }
    }

    fn wake_if(&mut self, waited: bool) {
        if waited && let Some(task) = mem::take(&mut self.task) {
            task.wake();
        }
    }
}

impl Budgeted for Account {
    fn set_class(&self, class: Class) {
        let mut inner = self.lock();
        inner.ledger.class = class;
        inner.opens.set_class(class, now());
        inner.wake_if(true);
    }

    fn held(&self) -> Option<u64> {
        let inner = self.lock();
        inner.over.is_none().then(|| inner.ledger.held())
    }

    fn read_on(&self) {
        self.lock().wake_if(true);
    }

    fn remote(&self) -> Option<(Transport, SocketAddr)> {
        self.remote.map(|remote| (Transport::Tcp, remote))
    }

    fn signs_of_life(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn close(&self) {
        let mut inner = self.lock();
        inner.over.get_or_insert(Overuse::Memory);
        inner.wake_if(true);
    }
}
