//! A TCP stream, its lease on a port, and its end.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::tcp;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, runtime::Handle, time::timeout};

use super::auth::Refusal;
use crate::net::{ports::Lease, sock_diag, socket};

/// How long the remote may take to answer the FIN of a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that may wait for that at once, in this process. A remote that lets many be refused and answers no FIN would keep a
/// file open for each: beyond these, connections are reset at once.
const ENDING: usize = 32;

/// How long a connection is kept that cannot be reset, because a NAT would not take the reset for one of this connection: as long as
/// Linux's conntrack remembers a connection whose data nobody acknowledges (`nf_conntrack_tcp_timeout_max_retrans`).
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Connections that are kept so at once, in this process.
const KEPT: usize = 16;

/// The most segments in flight with which a reset has the sequence number that NATs expect: that behind the last segment.
const EXACT: u32 = 1;

/// A stream. A port of the range other than the punch port is given back when it is closed.
///
/// A dropped stream is closed, and reset if the remote does not answer: on a cut path the kernel would repeat what was sent for
/// minutes. Until then nobody can dial the same remote from the same port. NATs on the way take the SYN of a new connection for a
/// part of the old one and drop it. The next punch has just this 4-tuple.
pub(crate) struct Stream {
    /// There until the drop.
    inner: Option<tcp::tokio::TcpStream>,
    lease: Option<Lease>,
    refusals: Vec<Refusal>,
}

impl Stream {
    /// A stream that was connected or accepted on the punch port, or from a leased port.
    pub(crate) fn new(stream: TcpStream, lease: Option<Lease>) -> Self {
        Self {
            inner: Some(tcp::tokio::TcpStream(stream)),
            lease,
            refusals: Vec::new(),
        }
    }

    /// Makes the drop a reset if the offer was refused or given up: the next connection has the same 4-tuple.
    pub(crate) fn reset_if(mut self, refusal: Refusal) -> Self {
        self.refusals.push(refusal);
        self
    }

    /// What it is made of, before anything is negotiated.
    pub(super) fn raw(&mut self) -> io::Result<&mut TcpStream> {
        let inner = self.inner.as_mut().map(|stream| &mut stream.0);
        inner.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn inner(&mut self) -> io::Result<Pin<&mut tcp::tokio::TcpStream>> {
        let inner = self.inner.as_mut().map(Pin::new);
        inner.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(tcp::tokio::TcpStream(stream)) = self.inner.take() else {
            return;
        };
        let lease = self.lease.take();
        let ending =
            Place::take(&ENDS, ENDING).filter(|_| !self.refusals.iter().any(Refusal::is_given));
        let Some(ending) = ending else {
            reset(&stream);
            drop(stream);
            drop(lease);
            return;
        };
        // Without a runtime nothing can wait: the socket is closed, and the kernel does the rest.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Some(kept) = end(stream).await {
                    drop(ending);
                    keep(kept).await;
                }
                // The port is free once the socket is closed.
                drop(lease);
            });
        }
    }
}

/// A place among a bounded number of connections that wait.
struct Place(&'static AtomicUsize);

impl Place {
    fn take(count: &'static AtomicUsize, most: usize) -> Option<Self> {
        let more = |taken| (taken < most).then_some(taken + 1);
        let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        // One that was not taken must not be made and dropped either: its drop would count.
        taken.ok().map(|_| Self(count))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Those that wait for the answer to their FIN.
static ENDS: AtomicUsize = AtomicUsize::new(0);

/// Those that are kept.
static KEEPS: AtomicUsize = AtomicUsize::new(0);

/// Closes a connection. Returns it if it is to be kept: see [`keep`].
async fn end(mut stream: TcpStream) -> Option<(TcpStream, Place)> {
    let answered = async {
        stream.shutdown().await?;
        // The end of file, or data that nobody will read: the kernel answers either.
        stream.peek(&mut [0]).await
    };
    if timeout(CLOSE_TIMEOUT, answered).await.is_ok() {
        return None;
    }
    if let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr())
        && let Some(unacked) = sock_diag::unacked(local.port(), remote)
        && unacked > EXACT
        && let Some(place) = Place::take(&KEEPS, KEPT)
    {
        tracing::debug!(%local, %remote, unacked, "keeping a tcp connection whose remote does not answer its FIN: its repeated segments tell the NATs");
        return Some((stream, place));
    }
    tracing::debug!("resetting a tcp connection whose remote does not answer its FIN");
    reset(&stream);
    None
}

/// Keeps a connection with bulk data in flight until it ends by itself. A reset would come from beyond what NATs have seen of it: they
/// take it for forged, remember the connection for minutes, and drop the SYNs of the next one. Once the path is back, a segment that
/// the kernel repeats finds the remote's end closed or closing, and what that answers ends the connection in the NATs of both sides.
async fn keep((mut stream, _place): (TcpStream, Place)) {
    let drained = async { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await };
    match timeout(KEPT_FOR, drained).await {
        Ok(ended) => tracing::debug!(?ended, "a kept tcp connection has ended"),
        Err(_) => reset(&stream),
    }
}

fn reset(stream: &TcpStream) {
    if let Err(error) = socket::reset_on_close(stream) {
        tracing::debug!(%error, "cannot reset; the kernel closes the connection in its own time");
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_place_to_end_in_takes_none_from_others() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut held = Vec::new();
        for _ in 0..12 {
            held.extend(Place::take(&COUNT, 4));
        }
        assert_eq!((held.len(), COUNT.load(Ordering::Relaxed)), (4, 4));
        held.clear();
        assert!(Place::take(&COUNT, 4).is_some());
        assert_eq!(COUNT.load(Ordering::Relaxed), 0);
    }
}
