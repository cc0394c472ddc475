//! Fewer and larger writes of a stream that carries yamux.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};

use super::yamux::{Yamux, YamuxConnection};

/// How many bytes are collected: four records of TLS, and as much as rustls takes at once.
const CAPACITY: usize = 64 << 10;

/// A flush of fewer bytes frees the buffer: an idle connection has none.
const FEW: usize = 4 << 10;

/// A stream whose frames are written together.
///
/// yamux writes the header and the body of each frame (16 KiB at most) one after the other, and flushes before it looks for another
/// frame. Over TLS each frame would become two records and two packets, one of them with 12 bytes. yamux has written all its
/// frames when it begins to read, so a flush waits for that. A second flush without a write in between is done at once: nothing stays here only
/// because nobody reads.
pub(crate) struct WriteCoalescer<S> {
    inner: S,
    gathered: Vec<u8>,
    /// How much of that is written already.
    written: usize,
    flush: Flush,
}

/// Whether a flush is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// Nothing was written since the last one.
    Done,
    /// Something was written since, and no flush was requested.
    Unasked,
    /// A flush was requested and put off.
    Owed,
}

impl<S> WriteCoalescer<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            gathered: Vec::new(),
            written: 0,
            flush: Flush::Done,
        }
    }
}

impl<S: AsyncWrite + Unpin> WriteCoalescer<S> {
    /// Writes what was collected.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let rest = &self.gathered[self.written..];
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        if self.gathered.len() < FEW {
            self.gathered = Vec::new();
        }
        self.gathered.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_flush_now(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.flush = Flush::Done;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WriteCoalescer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.flush == Flush::Owed {
            // A flush that blocks wakes this task later. What is read in the meantime may unblock the remote.
            if let Poll::Ready(Err(error)) = self.poll_flush_now(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteCoalescer<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.gathered.len() == CAPACITY {
            ready!(this.poll_empty(cx))?;
        }
        this.flush = Flush::Unasked;
        if this.gathered.is_empty() && buf.len() >= CAPACITY {
            return Pin::new(&mut this.inner).poll_write(cx, buf);
        }
        let taken = buf.len().min(CAPACITY - this.gathered.len());
        if this.gathered.len() + taken >= FEW && this.gathered.capacity() < CAPACITY {
            // All at once, not by doubling.
            this.gathered.reserve_exact(CAPACITY - this.gathered.len());
        }
        this.gathered.extend_from_slice(&buf[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.flush {
            Flush::Unasked if self.gathered.len() < CAPACITY => {
                self.flush = Flush::Owed;
                Poll::Ready(Ok(()))
            }
            Flush::Unasked | Flush::Owed | Flush::Done => self.poll_flush_now(cx),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush_now(cx))?;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// The upgrade to yamux over a [`WriteCoalescer`].
#[derive(Clone)]
pub(crate) struct CoalescedYamux(pub(crate) Yamux);

impl UpgradeInfo for CoalescedYamux {
    type Info = <Yamux as UpgradeInfo>::Info;
    type InfoIter = <Yamux as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C> InboundConnectionUpgrade<C> for CoalescedYamux
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = YamuxConnection<WriteCoalescer<C>>;
    type Error = io::Error;
    type Future = <Yamux as InboundConnectionUpgrade<WriteCoalescer<C>>>::Future;

    fn upgrade_inbound(self, stream: C, protocol: Self::Info) -> Self::Future {
        self.0
            .upgrade_inbound(WriteCoalescer::new(stream), protocol)
    }
}

impl<C> OutboundConnectionUpgrade<C> for CoalescedYamux
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = YamuxConnection<WriteCoalescer<C>>;
    type Error = io::Error;
    type Future = <Yamux as OutboundConnectionUpgrade<WriteCoalescer<C>>>::Future;

    fn upgrade_outbound(self, stream: C, protocol: Self::Info) -> Self::Future {
        self.0
            .upgrade_outbound(WriteCoalescer::new(stream), protocol)
    }
}

#[cfg(test)]
mod tests;
