//! The exchanges on one connection, both ways: the peer asks, and is told. What a remote can make it hold is [`MAX_EXCHANGES`]
//! streams each way, each with one message of bounded length, for [`TIMEOUT`].

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll},
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, channel::oneshot};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use p2pnode_protocol::introduction::{self as meet, Answer, Introduction, Request};
use tracing::debug;

use crate::swarm::{
    exchange::{self, Questions, TIMEOUT, in_time},
    pending_futures::AtWork,
};

/// Exchanges at once on one connection, each way. Further questions are dropped unread, and further introductions not made.
const MAX_EXCHANGES: usize = 32;

/// What the peer asks, and how many questions at once.
struct Meet;

impl exchange::Protocol for Meet {
    const NAME: StreamProtocol = meet::PROTOCOL;
    const AT_ONCE: usize = MAX_EXCHANGES;
    const LONGEST: usize = meet::MAX_MESSAGE;
    type Request = Request;
    type Answer = Answer;
}

/// What is told to the behaviour.
#[derive(Debug)]
pub(crate) enum Report {
    /// The peer asks.
    Asked(Request, oneshot::Sender<Answer>),
    /// The peer has taken an introduction, or has not.
    Told(bool),
}

/// The handler of one connection.
#[derive(Default)]
pub(crate) struct Handler {
    questions: Questions<Meet>,
    /// To be told over streams that are not asked for yet.
    wanted: VecDeque<Introduction>,
    /// Streams that are being opened.
    opening: usize,
    telling: AtWork<io::Result<()>>,
    /// Introductions that are not made.
    dropped: usize,
}

/// Says it and waits for the end of the stream, without which one that is negotiated lazily may end before it has begun.
async fn tell(mut stream: Stream, introduction: Introduction) -> io::Result<()> {
    stream.ignore_for_keep_alive();
    meet::write(&mut stream, &introduction).await?;
    stream.close().await?;
    // A byte would be none of this protocol, and is not waited beyond.
    let _end = stream.read(&mut [0]).await?;
    Ok(())
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Introduction;
    type ToBehaviour = Report;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Introduction;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(meet::PROTOCOL), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Introduction, Report>> {
        if let Some(introduction) = self.wanted.pop_front() {
            self.opening += 1;
            let protocol = ReadyUpgrade::new(meet::PROTOCOL);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(protocol, introduction).with_timeout(TIMEOUT),
            });
        }
        if self.dropped > 0 {
            self.dropped -= 1;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Report::Told(false)));
        }
        if let Poll::Ready((request, reply)) = self.questions.poll(cx) {
            let report = Report::Asked(request, reply);
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        if let Poll::Ready(told) = self.telling.poll(cx) {
            if let Err(error) = &told {
                debug!(%error, "an introduction was not delivered");
            }
            let report = Report::Told(told.is_ok());
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, introduction: Introduction) {
        if self.wanted.len() + self.opening + self.telling.len() >= MAX_EXCHANGES {
            self.dropped += 1;
        } else {
            self.wanted.push_back(introduction);
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "a stream is opened or not; the rest changes nothing here"
    )]
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Introduction>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => self.questions.take(stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info,
            }) => {
                self.opening = self.opening.saturating_sub(1);
                self.telling.push(in_time(tell(stream, info)).boxed());
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                debug!(%error, "an introduction was not delivered");
                self.opening = self.opening.saturating_sub(1);
                self.dropped += 1;
            }
            _ => {}
        }
    }
}
