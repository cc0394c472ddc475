//! The exchanges on one connection. What a remote can make it hold is [`MAX_EXCHANGES`] streams, each with one message of
//! bounded length, for [`TIMEOUT`].

use std::{
    convert::Infallible,
    io,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncWriteExt as _, FutureExt as _, StreamExt as _, channel::oneshot, future::BoxFuture,
    stream::FuturesUnordered,
};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{DeniedUpgrade, ReadyUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
};
use p2pnode_bin_shared::hop::{self, Answer, Request};
use tracing::debug;

/// Exchanges at once on one connection; further streams are dropped unread. A node has one going for each circuit that
/// opens, and asks again later where one is dropped.
const MAX_EXCHANGES: usize = 32;

/// How long a peer may take to ask, and then to take the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

type Asking = BoxFuture<'static, io::Result<(Stream, Request)>>;
type Answering = BoxFuture<'static, io::Result<()>>;

/// The handler of one connection.
#[derive(Default)]
pub(crate) struct Handler {
    asking: FuturesUnordered<Asking>,
    answering: FuturesUnordered<Answering>,
}

impl Handler {
    fn take(&mut self, mut stream: Stream) {
        if self.asking.len() + self.answering.len() >= MAX_EXCHANGES {
            debug!("dropped a hop question: {MAX_EXCHANGES} are open on this connection");
            return;
        }
        // A question is no reason to keep a connection that has no other.
        stream.ignore_for_keep_alive();
        self.asking.push(
            in_time(async move {
                let request = hop::read(&mut stream).await?;
                Ok((stream, request))
            })
            .boxed(),
        );
    }
}

async fn in_time<T>(exchange: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .unwrap_or_else(|elapsed| Err(elapsed.into()))
}

async fn give(mut stream: Stream, answer: oneshot::Receiver<Answer>) -> io::Result<()> {
    // An error says that nobody answers: the stream closes.
    if let Ok(answer) = answer.await {
        hop::write(&mut stream, &answer).await?;
    }
    stream.close().await
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = (Request, oneshot::Sender<Answer>);
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(hop::PROTOCOL), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Self::ToBehaviour>> {
        while let Poll::Ready(Some(asked)) = self.asking.poll_next_unpin(cx) {
            match asked {
                Ok((stream, request)) => {
                    let (reply, answer) = oneshot::channel();
                    self.answering.push(in_time(give(stream, answer)).boxed());
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour((request, reply)));
                }
                Err(error) => debug!(%error, "no hop question came over a stream for one"),
            }
        }
        while let Poll::Ready(Some(answered)) = self.answering.poll_next_unpin(cx) {
            if let Err(error) = answered {
                debug!(%error, "a hop answer was not delivered");
            }
        }
        Poll::Pending
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
            self.take(stream);
        }
    }
}
