//! Local sockets: of clients, of targets, and of this program itself.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// The most bytes that are read at once: a frame's.
pub(super) const READ: usize = p2pnode_services::wire::MAX_DATA;

thread_local! {
    /// Bytes are read here, and copied to a buffer of their size: an idle socket holds none, and a short read keeps no long one.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A local socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
    /// The program itself, and whether the session was reset.
    Pipe(DuplexStream, Arc<AtomicBool>),
}

impl Socket {
    /// A socket of TCP, without Nagle's algorithm: the other side has made its pieces.
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        // An error means that the socket is gone, which the next read reports.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    /// Where the client is and where it connected to, if it has addresses.
    pub(crate) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Self::Tcp(stream) => Some((stream.peer_addr().ok()?, stream.local_addr().ok()?)),
            Self::Unix(_) | Self::Pipe(..) => None,
        }
    }

    /// Up to `most` bytes; none at the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Bytes>> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(READ, 0);
            let mut buffer = ReadBuf::new(&mut scratch[..most.min(READ)]);
            ready!(match self {
                Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
                Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
                Self::Pipe(stream, _) => Pin::new(stream).poll_read(cx, &mut buffer),
            })?;
            Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
        })
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Pipe(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Pipe(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Closes it so that its other side sees a reset. A Unix socket can only be closed.
    pub(super) fn reset(self) {
        match &self {
            // An error means that the socket is gone.
            Self::Tcp(stream) => drop(stream.set_zero_linger()),
            Self::Unix(_) => {}
            Self::Pipe(_, was_reset) => was_reset.store(true, Relaxed),
        }
    }
}
