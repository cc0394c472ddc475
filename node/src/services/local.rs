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
    time::Duration,
};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep},
};

/// The most bytes that are read at once: a frame's.
pub(super) const READ: usize = p2pnode_services::wire::MAX_DATA;

/// How long a reset waits for a peer that takes nothing, and how often it looks.
const UNSENT_WAIT: Duration = Duration::from_secs(5);
const UNSENT_LOOK: Duration = Duration::from_millis(5);

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

    /// Closes it so that its other side sees a reset behind what it was given. A Unix socket can only be closed.
    pub(super) fn reset(self) {
        match self {
            Self::Tcp(stream) if has_unsent(&stream) => {
                tokio::spawn(reset_behind_data(stream));
            }
            // An error means that the socket is gone.
            Self::Tcp(stream) => drop(stream.set_zero_linger()),
            Self::Unix(_) => {}
            Self::Pipe(_, was_reset) => was_reset.store(true, Relaxed),
        }
    }
}

/// A reset discards what the kernel has not sent, as to a client that reads slowly.
async fn reset_behind_data(stream: TcpStream) {
    let until = Instant::now() + UNSENT_WAIT;
    while has_unsent(&stream) && Instant::now() < until {
        sleep(UNSENT_LOOK).await;
    }
    // An error means that the socket is gone.
    let _ = stream.set_zero_linger();
}

/// Whether the kernel holds something that its peer has no room for. A kernel that does not tell counts as one that holds nothing.
fn has_unsent(stream: &TcpStream) -> bool {
    // It is writable only once nothing is unsent, or if it is broken.
    if SockRef::from(stream).set_tcp_notsent_lowat(1).is_err() {
        return false;
    }
    let mut asked = [PollFd::new(stream, PollFlags::OUT)];
    let now = Timespec::default();
    poll(&mut asked, Some(&now)).is_ok_and(|ready| ready == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::io::{ErrorKind, Read as _};

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_reset_comes_behind_what_the_socket_was_given() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut reader = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().await.unwrap().0;
        // As much as both kernels hold for a reader that does not read.
        let mut given = 0;
        while let Ok(written) = stream.try_write(&[7; 64 << 10]) {
            given += written;
        }
        assert!(has_unsent(&stream));
        Socket::Tcp(stream).reset();
        let (bytes, error) = tokio::task::spawn_blocking(move || {
            let (mut bytes, mut piece) = (0, vec![0; 64 << 10]);
            loop {
                match reader.read(&mut piece) {
                    Ok(0) => return (bytes, None),
                    Ok(read) => bytes += read,
                    Err(error) => return (bytes, Some(error.kind())),
                }
            }
        })
        .await
        .unwrap();
        assert_eq!((bytes, error), (given, Some(ErrorKind::ConnectionReset)));
    }
}
