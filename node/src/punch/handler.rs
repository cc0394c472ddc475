//! The handshake on one relayed connection. On direct connections the handler is idle and offers the node's preference alone.
//!
//! The handler decides nothing. It asks the behaviour what to offer and whether to answer, at the moment of need. A remote can
//! make the handler hold one inbound stream, one message and one deadline.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::{
    InboundUpgrade, OutboundUpgrade, StreamProtocol,
    core::UpgradeInfo,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, Stream, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use p2pnode_protocol::{
    Family,
    dcutr::{self, Addresses, Message, PROTOCOL},
    preference,
    upgrade::is_refusal,
};
use tokio::time::{Sleep, sleep};

use super::{machine::HandshakeError, record::Role};

/// How long a handshake may take on each side, the time to open its stream included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A command of the behaviour to the handler.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open a stream and send CONNECT with these.
    Connect(Addresses),
    /// Answer the CONNECT that was received with these.
    Reply(Addresses),
    /// Drop the handshake in which this node has that role.
    Drop(Role),
    /// Whether punching needs the connection.
    KeepAlive(bool),
}

/// A report of the handler to the behaviour.
#[derive(Debug)]
pub(crate) enum Report {
    /// CONNECT came. [`Command::Reply`] or [`Command::Drop`] is awaited.
    Connect(Addresses),
    /// SYNC came.
    Sync,
    /// CONNECT was answered, and SYNC sent.
    Answer {
        /// What the answer lists.
        addrs: Addresses,
        /// From CONNECT to the answer.
        rtt: Duration,
        /// When SYNC went out.
        synced: Instant,
    },
    /// A handshake broke off.
    Failed(Role, HandshakeError),
}

/// The handler of one connection.
pub(crate) struct Handler {
    /// Whether this handler offers the protocol.
    active: bool,
    /// The family that this node prefers.
    prefers: Option<Family>,
    keep_alive: bool,
    /// The next stream to ask for.
    request: Option<u64>,
    outbound: Outbound,
    /// Numbers the outbound handshakes, so that a late stream is not taken for the awaited one.
    current: u64,
    inbound: Inbound,
    failed: Option<(Role, HandshakeError)>,
}

enum Outbound {
    Idle,
    Opening { addrs: Addresses },
    Talking(BoxFuture<'static, Result<Report, HandshakeError>>),
}

enum Inbound {
    Idle,
    Reading(BoxFuture<'static, Result<(Stream, Addresses), HandshakeError>>),
    /// The behaviour decides.
    Asking {
        stream: Stream,
        deadline: Pin<Box<Sleep>>,
    },
    Syncing(BoxFuture<'static, Result<(), HandshakeError>>),
}

impl Handler {
    /// A handler that offers the protocol: for a relayed connection.
    pub(super) fn active(prefers: Option<Family>) -> Self {
        Self::new(true, prefers)
    }

    /// A handler that does not: for a direct connection, or with punching off.
    pub(super) fn inert(prefers: Option<Family>) -> Self {
        Self::new(false, prefers)
    }

    fn new(active: bool, prefers: Option<Family>) -> Self {
        Self {
            active,
            prefers,
            keep_alive: active,
            request: None,
            outbound: Outbound::Idle,
            current: 0,
            inbound: Inbound::Idle,
            failed: None,
        }
    }

    fn take_inbound(&mut self, stream: Stream) {
        if matches!(self.inbound, Inbound::Idle) {
            self.inbound = Inbound::Reading(within_deadline(receive_connect(stream)));
        } else {
            tracing::debug!("dropped a DCUtR stream: another one is open");
        }
    }

    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        let Outbound::Talking(talk) = &mut self.outbound else {
            return Poll::Pending;
        };
        let done = futures::ready!(talk.poll_unpin(cx));
        self.outbound = Outbound::Idle;
        Poll::Ready(done.unwrap_or_else(|error| Report::Failed(Role::Initiator, error)))
    }

    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        match &mut self.inbound {
            Inbound::Idle => Poll::Pending,
            Inbound::Reading(read) => match futures::ready!(read.poll_unpin(cx)) {
                Ok((stream, addrs)) => {
                    self.inbound = Inbound::Asking {
                        stream,
                        deadline: Box::pin(sleep(HANDSHAKE_TIMEOUT)),
                    };
                    Poll::Ready(Report::Connect(addrs))
                }
                Err(error) => self.inbound_failed(error),
            },
            Inbound::Asking { deadline, .. } => {
                futures::ready!(deadline.poll_unpin(cx));
                self.inbound_failed(HandshakeError::Timeout)
            }
            Inbound::Syncing(sync) => match futures::ready!(sync.poll_unpin(cx)) {
                Ok(()) => {
                    self.inbound = Inbound::Idle;
                    Poll::Ready(Report::Sync)
                }
                Err(error) => self.inbound_failed(error),
            },
        }
    }

