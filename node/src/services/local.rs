//! Local sockets: of clients, of targets, and of this program itself.

use std::{
    cell::RefCell,
    future::Future as _,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use p2pnode_services::core::sockets::Place;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite as _, DuplexStream},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep},
};

/// The most bytes that are read at once: a frame's.
pub(super) const READ: usize = p2pnode_services::wire::MAX_DATA;

/// How much the kernel takes that its peer has no room for. With more, a session that nobody reads would seem to be a fast one: its
/// window would grow by the megabytes that the kernel holds. See decision 0702.
const UNSENT: u32 = 128 << 10;

/// How long a reset waits for a peer that takes nothing, and how often it looks.
const UNSENT_WAIT: Duration = Duration::from_secs(5);
const UNSENT_LOOK: Duration = Duration::from_millis(5);

thread_local! {
    /// Bytes are read here, and copied to a buffer of their size: an idle socket holds none, and a short read keeps no long one.
    /// If they fill the buffer, it is theirs.
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A local socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpStream, Place),
    /// A Unix stream socket.
    Unix(UnixStream, Place),
    /// The program itself, and whether the session was reset.
    Pipe(DuplexStream, Arc<AtomicBool>),
}

impl Socket {
    /// A socket of TCP, without Nagle's algorithm: the other side has made its pieces.
    ///
    /// From here on its other side sees a reset if this process ends, however it does, and an end only after [`Self::close`].
    pub(crate) fn tcp(stream: TcpStream, place: Place) -> Self {
        // Errors mean that the socket is gone, which the next read reports.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_zero_linger();
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        Self::Tcp(stream, place)
    }

    /// Closes it after both directions have ended. The kernel still sends what it was given.
    pub(super) fn close(self) {
        self.linger();
    }

    /// The stream of TCP, which ends as others do.
    pub(super) fn into_tcp(self) -> io::Result<TcpStream> {
        self.linger();
        match self {
            Self::Tcp(stream, _) => Ok(stream),
            Self::Unix(..) | Self::Pipe(..) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// An end of the process from here on is no reset.
    pub(super) fn linger(&self) {
        if let Self::Tcp(stream, _) = self {
            // An error means that it is gone.
            let _ = SockRef::from(stream).set_linger(None);
        }
    }

    /// Where the client is and where it connected to, if it has addresses.
    pub(crate) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            // A listener of both families writes IPv4 as IPv6.
            Self::Tcp(stream, _) => Some((
                canonical(stream.peer_addr().ok()?),
                canonical(stream.local_addr().ok()?),
            )),
            Self::Unix(..) | Self::Pipe(..) => None,
        }
    }

    /// Up to `most` bytes; none at the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Bytes>> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            scratch.reserve(READ);
            let mut buffer = (&mut *scratch).limit(most.min(READ));
            ready!(match self {
                Self::Tcp(stream, _) => pin!(stream.read_buf(&mut buffer)).poll(cx),
                Self::Unix(stream, _) => pin!(stream.read_buf(&mut buffer)).poll(cx),
                Self::Pipe(stream, _) => pin!(stream.read_buf(&mut buffer)).poll(cx),
            })?;
            Poll::Ready(Ok(match scratch.len() == READ {
                true => std::mem::take(scratch).freeze(),
                false => Bytes::copy_from_slice(scratch),
            }))
        })
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Pipe(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Pipe(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Closes it so that its other side sees a reset behind what it was given. A Unix socket can only be closed.
    pub(super) fn reset(self) {
        match self {
            Self::Tcp(stream, place) if has_unsent(&stream) => {
                tokio::spawn(reset_behind_data(stream, place));
            }
            // Closing it resets it: see `tcp`.
            Self::Tcp(stream, _) => drop(stream),
            Self::Unix(stream, place) => drop((stream, place)),
            Self::Pipe(_, was_reset) => was_reset.store(true, Relaxed),
        }
    }
}

/// A reset discards what the kernel has not sent, as to a client that reads slowly.
async fn reset_behind_data(stream: TcpStream, _place: Place) {
    let until = Instant::now() + UNSENT_WAIT;
    while has_unsent(&stream) && Instant::now() < until {
        sleep(UNSENT_LOOK).await;
    }
}

fn canonical(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip().to_canonical(), socket.port())
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
        let reader = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().await.unwrap().0;
        // As much as both kernels hold for a reader that does not read.
        let mut given = 0;
        while let Ok(written) = stream.try_write(&[7; 64 << 10]) {
            given += written;
        }
        assert!(has_unsent(&stream));
        Socket::tcp(stream, Place::default()).reset();
        let (bytes, error) = read_to_end(reader).await;
        assert_eq!((bytes, error), (given, Some(ErrorKind::ConnectionReset)));
    }

    #[tokio::test]
    async fn only_a_socket_that_is_closed_ends_without_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (closes, expected) in [(false, Some(ErrorKind::ConnectionReset)), (true, None)] {
            let reader = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = Socket::tcp(listener.accept().await.unwrap().0, Place::default());
            let Socket::Tcp(stream, _) = &socket else {
                panic!("it is TCP")
            };
            stream.try_write(&[7; 1000]).unwrap();
            match closes {
                true => socket.close(),
                // As at the end of the process.
                false => drop(socket),
            }
            assert_eq!(read_to_end(reader).await.1, expected);
        }
    }

    #[tokio::test]
    async fn the_kernel_takes_less_than_a_window_for_a_client_that_does_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reader = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut socket = Socket::tcp(listener.accept().await.unwrap().0, Place::default());
        let (piece, mut given) = (vec![7; READ], 0);
        let mut write = |cx: &mut Context<'_>| {
            while let Poll::Ready(written) = socket.poll_write(cx, &piece) {
                given += written.unwrap();
            }
            Poll::Ready(())
        };
        for _ in 0..50 {
            std::future::poll_fn(&mut write).await;
            sleep(UNSENT_LOOK).await;
        }
        let window = usize::try_from(p2pnode_services::wire::FIRST_WINDOW).unwrap();
        assert!(given < 3 * window, "{given}");
        drop(reader);
    }

    /// How many bytes come, and the error behind them.
    async fn read_to_end(mut reader: std::net::TcpStream) -> (usize, Option<ErrorKind>) {
        tokio::task::spawn_blocking(move || {
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
        .unwrap()
    }
}
