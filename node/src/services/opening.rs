//! How a task opens a stream on the chosen connection of a peer.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt as _, channel::oneshot};
use libp2p::{Stream, StreamProtocol, swarm::ConnectionId};
use p2pnode_protocol::upgrade::Confirmed;

/// A stream that a task waits for, as the handler of its connection takes it.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The protocol to propose.
    pub(crate) protocol: Confirmed,
    /// Where the stream goes.
    pub(crate) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// There is no connection to the peer.
    #[error("there is no path to the peer")]
    NoPath,
    /// The peer does not speak the protocol.
    #[error("the peer offers no services")]
    Unsupported,
    /// It failed, and may succeed a moment later.
    #[error("no stream could be opened: {0}")]
    Failed(String),
}

/// A stream that is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) connection: Option<ConnectionId>,
    reply: Result<oneshot::Receiver<Result<Stream, OpenError>>, OpenError>,
}

impl Opening {
    pub(super) fn failed(error: OpenError) -> Self {
        Self {
            connection: None,
            reply: Err(error),
        }
    }

    /// Asks the handler behind `connection`. With `lazily`, the stream is there before the peer has agreed.
    pub(super) fn ask(
        id: ConnectionId,
        handler: &tokio::sync::mpsc::Sender<Wanted>,
        protocol: StreamProtocol,
        lazily: bool,
    ) -> Self {
        let (reply, receiver) = oneshot::channel();
        let protocol = match lazily {
            true => Confirmed::unconfirmed(protocol),
            false => Confirmed::new(protocol),
        };
        let asked = handler.try_send(Wanted { protocol, reply });
        let failed = |_| OpenError::Failed("too many are being opened".to_owned());
        Self {
            connection: Some(id),
            reply: asked.map(|()| receiver).map_err(failed),
        }
    }
}

impl Future for Opening {
    type Output = Result<(ConnectionId, Stream), OpenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let connection = self.connection.ok_or(OpenError::NoPath);
        let reply = match &mut self.reply {
            Err(error) => return Poll::Ready(Err(error.clone())),
            Ok(reply) => reply.poll_unpin(cx),
        };
        // Whoever had to answer is gone with its connection.
        let gone = |_| OpenError::Failed("the connection is closed".to_owned());
        reply.map(|reply| Ok((connection?, reply.map_err(gone)??)))
    }
}
