//! yamux within a budget, whose errors say how the connection ended.
//!
//! yamux has a window for each stream and none for the connection, so a remote with many streams could fill hundreds of MiB. Here a
//! reader beneath yamux sees the headers of its frames, and a wrapper of each stream sees what the program reads. Between them the
//! [account](crate::net::budget) of the connection knows what is held.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures::{
    AsyncRead, AsyncWrite,
    future::{Ready, ready},
};
use libp2p::{
    PeerId,
    core::{
        muxing::{StreamMuxer, StreamMuxerEvent},
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    },
};
use tokio::{runtime::Handle, time::Sleep};
use yamux::{Connection, ConnectionError, DEFAULT_CREDIT, Mode};

use crate::net::{
    budget::{Account, Admitted, Budgets, Class, Frame, Pause, Registered, WAITING},
    closed::ClosedHere,
    proposals::LimitedProposals,
};

/// Streams of both sides that yamux keeps at most: those of the largest class, those that wait, and as many that this side opens.
/// Beyond that yamux ends the connection.
const STREAMS: usize = 2 * Class::Serving.streams() as usize + WAITING as usize;

/// How long a close may wait for what is still to be sent. On a path that is cut, a connection with full buffers would never end,
/// and so keep its place as the path in use.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// By how much the windows of all streams together may grow beyond the first window of each. Until a stream has used its first one,
/// its window does not grow at all.
const GROWTH: usize = Class::Serving.bytes() as usize;

/// The upgrade of a stream to [yamux](https://github.com/libp2p/specs/blob/master/yamux/README.md).
///
/// [`closed`](crate::closed) understands the errors of its connections, which libp2p keeps in private fields.
#[derive(Debug, Clone)]
pub struct Yamux {
    budgets: Budgets,
    peer: PeerId,
    /// The other end of the TCP connection, unless this runs inside another connection.
    remote: Option<SocketAddr>,
}

impl Yamux {
    /// A connection with `peer`, within the budget of the peer.
    #[must_use]
    pub fn within(budgets: Budgets, peer: PeerId) -> Self {
        Self {
            budgets,
            peer,
            remote: None,
        }
    }

    /// The connection runs over TCP with this remote.
    pub(crate) const fn over_tcp(mut self, remote: SocketAddr) -> Self {
        self.remote = Some(remote);
        self
    }

    fn connect<C>(self, stream: C, mode: Mode) -> Ready<io::Result<YamuxConnection<C>>>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let mut config = yamux::Config::default();
        config
            .set_max_connection_receive_window(None)
            .set_max_num_streams(STREAMS)
            .set_max_connection_receive_window(Some(STREAMS * DEFAULT_CREDIT as usize + GROWTH));
        let account = Registered::new(&self.budgets, self.peer, |grant| {
            Arc::new(Account::new(grant, self.remote))
        });
        let counted = Counted::new(stream, Arc::clone(&account));
        ready(Ok(YamuxConnection {
            connection: Connection::new(counted, config, mode),
            account,
            readers: Arc::default(),
            waiting: VecDeque::new(),
            pause: Pause::default(),
            inbound: None,
            is_closed_here: false,
            closes_until: None,
        }))
    }
}

impl Default for Yamux {
    /// A connection with the largest budget, which nothing else knows.
    fn default() -> Self {
        Self::within(Budgets::new(Class::Carrying), PeerId::random())
    }
}

