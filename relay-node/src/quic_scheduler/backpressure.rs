//! A socket that is read only as fast as the connections handle packets.
//!
//! The thread that reads ([`super::reader`]) never waits for the connections, whose queues have no bound of their own. This
//! socket counts what may not be handled yet, in rounds of the scheduler: everything that was read before the last two rounds is
//! handled. Above [`ECN_MARK_THRESHOLD`] it marks packets as a congested router would
//! ([RFC 3168](https://www.rfc-editor.org/rfc/rfc3168)): senders slow down and nothing is lost. Above
//! [`READ_PAUSE_THRESHOLD`] it reads nothing, and the kernel drops what does not fit into its buffer.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use futures::task::AtomicWaker;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};

/// Above so many unhandled bytes packets are marked. A relay's processor handles them in a fraction of a second.
const ECN_MARK_THRESHOLD: usize = 8 << 20;

/// Above so many unhandled bytes nothing more is read.
const READ_PAUSE_THRESHOLD: usize = 64 << 20;

/// What the scheduler and the thread that reads share.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// How many rounds of the scheduler are over.
    rounds: AtomicU64,
    /// Woken when another round is over.
    reader: AtomicWaker,
    /// The task of the scheduler.
    connections: AtomicWaker,
}

impl Backlog {
    /// Reports that so many rounds are over.
    pub(super) fn handled(&self, rounds: u64) {
        if self.rounds.swap(rounds, Ordering::AcqRel) != rounds {
            self.reader.wake();
        }
    }

    /// Registers the task of the scheduler.
    pub(super) fn register(&self, connections: &Waker) {
        self.connections.register(connections);
    }

    /// Wakes the scheduler: a connection has something to do, or the reader waits for a round.
    pub(super) fn wake_connections(&self) {
        self.connections.wake();
    }
}

/// What was read and may not be handled yet. Pure.
#[derive(Debug, Default)]
struct Unhandled {
    /// How many rounds were over when everything was handled.
    since: u64,
    bytes: usize,
}

impl Unhandled {
    /// The number of bytes, once so many rounds are over.
    fn after(&mut self, rounds: u64) -> usize {
        if rounds >= self.since.saturating_add(2) {
            *self = Self {
                since: rounds,
                bytes: 0,
            };
        }
        self.bytes
    }

    fn read(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// See the module.
pub(super) struct BackpressureSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    /// One task reads, so nobody waits for this lock.
    unhandled: Mutex<Unhandled>,
    backlog: Arc<Backlog>,
}

impl BackpressureSocket {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, backlog: Arc<Backlog>) -> Self {
        Self {
            socket,
            unhandled: Mutex::default(),
            backlog,
        }
    }

    fn unhandled(&self) -> usize {
        let rounds = self.backlog.rounds.load(Ordering::Acquire);
        self.lock().after(rounds)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Unhandled> {
        // Nothing panics while it holds the lock.
        self.unhandled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BackpressureSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl AsyncUdpSocket for BackpressureSocket {
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.unhandled() > READ_PAUSE_THRESHOLD {
            self.backlog.reader.register(cx.waker());
            // A round may have ended before that.
            if self.unhandled() > READ_PAUSE_THRESHOLD {
                // If none of it was for a connection, no connection has a turn.
                self.backlog.wake_connections();
                return Poll::Pending;
            }
        }
        let received = ready!(self.socket.poll_recv(cx, bufs, meta))?;
        let unhandled = self.unhandled();
        for meta in meta.iter_mut().take(received) {
            self.lock().read(meta.len);
            if unhandled > ECN_MARK_THRESHOLD {
                // Only packets of senders that support ECN can be marked.
                meta.ecn = meta.ecn.map(|_| EcnCodepoint::Ce);
            }
        }
        Poll::Ready(Ok(received))
    }

    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Datagrams of a MiB each without end, whose senders understand congestion marks or do not, in turn.
    #[derive(Debug)]
    pub(in super::super) struct Flood;

    impl AsyncUdpSocket for Flood {
        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            for (index, meta) in meta.iter_mut().enumerate() {
                meta.len = 1 << 20;
                meta.ecn = (index % 2 == 0).then_some(EcnCodepoint::Ect0);
            }
            Poll::Ready(Ok(meta.len()))
        }

        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nothing is sent")
        }

        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Err(io::ErrorKind::NotConnected.into())
        }
    }

    #[test]
    fn what_was_read_is_handled_after_two_rounds() {
        let mut unhandled = Unhandled::default();
        unhandled.read(10);
        assert_eq!(unhandled.after(1), 10, "that round may have begun before");
        unhandled.read(5);
        assert_eq!(unhandled.after(2), 0);
        unhandled.read(7);
        assert_eq!(unhandled.after(3), 7);
        assert_eq!(unhandled.after(100), 0);
    }

    #[test]
    fn a_flood_is_marked_and_then_not_read_until_it_is_handled() {
        let backlog = Arc::new(Backlog::default());
        let socket = BackpressureSocket::new(Arc::new(Flood), Arc::clone(&backlog));
        let (wakes, waker) = counting_waker();
        let mut cx = Context::from_waker(&waker);
        let mut meta = [RecvMeta::default(); 2];
        let mut read = |meta: &mut [RecvMeta]| socket.poll_recv(&mut cx, &mut [], meta);
        let mut marked = None;
        let mut calls = 0;
        while read(&mut meta).is_ready() {
            calls += 1;
            assert_eq!(meta[1].ecn, None);
            if meta[0].ecn == Some(EcnCodepoint::Ce) {
                marked.get_or_insert(calls);
            }
            assert!(calls < 1000, "no bound");
        }
        // Two MiB each.
        assert_eq!((marked, calls), (Some(6), 33));
        backlog.handled(1);
        assert!(read(&mut meta).is_pending());
        let before = wakes();
        backlog.handled(3);
        assert_eq!(wakes(), before + 1);
        assert!(read(&mut meta).is_ready());
        assert_eq!(meta[0].ecn, Some(EcnCodepoint::Ect0));
    }

    /// A waker, and how often it was called.
    fn counting_waker() -> (impl Fn() -> usize, Waker) {
        #[derive(Default)]
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count::default());
        let waker = Arc::clone(&count).into();
        (move || count.0.load(Ordering::Relaxed), waker)
    }
}
