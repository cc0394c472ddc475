//! A connection as libp2p's multiplexer, and its streams.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

use super::streams::Streams;

type Opening = BoxFuture<'static, Result<(SendStream, RecvStream), ConnectionError>>;

/// The code of a close: libp2p gives no meaning to QUIC's codes.
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// A connection whose remote is known.
pub(super) struct Connection {
    inner: quinn::Connection,
    /// Those that the remote opened.
    streams: Arc<Mutex<Streams>>,
    inbound: Option<Opening>,
    outbound: Option<Opening>,
    closed: Option<BoxFuture<'static, ConnectionError>>,
}

impl Connection {
    pub(super) fn new(inner: quinn::Connection) -> Self {
        Self {
            inner,
            streams: Arc::default(),
            inbound: None,
            outbound: None,
            closed: None,
        }
    }

    /// Counts a stream that the remote opened, and allows it more where it needs them.
    fn count(&self) -> Counted {
        let more = lock(&self.streams).opened();
        if let Some(more) = more {
            self.inner.set_max_concurrent_bi_streams(more.into());
        }
        Counted(Arc::clone(&self.streams))
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let this = &mut *self;
        let connection = &this.inner;
        let inbound = this.inbound.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.accept_bi().await }.boxed()
        });
        let opened = ready!(inbound.poll_unpin(cx));
        this.inbound = None;
        let (send, receive) = opened?;
        Poll::Ready(Ok(Stream::new(send, receive, Some(this.count()))))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let this = &mut *self;
        let connection = &this.inner;
        let outbound = this.outbound.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.open_bi().await }.boxed()
        });
        let opened = ready!(outbound.poll_unpin(cx));
        this.outbound = None;
        let (send, receive) = opened?;
        Poll::Ready(Ok(Stream::new(send, receive, None)))
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
            Err(closed.into())
        })
    }
}

/// A stream that the remote opened, for as long as it lives.
struct Counted(Arc<Mutex<Streams>>);

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&self.0).closed();
    }
}

fn lock(streams: &Mutex<Streams>) -> std::sync::MutexGuard<'_, Streams> {
    // Nothing panics while it holds the lock.
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bidirectional stream. Dropping the stream finishes it and sends STOP_SENDING, since nothing reads from it any longer.
pub(super) struct Stream {
    send: SendStream,
    receive: RecvStream,
    closed: bool,
    _counted: Option<Counted>,
}

impl Stream {
    fn new(send: SendStream, receive: RecvStream, counted: Option<Counted>) -> Self {
        Self {
            send,
            receive,
            closed: false,
            _counted: counted,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
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