/// A connection that [`Yamux`] multiplexes.
pub struct YamuxConnection<C> {
    connection: Connection<Counted<C>>,
    account: Registered<Account>,
    readers: Arc<Readers>,
    /// Streams that the remote opened and that are not used yet.
    waiting: VecDeque<YamuxStream>,
    pause: Pause,
    inbound: Option<Waker>,
    is_closed_here: bool,
    /// Until when the close may take.
    closes_until: Option<Pin<Box<Sleep>>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> YamuxConnection<C> {
    /// Reads and writes until the remote opens a stream.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(over) = self.account.over(cx) {
            return Poll::Ready(Err(io::Error::other(over)));
        }
        let stream = match ready!(self.connection.poll_next_inbound(cx)) {
            Some(Ok(stream)) => self.stream(stream),
            Some(Err(error)) => return Poll::Ready(Err(self.error(error, cx))),
            None => return Poll::Ready(Err(self.error(ConnectionError::Closed, cx))),
        };
        // A peer that waits for its streams has no more of them. The others of another class are reset, as libp2p does.
        if !self.account.is_crowded() {
            self.waiting.push_back(stream);
        }
        Poll::Ready(Ok(()))
    }

    fn stream(&self, inner: yamux::Stream) -> YamuxStream {
        YamuxStream {
            inner,
            account: Arc::clone(&self.account),
            readers: Arc::clone(&self.readers),
        }
    }

    fn error(&self, error: ConnectionError, cx: &Context<'_>) -> io::Error {
        if let Some(over) = self.account.over(cx) {
            return io::Error::other(over);
        }
        if let ConnectionError::Io(error) = error {
            return error;
        }
        if matches!(error, ConnectionError::Closed) && self.is_closed_here {
            return io::Error::other(ClosedHere);
        }
        io::Error::other(error)
    }
}

impl<C> fmt::Debug for YamuxConnection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("YamuxConnection").finish_non_exhaustive()
    }
}

