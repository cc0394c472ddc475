//! A connection as libp2p's multiplexer, and its streams.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Instant,
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use libp2p::{
    PeerId,
    core::muxing::{StreamMuxer, StreamMuxerEvent},
};
use p2pnode_protocol::Transport;
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

use super::{
    datagrams::Carrying, flight::Flight, life::Flow, settings::Settings, streams::Streams,
    tolerance, window::Window,
};
use crate::net::{
    budget::{Budgeted, Class, Grant, Opens, Overuse, Pause, Registered, canonical},
    proposals::LimitedProposals,
};
use crate::{reset::is_reset, shared::take_shared};

type Opening = BoxFuture<'static, Result<(SendStream, RecvStream), ConnectionError>>;

/// The code of a close: libp2p gives no meaning to QUIC's codes.
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// A connection whose remote is known.
pub(super) struct Connection {
    inner: quinn::Connection,
    budget: Registered<Budget>,
    inbound: Option<Opening>,
    pause: Pause,
    outbound: Option<Opening>,
    closed: Option<BoxFuture<'static, ConnectionError>>,
    _datagrams: Option<Carrying>,
    /// Its socket counts these.
    _serving: Option<Arc<()>>,
}

impl Connection {
    pub(super) fn new(
        inner: quinn::Connection,
        peer: PeerId,
        settings: &Settings,
        serving: Option<Arc<()>>,
    ) -> Self {
        let ip = canonical(inner.remote_address()).ip();
        let flight = tolerance::flight(&inner);
        if let Some(window) = settings.budgets.congestion_window(&peer, ip)
            && let Some(flight) = &flight
        {
            flight.set_known(window);
        }
        let budget = Registered::new(&settings.budgets, peer, |grant| {
            let class = grant.class;
            let budget = Budget::new(inner.clone(), flight, grant, settings.send_window);
            budget.apply(class);
            Arc::new(budget)
        });
        let datagrams = settings.datagrams.clone().map(|datagrams| {
            let budget = Arc::clone(&budget);
            let taken = move |bytes| lock(&budget.0).took(bytes);
            Carrying::new(inner.clone(), peer, datagrams, taken)
        });
        Self {
            inner,
            budget,
            inbound: None,
            pause: Pause::default(),
            outbound: None,
            closed: None,
            _datagrams: datagrams,
            _serving: serving,
        }
    }

    fn error(&self, error: ConnectionError) -> io::Error {
        match lock(&self.budget.0).is_over {
            true => io::Error::other(Overuse::Memory),
            false => error.into(),
        }
    }
}

impl StreamMuxer for Connection {
    type Substream = LimitedProposals<Stream>;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let this = &mut *self;
        while let Some(at) = this.budget.wait() {
            ready!(this.pause.poll_until(at, cx));
        }
        let connection = &this.inner;
        let inbound = this.inbound.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.accept_bi().await }.boxed()
        });
        let opened = ready!(inbound.poll_unpin(cx));
        this.inbound = None;
        let (send, receive) = opened.map_err(|error| this.error(error))?;
        this.budget.opened();
        let stream = Stream::new(send, receive, &this.budget, true);
        Poll::Ready(Ok(LimitedProposals::new(stream)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let this = &mut *self;
        let connection = &this.inner;
        let outbound = this.outbound.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.open_bi().await }.boxed()
        });
        let opened = ready!(outbound.poll_unpin(cx));
        this.outbound = None;
        let (send, receive) = opened.map_err(|error| this.error(error))?;
        let stream = Stream::new(send, receive, &this.budget, false);
        Poll::Ready(Ok(LimitedProposals::outbound(stream)))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        // The only event is another address of the remote, and connections do not migrate.
        Poll::Pending
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let connection = &this.inner;
        let closed = this.closed.get_or_insert_with(|| {
            connection.close(NO_ERROR, &[]);
            let connection = connection.clone();
            async move { connection.closed().await }.boxed()
        });
        let closed = ready!(closed.poll_unpin(cx));
        Poll::Ready(if closed == ConnectionError::LocallyClosed {
            Ok(())
        } else {
            Err(this.error(closed))
        })
    }
}

/// The code of a close for want of memory. It has no meaning to others, either.
const OVERUSE: VarInt = VarInt::from_u32(1);

/// While memory is short, at most this much arrives unread on any connection.
const MOST_IF_SHORT: u64 = 64 << 10;

/// What a connection holds, and what its remote may send.
///
/// quinn keeps to itself what was received and not read, so [`Budgeted::held`] is an estimate: nothing if every stream has read all
/// there was, otherwise what has arrived since that was so last and was not read, at most the window. It is as precise as it is asked
/// often, and counts what was sent twice, and headers.
struct Budget(Mutex<Held>);

struct Held {
    connection: quinn::Connection,
    flight: Option<Arc<Flight>>,
    flow: Flow,
    class: Class,
    window: Window,
    opens: Opens,
    send_window: u64,
    /// Those that the remote opened.
    streams: Streams,
    /// Streams on which a read has returned bytes last, or that nothing has read from.
    unread_streams: u32,
    /// Bytes that streams have read.
    read: u64,
    /// What had arrived, and was read, when nothing was unread last.
    empty_at: (u64, u64),
    /// The same when memory had become short, or later.
    short_at: Option<(u64, u64)>,
    is_over: bool,
}

impl Budget {
    fn new(
        connection: quinn::Connection,
        flight: Option<Arc<Flight>>,
        grant: Grant,
        send_window: u64,
    ) -> Self {
        Self(Mutex::new(Held {
            connection,
            flight,
            flow: Flow::new(now()),
            class: grant.class,
            window: Window::new(grant.room),
            opens: Opens::new(grant.pace, grant.class, now()),
            send_window,
            streams: Streams::new(grant.class),
            unread_streams: 0,
            read: 0,
            empty_at: (0, 0),
            short_at: None,
            is_over: false,
        }))
    }

