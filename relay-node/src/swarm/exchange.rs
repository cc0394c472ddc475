//! Protocols of one question and one answer, on one connection: [`Questions`] takes questions and gives back answers, and
//! [`Handler`] is all that a protocol needs in which only the peer asks. What a remote can make them hold is [`Protocol::AT_ONCE`] streams, each with one message of bounded length, for [`TIMEOUT`].

use std::{
    convert::Infallible,
    io,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncWriteExt as _, FutureExt as _, channel::oneshot};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{DeniedUpgrade, ReadyUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
};
use p2pnode_protocol::frame;
use serde::{Serialize, de::DeserializeOwned};
use tracing::debug;

use crate::swarm::pending_futures::AtWork;

/// A protocol of one question and one answer.
pub(crate) trait Protocol: Send + 'static {
    /// Its name.
    const NAME: StreamProtocol;
    /// Exchanges at once on one connection; further streams are dropped unread.
    const AT_ONCE: usize;
    /// The most bytes of a question and of an answer.
    const LONGEST: usize = frame::MAX_MESSAGE;
    /// The question.
    type Request: DeserializeOwned + std::fmt::Debug + Send + 'static;
    /// The answer.
    type Answer: Serialize + std::fmt::Debug + Send + Sync + 'static;
}

/// How long a peer may take to ask, and then to take the answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// The questions on one connection, and their answers.
pub(crate) struct Questions<P: Protocol> {
    asking: AtWork<io::Result<(Stream, P::Request)>>,
    answering: AtWork<io::Result<()>>,
}

impl<P: Protocol> Default for Questions<P> {
    fn default() -> Self {
        Self {
            asking: AtWork::default(),
            answering: AtWork::default(),
        }
    }
}

impl<P: Protocol> Questions<P> {
    /// The peer has opened a stream.
    pub(crate) fn take(&mut self, mut stream: Stream) {
        if self.asking.len() + self.answering.len() >= P::AT_ONCE {
            debug!(protocol = %P::NAME, "dropped a question: {} are open on this connection", P::AT_ONCE);
            return;
        }
        // A question is no reason to keep a connection that has no other.
        stream.ignore_for_keep_alive();
        self.asking.push(
            in_time(async move {
                let request = frame::read_up_to(P::LONGEST, &mut stream).await?;
                Ok((stream, request))
            })
            .boxed(),
        );
    }

    /// The next question, and where its answer goes. If that is dropped, the stream closes without one.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(P::Request, oneshot::Sender<P::Answer>)> {
        while let Poll::Ready(asked) = self.asking.poll(cx) {
            match asked {
                Ok((stream, request)) => {
                    let (reply, answer) = oneshot::channel();
                    self.answering
                        .push(in_time(give::<P>(stream, answer)).boxed());
                    return Poll::Ready((request, reply));
                }
                Err(error) => {
                    debug!(protocol = %P::NAME, %error, "no question came over a stream for one")
                }
            }
        }
        while let Poll::Ready(answered) = self.answering.poll(cx) {
            if let Err(error) = answered {
                debug!(protocol = %P::NAME, %error, "an answer was not delivered");
            }
        }
        Poll::Pending
    }
}

/// No exchange takes longer.
pub(crate) async fn in_time<T>(exchange: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .unwrap_or_else(|elapsed| Err(elapsed.into()))
}

async fn give<P: Protocol>(
    mut stream: Stream,
    answer: oneshot::Receiver<P::Answer>,
) -> io::Result<()> {
    // An error says that nobody answers: the stream closes.
    if let Ok(answer) = answer.await {
        frame::write_up_to(P::LONGEST, &mut stream, &answer).await?;
    }
    stream.close().await
}

/// The handler of one connection over which only the peer asks.
pub(crate) struct Handler<P: Protocol>(Questions<P>);

impl<P: Protocol> Default for Handler<P> {
    fn default() -> Self {
        Self(Questions::default())
    }
}

impl<P: Protocol> ConnectionHandler for Handler<P> {
    type FromBehaviour = Infallible;
    type ToBehaviour = (P::Request, oneshot::Sender<P::Answer>);
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(P::NAME), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Self::ToBehaviour>> {
        self.0.poll(cx).map(ConnectionHandlerEvent::NotifyBehaviour)
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, DeniedUpgrade>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: stream,
            ..
        }) = event
        {
            self.0.take(stream);
        }
    }
}
