//! The exchanges on one connection to a relay, both ways. What the relay can make this node hold is [`MAX_EXCHANGES`] streams,
//! each with one message of bounded length, for [`TIMEOUT`].

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    io,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncWriteExt as _, FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered,
};
use libp2p::{
    InboundUpgrade, PeerId, Stream, StreamProtocol,
    core::{UpgradeInfo, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use p2pnode_protocol::{
    introduction::{self as meet, Answer, Introduction, Request},
    upgrade,
};

use crate::core::introductions::IntroductionReply;

/// Exchanges at once on one connection, each way. Further introductions are dropped unread, and further questions not asked.
const MAX_EXCHANGES: usize = 64;

/// How long the relay may take to answer, the opening of the stream included, or to say an introduction. What comes later is of
/// no use.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is told to the behaviour.
#[derive(Debug)]
pub(crate) enum Report {
    /// The question for this peer has ended.
    Told(PeerId, IntroductionReply),
    /// A peer has asked for this node.
    Heard(Introduction),
}

/// The protocol, if it is spoken on this connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer(bool);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.then_some(meet::PROTOCOL).into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

/// The handler of one connection.
pub(crate) struct Handler {
    /// Whether it leads to a relay of ours. Otherwise the protocol is not spoken on it.
    is_relay: bool,
    wanted: VecDeque<Request>,
    /// Streams that are being opened.
    opening: usize,
    asking: FuturesUnordered<BoxFuture<'static, (PeerId, IntroductionReply)>>,
    hearing: FuturesUnordered<BoxFuture<'static, io::Result<Introduction>>>,
    reports: VecDeque<Report>,
}

impl Handler {
    /// Speaks the protocol, or not.
    pub(super) fn new(is_relay: bool) -> Self {
        Self {
            is_relay,
            wanted: VecDeque::new(),
            opening: 0,
            asking: FuturesUnordered::new(),
            hearing: FuturesUnordered::new(),
            reports: VecDeque::new(),
        }
    }

    fn hear(&mut self, mut stream: Stream) {
        if self.hearing.len() >= MAX_EXCHANGES {
            tracing::debug!("dropped an introduction: {MAX_EXCHANGES} are open on this connection");
            return;
        }
        // The leg lives for its own reasons.
        stream.ignore_for_keep_alive();
        let hearing = in_time(async move {
            let introduction = meet::read(&mut stream).await?;
            // The end is how the relay learns that it was heard. An error says that the relay does not wait for it.
            let _ = stream.close().await;
            Ok(introduction)
        });
        self.hearing.push(hearing.boxed());
    }
}

async fn in_time<T>(exchange: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .unwrap_or_else(|elapsed| Err(elapsed.into()))
}

/// Asks over a stream that is negotiated lazily: that the relay does not speak the protocol shows in its answer.
async fn ask(mut stream: Stream, request: Request) -> (PeerId, IntroductionReply) {
    stream.ignore_for_keep_alive();
    let answered = in_time(async {
        meet::write(&mut stream, &request).await?;
        stream.close().await?;
        meet::read(&mut stream).await
    });
    let told = match answered.await {
        Ok(Answer::Introduced(meeting)) => IntroductionReply::Introduced(meeting),
        Ok(Answer::Refused(refusal)) => IntroductionReply::Refused(refusal),
        Err(error) if upgrade::is_refusal(&error) => IntroductionReply::Unsupported,
        Err(error) => {
            tracing::debug!(%error, "no answer to the wish for an introduction");
            IntroductionReply::NoAnswer
        }
    };
    (request.peer, told)
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Request;
    type ToBehaviour = Report;
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Request;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(Offer(self.is_relay), ())
    }

    fn connection_keep_alive(&self) -> bool {
        false
    }

    fn on_behaviour_event(&mut self, request: Request) {
        if self.wanted.len() + self.opening + self.asking.len() < MAX_EXCHANGES {
            self.wanted.push_back(request);
        } else {
            self.reports
                .push_back(Report::Told(request.peer, IntroductionReply::NoAnswer));
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Request, Report>> {
        if let Some(request) = self.wanted.pop_front() {
            self.opening += 1;
            let protocol = ReadyUpgrade::new(meet::PROTOCOL);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(protocol, request).with_timeout(TIMEOUT),
            });
        }
        while let Poll::Ready(Some((peer, told))) = self.asking.poll_next_unpin(cx) {
            self.reports.push_back(Report::Told(peer, told));
        }
        while let Poll::Ready(Some(heard)) = self.hearing.poll_next_unpin(cx) {
            match heard {
                Ok(introduction) => self.reports.push_back(Report::Heard(introduction)),
                Err(error) => {
                    tracing::debug!(%error, "no introduction came over a stream for one");
                }
            }
        }
        match self.reports.pop_front() {
            Some(report) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report)),
            None => Poll::Pending,
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "a stream is opened or not; the rest changes nothing here"
    )]
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Request>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => self.hear(stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info,
            }) => {
                self.opening = self.opening.saturating_sub(1);
                self.asking.push(ask(stream, info).boxed());
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.opening = self.opening.saturating_sub(1);
                let told = match error {
                    StreamUpgradeError::NegotiationFailed => IntroductionReply::Unsupported,
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => {
                        IntroductionReply::NoAnswer
                    }
                    StreamUpgradeError::Apply(never) => match never {},
                };
                self.reports.push_back(Report::Told(info.peer, told));
            }
            _ => {}
        }
    }
}
