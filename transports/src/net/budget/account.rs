//! A ledger that the reader of a connection, its multiplexer and its streams share.

use std::{
    io, mem,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use p2pnode_protocol::Transport;

use super::{
    Budgeted, Class, Overuse,
    ledger::{Frame, Ledger, Verdict},
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
}

impl Account {
    pub(crate) fn new(class: Class, remote: Option<SocketAddr>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                ledger: Ledger::new(class),
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

    /// Whether one more frame is read.
    pub(crate) fn poll_read_on(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        inner.judge()?;
        match inner.ledger.verdict() {
            Verdict::Wait => {
                inner.wait(cx);
                Poll::Pending
            }
            Verdict::Read | Verdict::Close => Poll::Ready(Ok(())),
        }
    }

    pub(crate) fn begins(&self, frame: Frame) -> io::Result<()> {
        let mut inner = self.lock();
        inner.ledger.begins(frame);
        inner.judge()
    }

    pub(crate) fn arrived(&self) {
        self.lock().ledger.arrived();
    }

    pub(crate) fn opened(&self, stream: u32) {
        self.lock().ledger.opened(stream);
    }

    /// Whether a stream of the remote may be used. If not, the task is woken when it may.
    pub(crate) fn admit(&self, stream: u32, cx: &Context<'_>) -> Admitted {
        let mut inner = self.lock();
        if inner.ledger.admits() {
            inner.ledger.uses(stream);
            return Admitted::Now;
        }
        inner.wait(cx);
        Admitted::Later
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.lock().ledger.is_crowded()
    }

    pub(crate) fn read(&self, stream: u32, bytes: usize) {
        let mut inner = self.lock();
        let waited = inner.ledger.verdict() == Verdict::Wait;
        inner.ledger.read(stream, bytes);
        inner.wake_if(waited);
    }

    pub(crate) fn dropped(&self, stream: u32) {
        let mut inner = self.lock();
        let waited = inner.ledger.verdict() == Verdict::Wait || !inner.ledger.admits();
        inner.ledger.dropped(stream);
        inner.wake_if(waited);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn judge(&mut self) -> io::Result<()> {
        if self.ledger.verdict() == Verdict::Close {
            self.over.get_or_insert(Overuse::Stranger);
        }
        self.over.map_or(Ok(()), |over| Err(io::Error::other(over)))
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
        inner.wake_if(true);
    }

    fn held(&self) -> u64 {
        let inner = self.lock();
        // What is about to be closed is not closed again.
        inner.over.map_or_else(|| inner.ledger.held(), |_| 0)
    }

    fn remote(&self) -> Option<(Transport, SocketAddr)> {
        self.remote.map(|remote| (Transport::Tcp, remote))
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn close(&self) {
        let mut inner = self.lock();
        inner.over.get_or_insert(Overuse::Memory);
        inner.wake_if(true);
    }
}