impl<C> StreamMuxer for YamuxConnection<C>
where
    C: AsyncRead + AsyncWrite + Unpin + 'static,
{
    type Substream = LimitedProposals<YamuxStream>;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        loop {
            if let Some(next) = self.waiting.front() {
                match self.account.admit(next.id(), cx) {
                    Admitted::Now => {
                        if let Some(stream) = self.waiting.pop_front() {
                            return Poll::Ready(Ok(LimitedProposals::new(stream)));
                        }
                    }
                    Admitted::At(at) if self.pause.poll_until(at, cx).is_ready() => continue,
                    Admitted::At(_) | Admitted::Later => {}
                }
                self.inbound = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if self.poll_connection(cx)?.is_pending() {
                self.inbound = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let stream = match ready!(self.connection.poll_new_outbound(cx)) {
            Ok(stream) => stream,
            Err(error) => return Poll::Ready(Err(self.error(error, cx))),
        };
        self.account.opened(stream.id().val());
        let stream = self.stream(stream);
        Poll::Ready(Ok(LimitedProposals::outbound(stream)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closed_here {
            self.is_closed_here = true;
            // Without a runtime nothing can wait.
            let sleep = || Box::pin(tokio::time::sleep(CLOSE_TIMEOUT));
            self.closes_until = Handle::try_current().ok().map(|_| sleep());
            self.readers.close();
        }
        let polled = self.connection.poll_close(cx);
        let is_late = |until: &mut Pin<Box<Sleep>>| until.as_mut().poll(cx).is_ready();
        if polled.is_pending() && self.closes_until.as_mut().is_some_and(is_late) {
            return Poll::Ready(Ok(()));
        }
        polled.map_err(|error| self.error(error, cx))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        ready!(self.poll_connection(cx))?;
        if let Some(inbound) = self.inbound.take() {
            inbound.wake();
        }
        // There may be more; others have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A stream of a [`YamuxConnection`].
///
/// yamux itself reads an end also where the remote has reset the stream, and where the connection is lost. Here these are errors, as
/// they are in QUIC.
#[derive(Debug)]
pub struct YamuxStream {
    inner: yamux::Stream,
    account: Arc<Account>,
    readers: Arc<Readers>,
}

impl YamuxStream {
    fn id(&self) -> u32 {
        self.inner.id().val()
    }
}

impl Drop for YamuxStream {
    fn drop(&mut self) {
        self.account.dropped(self.id());
        self.readers.forget(self.id());
    }
}

/// Streams that wait for data. yamux wakes none of them when this side closes the connection, and their reads would never end.
#[derive(Debug, Default)]
struct Readers(Mutex<Reading>);

#[derive(Debug, Default)]
struct Reading {
    is_closed: bool,
    wakers: HashMap<u32, Waker>,
}

impl Readers {
    /// The connection is closed here.
    fn close(&self) {
        let mut reading = self.lock();
        reading.is_closed = true;
        let wakers = std::mem::take(&mut reading.wakers);
        drop(reading);
        wakers.into_values().for_each(Waker::wake);
    }

    /// `stream` has no data. Ready if none will come.
    fn poll_closed(&self, stream: u32, cx: &Context<'_>) -> Poll<()> {
        let mut reading = self.lock();
        if reading.is_closed {
            return Poll::Ready(());
        }
        let known = reading.wakers.get(&stream);
        if known.is_none_or(|known| !known.will_wake(cx.waker())) {
            let earlier = reading.wakers.insert(stream, cx.waker().clone());
            // What a waker drops may be a stream.
            drop(reading);
            drop(earlier);
        }
        Poll::Pending
    }

    fn forget(&self, stream: u32) {
        let waker = self.lock().wakers.remove(&stream);
        drop(waker);
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for YamuxStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, buf)? else {
            ready!(self.readers.poll_closed(self.id(), cx));
            return Poll::Ready(Err(io::Error::other(ClosedHere)));
        };
        if read == 0 && !buf.is_empty() && !self.account.has_ended(self.id()) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the stream was reset, or its connection has ended",
            )));
        }
        self.account.read(self.id(), read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for YamuxStream {
    p2pnode_protocol::writes_to!(inner);
}

/// What yamux reads from: [frames](https://github.com/hashicorp/yamux/blob/master/spec.md), each with a header of this many bytes.
const HEADER: usize = 12;
const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 1;
const SYN: u16 = 1;
const FIN: u16 = 4;
const RST: u16 = 8;

struct Counted<C> {
    inner: C,
    account: Arc<Account>,
    header: [u8; HEADER],
    /// How much of the header has arrived, and how much of the body has not.
    seen: usize,
    body: usize,
}

impl<C> Counted<C> {
    fn new(inner: C, account: Arc<Account>) -> Self {
        Self {
            inner,
            account,
            header: [0; HEADER],
            seen: 0,
            body: 0,
        }
    }

    fn see(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.body > 0 {
                let part = self.body.min(bytes.len());
                self.body -= part;
                bytes = &bytes[part..];
                if self.body == 0 {
                    self.account.arrived();
                }
                continue;
            }
            let part = bytes.len().min(HEADER - self.seen);
            self.header[self.seen..self.seen + part].copy_from_slice(&bytes[..part]);
            self.seen += part;
            bytes = &bytes[part..];
            if self.seen == HEADER {
                self.seen = 0;
                self.begin()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        let [_, tag, flags @ .., s0, s1, s2, s3, l0, l1, l2, l3] = self.header;
        if tag != DATA && tag != WINDOW_UPDATE {
            return Ok(());
        }
        let flags = u16::from_be_bytes(flags);
        let len = match tag {
            DATA => u32::from_be_bytes([l0, l1, l2, l3]),
            _ => 0,
        };
        self.body = len as usize;
        self.account.begins(Frame {
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            len,
            opens: flags & SYN != 0,
            resets: flags & RST != 0,
            ends: flags & FIN != 0,
        })?;
        if len == 0 {
            self.account.arrived();
        }
        Ok(())
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.seen == 0 {
            ready!(self.account.poll_read_on(self.body > 0, cx))?;
        }
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.account.received_more(read);
        self.see(&buf[..read])?;
        Poll::Ready(Ok(read))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    p2pnode_protocol::writes_to!(inner);
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C> InboundConnectionUpgrade<C> for Yamux
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    type Output = YamuxConnection<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Output>>;

    fn upgrade_inbound(self, stream: C, _: Self::Info) -> Self::Future {
        self.connect(stream, Mode::Server)
    }
}

impl<C> OutboundConnectionUpgrade<C> for Yamux
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    type Output = YamuxConnection<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Output>>;

    fn upgrade_outbound(self, stream: C, _: Self::Info) -> Self::Future {
        self.connect(stream, Mode::Client)
    }
}
