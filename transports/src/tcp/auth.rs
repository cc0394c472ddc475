//! From a TCP stream to an authenticated, multiplexed connection: multistream-select, TLS 1.3 or Noise, yamux.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncRead, AsyncWrite, FutureExt, TryFutureExt as _,
    future::{self, BoxFuture},
};
use futures_rustls::TlsStream;
use libp2p::{
    PeerId,
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent},
        upgrade::{
            InboundConnectionUpgrade, NegotiationError, OutboundConnectionUpgrade, ProtocolError,
            UpgradeInfo, Version,
        },
    },
    identity::Keypair,
    multiaddr::Multiaddr,
    noise,
};
use rustls::HandshakeType;
use tokio::net::TcpStream;

use super::{
    eof_is_error::EofIsError,
    last_word::LastWord,
    read_buffer::{Heard, ReadBuffer},
    write_coalescer::CoalescedYamux,
    yamux::Yamux,
};
use crate::{
    net::{
        budget::Budgets,
        closed::causes,
        connection::Connection,
        error::{Error, chain},
        identify::IdentifyTcp,
        proposals::LimitedProposals,
    },
    tls::Tls,
};

/// How long both sides may take to agree on encryption and multiplexing: libp2p's own bound for setting up a connection. Without
/// it a remote that connects and stays silent would hold a socket for ever.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The step that takes too long then. TCP's own handshake is over by that time.
pub(super) const HANDSHAKE: &str = "the TLS or Noise handshake over TCP";

/// The upgrade of TCP streams, the same for all of a node.
#[derive(Clone)]
pub(crate) struct Upgrade {
    tls: Tls,
    noise: noise::Config,
    budgets: Budgets,
}

/// What the dialer offers the remote.
#[derive(Debug, Clone)]
pub(crate) enum Offer {
    /// TLS, and Noise if the remote refuses TLS. The answer costs a round trip.
    Both,
    /// TLS alone, with its first flight right behind the offer. A remote that refuses takes that flight for another offer, which it
    /// cannot parse, so a refusal ends the connection.
    Tls(Refusal),
    /// Noise alone, likewise.
    Noise,
}

/// Whether the remote has refused every offer, or the dialer gave the connection up. Known before the stream is dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusal(Arc<AtomicBool>);

impl Refusal {
    pub(crate) fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The dialer gives the connection up.
    pub(super) fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Notes a refusal, if `error` is one.
    fn see(&self, error: &io::Error, heard: &Heard) {
        if is_failed(error) && heard.is_set() {
            self.give();
        }
    }
}

/// Whether a negotiation ended without a protocol. The end of the stream is such an end as well, so that this is a refusal only of a
/// remote that has sent something: the first thing that a remote of libp2p sends is not an answer.
fn is_failed(error: &io::Error) -> bool {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        matches!(error.downcast_ref(), Some(NegotiationError::Failed))
    };
    causes(error).any(failed)
}

impl Upgrade {
    pub(crate) fn new(keypair: &Keypair, tls: Tls, budgets: Budgets) -> Result<Self, Error> {
        let noise =
            noise::Config::new(keypair).map_err(|error| Error::Certificate(chain(&error)))?;
        Ok(Self {
            tls,
            noise,
            budgets,
        })
    }

    /// The handshake of a dialer, for the id of who answers alone.
    pub(crate) fn identify(&self) -> IdentifyTcp {
        let upgrade = self.clone();
        Arc::new(move |stream, remote| {
            let stream = libp2p::tcp::tokio::TcpStream(stream);
            let connection = upgrade.apply(stream, remote, Endpoint::Dialer, Offer::Both);
            connection.map_ok(|(peer, _)| peer).boxed()
        })
    }

    /// Authenticates and multiplexes `stream` in this role. The role does not depend on who opened the stream: in a punch both
    /// sides did. The dialer offers, the listener takes either.
    pub(crate) fn apply<S>(
        &self,
        stream: S,
        remote: SocketAddr,
        role: Endpoint,
        offer: Offer,
    ) -> BoxFuture<'static, Result<Connection, Error>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = ReadBuffer::new(stream);
        let heard = stream.heard();
        let stream = LimitedProposals::new(stream);
        let security = Security {
            heard: heard.clone(),
            offer: match role {
                Endpoint::Dialer => offer,
                Endpoint::Listener => Offer::Both,
            },
            tls: self.tls.clone(),
            noise: self.noise.clone(),
        };
        // The lazy variant saves a round trip where one protocol is offered: yamux, and TLS or Noise if `offer` is one of them. It
        // changes when the dialer flushes, not who sends first, so it works with roles that a punch has overridden.
        let budgets = self.budgets.clone();
        let mut upgrade = Established(Some(stream))
            .upgrade(Version::V1Lazy)
            .authenticate(security)
            .multiplex_ext(move |peer, _| {
                CoalescedYamux(Yamux::within(budgets, *peer).over_tcp(remote))
            })
            .boxed();
        let opts = DialOpts {
            role,
            port_use: PortUse::Reuse,
        };
        let dial = upgrade.dial(Multiaddr::empty(), opts);
        async move {
            let handshake = async {
                match dial {
                    Ok(dial) => dial.await,
                    Err(TransportError::Other(error)) => Err(error),
                    Err(error @ TransportError::MultiaddrNotSupported(_)) => {
                        Err(io::Error::other(error))
                    }
                }
            };
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err(error)) if is_failed(&error) && !heard.is_set() => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    Err(Error::handshake(remote, &error))
                }
                Ok(Err(error)) if role == Endpoint::Dialer && is_of_dialer(&error) => {
                    Err(Error::BothDialed { remote })
                }
                Ok(Err(error)) => Err(Error::handshake(remote, &error)),
                Err(_) => Err(Error::timeout(HANDSHAKE, HANDSHAKE_TIMEOUT)),
            }
        }
        .boxed()
    }
}

