//! The streams of services on one connection.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    channel::oneshot,
    future::{Ready, ready},
};
use libp2p::{
    InboundUpgrade, PeerId, Stream, StreamProtocol,
    core::UpgradeInfo,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
};
use p2pnode_protocol::{
    behaviour::{EventOf, PollOf},
    upgrade::Confirmed,
};
use p2pnode_services::wire::PROTOCOL;
use tokio::sync::mpsc;

use crate::{
    services::{Hub, OpenError, Wanted},
    swarm::streams::{self, opened},
};

/// How long a stream may take to be opened: until the remote allows another one, and agrees.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Streams that are being opened at once on one connection.
const OPENING: usize = 256;

/// Whether the protocol is offered from now on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offers(pub(super) bool);

/// The handler of one connection.
pub(crate) struct Handler {
    hub: Hub,
    peer: PeerId,
    connection: ConnectionId,
    offers: bool,
    /// Those of raw streams that the peer may open.
    raw: Vec<StreamProtocol>,
    wanted: mpsc::Receiver<Wanted>,
    opening: usize,
    /// It has just asked for a stream.
    has_asked: bool,
}

type Reply = oneshot::Sender<Result<Stream, OpenError>>;

impl Handler {
    pub(super) fn new(
        hub: Hub,
        peer: PeerId,
        connection: ConnectionId,
        wanted: mpsc::Receiver<Wanted>,
    ) -> Self {
        Self {
            offers: hub.offers(),
            raw: hub.raw_protocols(&peer),
            hub,
            peer,
            connection,
            wanted,
            opening: 0,
            has_asked: false,
        }
    }
}

/// The protocols that are offered.
#[derive(Debug, Clone)]
pub(crate) struct Inbound(Vec<StreamProtocol>);

impl UpgradeInfo for Inbound {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Inbound {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Offers;
    type ToBehaviour = Infallible;
    type InboundProtocol = Inbound;
    type OutboundProtocol = Confirmed;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Inbound> {
        let sessions = self.offers.then_some(PROTOCOL).into_iter();
        let protocols = sessions.chain(self.raw.iter().cloned());
        SubstreamProtocol::new(Inbound(protocols.collect()), ())
    }

    fn on_behaviour_event(&mut self, Offers(offers): Offers) {
        self.offers = offers;
        self.raw = self.hub.raw_protocols(&self.peer);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> PollOf<Self> {
        // Of several streams that are asked for at once, libp2p opens the last one first. The connection has its turn after each.
        if std::mem::take(&mut self.has_asked) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.opening < OPENING {
            let Poll::Ready(Some(Wanted { protocol, reply })) = self.wanted.poll_recv(cx) else {
                break;
            };
            if reply.is_canceled() {
                continue;
            }
            self.opening += 1;
            self.has_asked = true;
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(protocol, reply).with_timeout(TIMEOUT),
            });
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: EventOf<'_, Self>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: (stream, protocol),
            ..
        }) = event
        {
            let (hub, peer, connection) = (&self.hub, self.peer, self.connection);
            return match protocol == PROTOCOL {
                true => hub.handle_stream(peer, connection, stream),
                false => hub.handle_raw_stream(peer, connection, &protocol, stream),
            };
        }
        if let Some((reply, result)) = opened(event) {
            self.opening = self.opening.saturating_sub(1);
            let result = result.map_err(|error| match error == streams::OpenError::Unsupported {
                true => OpenError::Unsupported,
                false => OpenError::Failed(error.to_string()),
            });
            // An error means that the caller no longer waits: the stream is dropped.
            let _ = reply.send(result);
        }
    }
}
