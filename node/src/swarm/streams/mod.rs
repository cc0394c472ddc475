//! Streams on one given connection of a peer.
//!
//! A peer may have several connections. The caller that opens a stream names the connection: the peer's best at that time. When
//! another connection becomes the best, later streams go over that connection. Open streams stay on theirs.
//!
//! A stream waits until the peer has identified itself, unless the TLS handshake has shown that the peer runs these programs. A
//! protocol that the peer does not list is not proposed.

mod handler;
mod open_error;

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures::{FutureExt as _, channel::oneshot};
use libp2p::{
    PeerId, Stream, StreamProtocol,
    swarm::{ConnectionId, NetworkBehaviour, NotifyHandler, THandlerInEvent, ToSwarm},
};

use p2pnode_protocol::upgrade::Confirmed;
use p2pnode_transports::Kin;

use handler::{Handler, Wanted};

pub(crate) use open_error::{OpenError, opened};

/// Opens streams. It answers none: each protocol's own behaviour does.
pub(crate) struct Behaviour {
    kin: Kin,
    wanted: VecDeque<(PeerId, ConnectionId, Wanted)>,
    waker: Option<Waker>,
}

/// A stream that is being opened.
#[derive(Debug)]
pub(crate) struct Opening(oneshot::Receiver<Result<Stream, OpenError>>);

impl Behaviour {
    /// Peers of `kin` need not identify themselves before streams to them are opened.
    pub(crate) const fn new(kin: Kin) -> Self {
        Self {
            kin,
            wanted: VecDeque::new(),
            waker: None,
        }
    }

    /// Opens a stream of `protocol` on `connection` to `peer`. Nothing is left of it if the [`Opening`] is dropped before.
    pub(crate) fn open(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: StreamProtocol,
    ) -> Opening {
        self.offer(peer, connection, Confirmed::new(protocol))
    }

    /// The same without waiting for the peer to agree. If the peer does not support the protocol, a read of the stream fails. See
    /// [`p2pnode_protocol::upgrade::is_refusal`].
    pub(crate) fn open_lazily(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: StreamProtocol,
    ) -> Opening {
        self.offer(peer, connection, Confirmed::unconfirmed(protocol))
    }

    fn offer(&mut self, peer: PeerId, connection: ConnectionId, protocol: Confirmed) -> Opening {
        let (result, opening) = oneshot::channel();
        self.wanted
            .push_back((peer, connection, Wanted { protocol, result }));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Opening(opening)
    }
}

impl Future for Opening {
    type Output = Result<Stream, OpenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Whoever had to answer is gone with its connection.
        self.0
            .poll_unpin(cx)
            .map(|result| result.unwrap_or(Err(OpenError::Closed)))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    p2pnode_protocol::handlers!(self, _, peer, _ => Handler::new(self.kin.contains(&peer)));
    p2pnode_protocol::no_swarm_events!();
    p2pnode_protocol::no_reports!();

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection, event)) = self.wanted.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event,
            });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
