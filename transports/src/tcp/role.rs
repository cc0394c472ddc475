//! The role in which a TCP punch negotiates, by what the remote says first.
//!
//! A remote in the role of the dialer sends the header of multistream-select and a proposal. One in the role of the listener is silent,
//! or sends the header alone, as go-libp2p does. Another kind of dialer waits for this side's header before it proposes. Both roles
//! have the same header, so this side sends it before it knows which of the two the remote is.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::Endpoint;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::stream::Stream;

/// How long a remote may stay silent on a connection that a punch made in the role of the listener. A remote that dialed as well,
/// in the role of the dialer, sends its first bytes at once; they take half a round trip. A remote that only accepted waits for
/// this side's first bytes, for ever: its NAT was open before its own dial began, and libp2p's listener does not know of punches.
const SILENCE: Duration = Duration::from_millis(1500);

/// What both sides of a negotiation begin with
/// ([multistream-select](https://github.com/multiformats/multistream-select)).
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// A stream on which one header or both may have passed.
pub(super) struct Begun {
    inner: Stream,
    /// What the remote has said, to be read again.
    unread: Vec<u8>,
    /// How much of this side's header is on the wire already.
    said: usize,
}

/// The role to take on a connection of a punch: the requested one, unless both sides would wait.
pub(super) async fn fitting(stream: Stream, asked: Endpoint) -> (Begun, Endpoint) {
    let mut begun = Begun {
        inner: stream,
        unread: Vec::new(),
        said: 0,
    };
    let role = match asked {
        Endpoint::Dialer => Endpoint::Dialer,
        // What is wrong with the connection comes out again when it is negotiated.
        Endpoint::Listener => begun.role_left().await.unwrap_or(Endpoint::Listener),
    };
    (begun, role)
}

impl Begun {
    /// The role that the remote leaves to this side.
    async fn role_left(&mut self) -> io::Result<Endpoint> {
        let stream = self.inner.raw()?;
        if !speaks(stream).await? {
            return Ok(Endpoint::Dialer);
        }
        while self.unread != HEADER {
            let mut more = [0; HEADER.len()];
            let left = &mut more[self.unread.len()..];
            let read = timeout(SILENCE, stream.read(left)).await.unwrap_or(Ok(0))?;
            self.unread.extend_from_slice(&left[..read]);
            if read == 0 || !HEADER.starts_with(&self.unread) {
                return Ok(Endpoint::Listener);
            }
        }
        if timeout(Duration::ZERO, stream.peek(&mut [0]))
            .await
            .is_err()
        {
            stream.write_all(HEADER).await?;
            self.said = HEADER.len();
            if !speaks(stream).await? {
                return Ok(Endpoint::Dialer);
            }
        }
        Ok(Endpoint::Listener)
    }
}

async fn speaks(stream: &TcpStream) -> io::Result<bool> {
    match timeout(SILENCE, stream.peek(&mut [0])).await {
        Ok(peeked) => peeked.map(|_| true),
        Err(_) => {
            tracing::info!(remote = ?stream.peer_addr().ok(), "both sides of a tcp punch wait; taking the dialer's role");
            Ok(false)
        }
    }
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let read = buf.len().min(self.unread.len());
        buf[..read].copy_from_slice(&self.unread[..read]);
        self.unread.drain(..read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.said == 0 {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
        let written = buf.len().min(self.said);
        self.said -= written;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.said == 0 {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty());
        let written = ready!(self.poll_write(cx, first.map_or(&[], |buf| buf)))?;
        Poll::Ready(Ok(written))
    }

    p2pnode_protocol::flushes_to!(inner);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const PROPOSAL: &[u8] = b"\x07/noise\n";

    /// A connection, and its other end.
    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, accepted) = tokio::join!(connect, listener.accept());
        (Stream::new(ours.unwrap(), None), accepted.unwrap().0)
    }

    async fn hears(remote: &mut TcpStream, wanted: &[u8]) {
        let mut heard = vec![0; wanted.len()];
        tokio::io::AsyncReadExt::read_exact(remote, &mut heard)
            .await
            .unwrap();
        assert_eq!(heard, wanted);
    }

    /// This side negotiates: its own first message, in two parts, and what it reads.
    async fn negotiates(mut begun: Begun, says: &[&[u8]], reads: &[u8]) {
        begun.write_all(HEADER).await.unwrap();
        for part in says {
            begun.write_all(part).await.unwrap();
        }
        begun.flush().await.unwrap();
        let mut read = vec![0; reads.len()];
        begun.read_exact(&mut read).await.unwrap();
        assert_eq!(read, reads);
    }

    #[tokio::test]
    async fn a_listener_that_sends_its_header_at_once_gets_one_header_and_a_proposal() {
        let (ours, mut remote) = pair().await;
        let says = tokio::io::AsyncWriteExt::write_all(&mut remote, HEADER);
        let ((begun, role), said) = tokio::join!(fitting(ours, Endpoint::Listener), says);
        said.unwrap();
        assert_eq!(role, Endpoint::Dialer);
        negotiates(begun, &[PROPOSAL], HEADER).await;
        hears(&mut remote, &[HEADER, PROPOSAL].concat()).await;
    }

    #[tokio::test]
    async fn a_dialer_that_waits_for_a_header_stays_the_dialer() {
        let (ours, mut remote) = pair().await;
        let dials = async {
            let says = tokio::io::AsyncWriteExt::write_all(&mut remote, HEADER);
            says.await.unwrap();
            hears(&mut remote, HEADER).await;
            let says = tokio::io::AsyncWriteExt::write_all(&mut remote, PROPOSAL);
            says.await.unwrap();
        };
        let ((begun, role), ()) = tokio::join!(fitting(ours, Endpoint::Listener), dials);
        assert_eq!(role, Endpoint::Listener);
        negotiates(begun, &[PROPOSAL], &[HEADER, PROPOSAL].concat()).await;
        hears(&mut remote, PROPOSAL).await;
    }

    #[tokio::test]
    async fn a_dialer_that_proposes_at_once_is_heard_whole() {
        for first in [&[HEADER, PROPOSAL].concat()[..], b"GET / HTTP/1.1\r\n\r\n"] {
            let (ours, mut remote) = pair().await;
            let says = tokio::io::AsyncWriteExt::write_all(&mut remote, first);
            says.await.unwrap();
            let (begun, role) = fitting(ours, Endpoint::Listener).await;
            assert_eq!(role, Endpoint::Listener);
            negotiates(begun, &[], first).await;
            hears(&mut remote, HEADER).await;
        }
    }

    #[tokio::test]
    async fn a_silent_remote_is_spoken_to() {
        let (ours, _remote) = pair().await;
        let (_, role) = fitting(ours, Endpoint::Listener).await;
        assert_eq!(role, Endpoint::Dialer);
    }
}