    fn apply(&self, class: Class) {
        let held = &mut *lock(&self.0);
        held.class = class;
        held.opens.set_class(class, now());
        let connection = &held.connection;
        if let Some(window) = held.window.set_class(class) {
            connection.set_receive_window(VarInt::from_u32(window));
        }
        connection.set_send_window(match class {
            Class::Stranger => class.bytes().into(),
            Class::Known | Class::Carrying | Class::Serving => held.send_window,
        });
        if let Some(streams) = held.streams.set_class(class) {
            connection.set_max_concurrent_bi_streams(streams.into());
        }
    }

    /// Counts a stream that the remote opened, and allows it more where it needs them.
    fn opened(&self) {
        let held = &mut *lock(&self.0);
        held.opens.used(now());
        if let Some(more) = held.streams.opened() {
            held.connection.set_max_concurrent_bi_streams(more.into());
        }
    }

    /// When the next stream may be used, if not now.
    fn wait(&self) -> Option<Instant> {
        lock(&self.0).opens.wait(now())
    }
}

impl Held {
    /// So many bytes were read.
    fn took(&mut self, bytes: usize) {
        self.read += bytes as u64;
        if let Some(window) = self.window.read(bytes) {
            let window = VarInt::from_u32(window);
            self.connection.set_receive_window(window);
        }
    }
}

/// The clock of the runtime.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Budgeted for Budget {
    fn remote(&self) -> Option<(Transport, SocketAddr)> {
        let remote = lock(&self.0).connection.remote_address();
        Some((Transport::Quic, canonical(remote)))
    }

    fn signs_of_life(&self) -> u64 {
        let held = &mut *lock(&self.0);
        let flight = held.flight.as_deref();
        let acknowledged = flight.map_or(0, Flight::acknowledgements);
        let arrived = held.connection.stats().udp_rx.bytes;
        acknowledged.wrapping_add(held.flow.handle_arrived(arrived, now()))
    }

    fn congestion_window(&self) -> u64 {
        lock(&self.0).connection.stats().path.cwnd
    }

    fn set_class(&self, class: Class) {
        self.apply(class);
    }

    /// Counts from the first question on: what came before may be headers, or on a stream whose reader waits for nothing.
    fn holds_much(&self) -> bool {
        let held = &mut *lock(&self.0);
        let arrived = held.connection.stats().udp_rx.bytes;
        let at = held
            .short_at
            .filter(|_| held.unread_streams > 0)
            .unwrap_or((arrived, held.read));
        held.short_at = Some(at);
        let unread = (arrived - at.0).saturating_sub(held.read - at.1);
        held.is_over || unread > held.class.bytes_if_short().min(MOST_IF_SHORT)
    }

    fn read_on(&self) {
        lock(&self.0).short_at = None;
    }

    fn held(&self) -> Option<u64> {
        let held = &mut *lock(&self.0);
        if held.is_over {
            return None;
        }
        let arrived = held.connection.stats().udp_rx.bytes;
        if held.unread_streams == 0 {
            held.empty_at = (arrived, held.read);
        }
        let (arrived_before, read_before) = held.empty_at;
        let unread = (arrived - arrived_before).saturating_sub(held.read - read_before);
        Some(unread.min(held.window.granted().into()))
    }

    fn close(&self) {
        let held = &mut *lock(&self.0);
        held.is_over = true;
        held.connection.close(OVERUSE, &[]);
    }
}

fn lock(held: &Mutex<Held>) -> std::sync::MutexGuard<'_, Held> {
    // Nothing panics while it holds the lock.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bidirectional stream. Dropping the stream finishes it, or resets it with [`crate::reset`], and sends STOP_SENDING, since nothing reads
/// from it any longer.
pub(super) struct Stream {
    send: SendStream,
    receive: RecvStream,
    closed: bool,
    budget: Arc<Budget>,
    is_inbound: bool,
    /// Whether there may be something to read.
    is_unread: bool,
}

impl Stream {
    fn new(send: SendStream, receive: RecvStream, budget: &Arc<Budget>, is_inbound: bool) -> Self {
        lock(&budget.0).unread_streams += 1;
        Self {
            send,
            receive,
            closed: false,
            budget: Arc::clone(budget),
            is_inbound,
            is_unread: true,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.closed && is_reset() {
            // An error means that it is closed.
            let _ = self.send.reset(NO_ERROR);
        }
        let held = &mut *lock(&self.budget.0);
        held.unread_streams -= u32::from(self.is_unread);
        if self.is_inbound {
            held.streams.closed();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let read = AsyncRead::poll_read(Pin::new(&mut this.receive), cx, buf);
        let is_unread = matches!(read, Poll::Ready(Ok(1..)));
        let held = &mut *lock(&this.budget.0);
        if let Poll::Ready(Ok(bytes)) = read {
            held.took(bytes);
        }
        held.unread_streams += u32::from(is_unread);
        held.unread_streams -= u32::from(this.is_unread);
        this.is_unread = is_unread;
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(shared) = take_shared(buf) else {
            return AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf);
        };
        let shared = &mut [shared];
        let written = ready!(pin!(self.send.write_chunks(shared)).poll(cx))?;
        Poll::Ready(Ok(written.bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // quinn fails when a stream is finished a second time; AsyncWrite allows to close as often as anybody likes.
        if !self.closed {
            ready!(AsyncWrite::poll_close(Pin::new(&mut self.send), cx))?;
            self.closed = true;
        }
        Poll::Ready(Ok(()))
    }
}
