//! yamux whose errors say how the connection ended.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, TryFutureExt as _, future::MapOk};
use libp2p::{
    core::{
        muxing::{StreamMuxer, StreamMuxerEvent},
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    },
    yamux::{Config, Error, Muxer, Stream},
};

use crate::net::closed::ClosedHere;

/// The upgrade of a stream to [yamux](https://github.com/libp2p/specs/blob/master/yamux/README.md), as libp2p configures it by
/// default.
///
/// The only difference to [`libp2p::yamux::Config`]: [`closed`](crate::closed) understands the errors of its connections.
/// libp2p keeps yamux's own error in a private field.
#[derive(Debug, Clone, Default)]
pub struct Yamux(Config);

/// A connection that [`Yamux`] multiplexes.
pub struct YamuxConnection<C> {
    inner: Muxer<C>,
    is_closed_here: bool,
}

impl<C> YamuxConnection<C> {
    const fn new(inner: Muxer<C>) -> Self {
        Self {
            inner,
            is_closed_here: false,
        }
    }

    fn error(&self, error: Error) -> io::Error {
        let error = io::Error::from(error);
        let carried = error.get_ref().and_then(|error| error.downcast_ref());
        match carried {
            Some(yamux::ConnectionError::Closed) if self.is_closed_here => {
                io::Error::other(ClosedHere)
            }
            Some(_) | None => error,
        }
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
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let polled = Pin::new(&mut self.inner).poll_inbound(cx);
        polled.map_err(|error| self.error(error))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let polled = Pin::new(&mut self.inner).poll_outbound(cx);
        polled.map_err(|error| self.error(error))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_closed_here = true;
        let polled = Pin::new(&mut self.inner).poll_close(cx);
        polled.map_err(|error| self.error(error))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let polled = Pin::new(&mut self.inner).poll(cx);
        polled.map_err(|error| self.error(error))
    }
}

impl UpgradeInfo for Yamux {
    type Info = <Config as UpgradeInfo>::Info;
    type InfoIter = <Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

/// What an upgrade of libp2p's yamux yields, made ours.
type Upgraded<F, C> = MapOk<F, fn(Muxer<C>) -> YamuxConnection<C>>;

impl<C> InboundConnectionUpgrade<C> for Yamux
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = YamuxConnection<C>;
    type Error = io::Error;
    type Future = Upgraded<<Config as InboundConnectionUpgrade<C>>::Future, C>;

    fn upgrade_inbound(self, stream: C, protocol: Self::Info) -> Self::Future {
        let upgraded = self.0.upgrade_inbound(stream, protocol);
        upgraded.map_ok(YamuxConnection::new)
    }
}

impl<C> OutboundConnectionUpgrade<C> for Yamux
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = YamuxConnection<C>;
    type Error = io::Error;
    type Future = Upgraded<<Config as OutboundConnectionUpgrade<C>>::Future, C>;

    fn upgrade_outbound(self, stream: C, protocol: Self::Info) -> Self::Future {
        let upgraded = self.0.upgrade_outbound(stream, protocol);
        upgraded.map_ok(YamuxConnection::new)
    }
}