    fn inbound_failed(&mut self, error: HandshakeError) -> Poll<Report> {
        self.inbound = Inbound::Idle;
        Poll::Ready(Report::Failed(Role::Responder, error))
    }
}

/// Sends CONNECT, takes the answer, sends SYNC.
async fn initiate(mut stream: Stream, addrs: Addresses) -> io::Result<Report> {
    dcutr::write(&mut stream, &Message::Connect(addrs)).await?;
    let sent = tokio::time::Instant::now();
    let Message::Connect(addrs) = dcutr::read(&mut stream).await? else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "SYNC where CONNECT was due",
        ));
    };
    let rtt = sent.elapsed();
    dcutr::write(&mut stream, &Message::Sync).await?;
    let synced = tokio::time::Instant::now().into_std();
    // SYNC has been flushed: how the stream ends no longer matters.
    let _ = stream.close().await;
    Ok(Report::Answer { addrs, rtt, synced })
}

async fn receive_connect(mut stream: Stream) -> io::Result<(Stream, Addresses)> {
    match dcutr::read(&mut stream).await? {
        Message::Connect(addrs) => Ok((stream, addrs)),
        Message::Sync => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "SYNC where CONNECT was due",
        )),
    }
}

async fn answer(mut stream: Stream, addrs: Addresses) -> io::Result<()> {
    dcutr::write(&mut stream, &Message::Connect(addrs)).await?;
    match dcutr::read(&mut stream).await? {
        Message::Sync => Ok(()),
        Message::Connect(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "CONNECT where SYNC was due",
        )),
    }
}

fn within_deadline<T: Send + 'static>(
    talk: impl Future<Output = io::Result<T>> + Send + 'static,
) -> BoxFuture<'static, Result<T, HandshakeError>> {
    async {
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, talk).await {
            Ok(Ok(done)) => Ok(done),
            // In a swarm that negotiates lazily this comes out here.
            Ok(Err(error)) if is_refusal(&error) => Err(HandshakeError::Unsupported),
            Ok(Err(error)) => {
                tracing::debug!(%error, "DCUtR handshake broke off");
                Err(HandshakeError::Broken)
            }
            Err(_) => Err(HandshakeError::Timeout),
        }
    }
    .boxed()
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Report;
    type InboundProtocol = Inbounds;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = u64;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let protocol = self.active.then_some(PROTOCOL);
        SubstreamProtocol::new(Inbounds(protocol, self.prefers.map(preference::name)), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep_alive
    }

    fn on_behaviour_event(&mut self, command: Command) {
        match command {
            Command::Connect(addrs) => {
                self.current += 1;
                self.request = Some(self.current);
                self.outbound = Outbound::Opening { addrs };
            }
            Command::Reply(addrs) => {
                self.inbound = match std::mem::replace(&mut self.inbound, Inbound::Idle) {
                    Inbound::Asking { stream, .. } => {
                        Inbound::Syncing(within_deadline(answer(stream, addrs)))
                    }
                    other @ (Inbound::Idle | Inbound::Reading(_) | Inbound::Syncing(_)) => other,
                };
            }
            Command::Drop(Role::Initiator) => {
                self.outbound = Outbound::Idle;
                self.request = None;
            }
            Command::Drop(Role::Responder) => self.inbound = Inbound::Idle,
            Command::KeepAlive(keep) => self.keep_alive = keep,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, u64, Report>> {
        if let Some(number) = self.request.take() {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Offer, number).with_timeout(HANDSHAKE_TIMEOUT),
            });
        }
        if let Some((role, error)) = self.failed.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Report::Failed(
                role, error,
            )));
        }
        if let Poll::Ready(report) = self.poll_outbound(cx) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        self.poll_inbound(cx)
            .map(ConnectionHandlerEvent::NotifyBehaviour)
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "no inbound upgrade fails by itself, and the remote's protocols are not needed"
    )]
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Inbounds, Offer, (), u64>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: Some(stream),
                ..
            }) => {
                self.take_inbound(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info,
            }) => {
                self.outbound = match std::mem::replace(&mut self.outbound, Outbound::Idle) {
                    Outbound::Opening { addrs } if info == self.current => {
                        Outbound::Talking(within_deadline(initiate(stream, addrs)))
                    }
                    other @ (Outbound::Idle | Outbound::Opening { .. } | Outbound::Talking(_)) => {
                        other
                    }
                };
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error })
                if info == self.current && matches!(self.outbound, Outbound::Opening { .. }) =>
            {
                self.outbound = Outbound::Idle;
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => HandshakeError::Unsupported,
                    StreamUpgradeError::Timeout => HandshakeError::Timeout,
                    StreamUpgradeError::Io(_) => HandshakeError::Broken,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                self.failed = Some((Role::Initiator, error));
            }
            _ => {}
        }
    }
}

/// What a remote may open: the protocol, if it is offered, and the name of this node's preference, over which nothing is spoken.
#[derive(Debug, Clone)]
pub(crate) struct Inbounds(Option<StreamProtocol>, Option<StreamProtocol>);

impl UpgradeInfo for Inbounds {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Chain<
        std::option::IntoIter<StreamProtocol>,
        std::option::IntoIter<StreamProtocol>,
    >;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter().chain(self.1.clone())
    }
}

impl InboundUpgrade<Stream> for Inbounds {
    type Output = Option<Stream>;
    type Error = Infallible;
    type Future = Ready<Result<Option<Stream>, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol == PROTOCOL).then_some(stream)))
    }
}

/// The outbound upgrade.
#[derive(Debug, Clone)]
pub(crate) struct Offer;

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}