/// Whether the remote of a dialer is a dialer itself: it names another protocol first, or begins TLS as a client.
fn is_of_dialer(error: &io::Error) -> bool {
    let is_it = |error: &(dyn std::error::Error + 'static)| {
        matches!(
            error.downcast_ref(),
            Some(NegotiationError::ProtocolError(
                ProtocolError::InvalidMessage
            ))
        ) || matches!(
            error.downcast_ref(),
            Some(rustls::Error::InappropriateHandshakeMessage {
                got_type: HandshakeType::ClientHello,
                ..
            })
        )
    };
    causes(error).any(is_it)
}

/// Whether the remote speaks STUN: its first byte is 0 or 1, and that of a negotiation is neither.
pub(crate) async fn is_stun(stream: &TcpStream) -> Result<bool, Error> {
    let mut first = [0xff];
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)).await {
        // What is wrong with the connection shows when it is read.
        Ok(Ok(_) | Err(_)) => Ok(matches!(first, [0 | 1])),
        Err(_) => Err(Error::timeout(HANDSHAKE, HANDSHAKE_TIMEOUT)),
    }
}

/// The name of TLS in the negotiation.
const TLS: &str = "/tls/1.0.0";

/// TLS 1.3 ([spec](https://github.com/libp2p/specs/blob/master/tls/tls.md)) or Noise
/// ([spec](https://github.com/libp2p/specs/tree/master/noise)). TLS is offered first: its AES-GCM runs on the processor's
/// AES instructions and moves more bytes per core than Noise's ChaCha20.
#[derive(Clone)]
struct Security {
    heard: Heard,
    offer: Offer,
    tls: Tls,
    noise: noise::Config,
}

/// A stream on which yamux is negotiated.
type Secured<C> =
    LimitedProposals<future::Either<LastWord<TlsStream<C>>, EofIsError<noise::Output<C>>>>;

fn tls<C>(stream: TlsStream<C>) -> Secured<C> {
    LimitedProposals::new(future::Either::Left(LastWord::new(stream)))
}

fn noise<C>(stream: noise::Output<C>) -> Secured<C> {
    LimitedProposals::new(future::Either::Right(EofIsError(stream)))
}

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = std::vec::IntoIter<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        let (tls, noise) = match &self.offer {
            Offer::Both => (true, true),
            Offer::Tls(_) => (true, false),
            Offer::Noise => (false, true),
        };
        let tls = tls.then_some(TLS).into_iter();
        let noise = noise.then(|| self.noise.protocol_info()).into_iter();
        tls.chain(noise.flatten()).collect::<Vec<_>>().into_iter()
    }
}

impl<C> InboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, stream: C, protocol: Self::Info) -> Self::Future {
        async move {
            if protocol == TLS {
                let (peer, stream) = self.tls.accept(stream).await?;
                return Ok((peer, tls(stream)));
            }
            let done = self.noise.upgrade_inbound(stream, protocol).await;
            let (peer, stream) = done.map_err(io::Error::other)?;
            Ok((peer, noise(stream)))
        }
        .boxed()
    }
}

impl<C> OutboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, stream: C, protocol: Self::Info) -> Self::Future {
        async move {
            if protocol == TLS {
                let failed = |error: &io::Error| {
                    if let Offer::Tls(refusal) = &self.offer {
                        refusal.see(error, &self.heard);
                    }
                };
                let (peer, stream) = self.tls.connect(stream, failed).await?;
                return Ok((peer, tls(stream)));
            }
            let done = self.noise.upgrade_outbound(stream, protocol).await;
            let (peer, stream) = done.map_err(io::Error::other)?;
            Ok((peer, noise(stream)))
        }
        .boxed()
    }
}

/// A transport whose only dial yields an open stream. libp2p applies upgrades to transports only; a punch applies them to streams
/// from elsewhere, in a role that is known only then.
struct Established<S>(Option<S>);

impl<S> Transport for Established<S> {
    type Output = S;
    type Error = io::Error;
    type ListenerUpgrade = future::Pending<io::Result<S>>;
    type Dial = future::Ready<io::Result<S>>;

    fn listen_on(
        &mut self,
        _: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let stream = self
            .0
            .take()
            .ok_or(TransportError::MultiaddrNotSupported(addr))?;
        Ok(future::ready(Ok(stream)))
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Poll::Pending
    }
}
