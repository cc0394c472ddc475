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
use crate::net::{ports::Lease, socket};

/// How long the remote may take to answer the FIN of a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that may wait for that at once, in this process. A remote that lets many be refused and answers no FIN would keep a
/// file open for each: beyond these, connections are reset at once.
const ENDING: usize = 32;

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
        let ending = Ending::begin().filter(|_| !self.refusals.iter().any(Refusal::is_given));
        let Some(ending) = ending else {
            if let Err(error) = socket::reset_on_close(&stream) {
                tracing::debug!(%error, "cannot reset; the kernel closes the connection in its own time");
            }
            drop(stream);
            drop(lease);
            return;
        };
        // Without a runtime nothing can wait: the socket is closed, and the kernel does the rest.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                end(stream).await;
                drop(ending);
                // The port is free once the socket is closed.
                drop(lease);
            });
        }
    }
}

/// A connection that waits for its end; there are [`ENDING`] at most.
struct Ending;

impl Ending {
    fn begin() -> Option<Self> {
        let more = |count| (count < ENDING).then_some(count + 1);
        let begun = COUNT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        // One that has not begun must not be made and dropped either: its drop would count.
        begun.ok().map(|_| Self)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Closes a connection.
async fn end(mut stream: TcpStream) {
    let answered = async {
        stream.shutdown().await?;
        // The end of file, or data that nobody will read: the kernel answers either.
        stream.peek(&mut [0]).await
    };
    if timeout(CLOSE_TIMEOUT, answered).await.is_err() {
        tracing::debug!("resetting a tcp connection whose remote does not answer its FIN");
        if let Err(error) = socket::reset_on_close(&stream) {
            tracing::debug!(%error, "cannot reset; the kernel closes the connection in its own time");
        }
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
        let mut held = Vec::new();
        for _ in 0..3 * ENDING {
            held.extend(Ending::begin());
            assert!(held.len() <= ENDING);
            // Other tests may hold some as well.
            assert!((held.len()..=ENDING).contains(&COUNT.load(Ordering::Relaxed)));
        }
        assert!(Ending::begin().is_none());
    }
}
