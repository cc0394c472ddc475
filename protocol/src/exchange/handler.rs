//! The exchanges on one connection, both ways.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures::channel::oneshot;
use libp2p::{
    InboundUpgrade, Stream, StreamProtocol,
    core::{UpgradeInfo, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};

use crate::behaviour::{EventOf, PollOf};

use super::{
    Never, Protocol, Reply,
    client::{Client, Step},
    server::Server,
};

/// Serves `S` and asks `C` over the streams of one connection. Its commands are requests of `C`.
pub struct Handler<S: Protocol, C: Protocol = Never> {
    offers: bool,
    server: Server<S>,
    client: Client<C>,
}

/// What a [`Handler`] reports.
#[derive(Debug)]
pub enum Report<S: Protocol, C: Protocol = Never> {
    /// The remote asks. A sender that is dropped closes the stream without an answer.
    Asked(S::Request, oneshot::Sender<S::Answer>),
    /// A request of this side has ended.
    Replied(C::Request, Reply<C::Answer>),
}

impl<S: Protocol, C: Protocol> Handler<S, C> {
    /// A handler that has up to `max_concurrent` exchanges each way. Further streams of the remote are dropped unread, and
    /// further requests end with [`Reply::NoAnswer`].
    #[must_use]
    pub fn new(max_concurrent: usize) -> Self {
        Self {
            offers: S::NAME != Never::NAME,
            server: Server::new(max_concurrent),
            client: Client::new(max_concurrent),
        }
    }

    /// A handler that asks a remote which has not identified itself.
    #[must_use]
    pub fn eager(mut self) -> Self {
        self.client.eager();
        self
    }

    /// A handler that offers the protocol to the remote, or does not.
    #[must_use]
    pub fn offering(self, offers: bool) -> Self {
        Self { offers, ..self }
    }
}

/// The protocol, if it is offered on this connection.
#[derive(Debug, Clone)]
pub struct Offer(Option<StreamProtocol>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
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

impl<S: Protocol, C: Protocol> ConnectionHandler for Handler<S, C> {
    type FromBehaviour = C::Request;
    type ToBehaviour = Report<S, C>;
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = C::Request;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer(self.offers.then_some(S::NAME)), ())
    }

    fn on_behaviour_event(&mut self, request: C::Request) {
        self.client.ask(request);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> PollOf<Self> {
        if let Poll::Ready(step) = self.client.poll(cx) {
            return Poll::Ready(match step {
                Step::Open(protocol) => {
                    ConnectionHandlerEvent::OutboundSubstreamRequest { protocol }
                }
                Step::Ended(request, reply) => {
                    ConnectionHandlerEvent::NotifyBehaviour(Report::Replied(request, reply))
                }
            });
        }
        self.server.poll(cx).map(|(request, reply)| {
            ConnectionHandlerEvent::NotifyBehaviour(Report::Asked(request, reply))
        })
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "a stream is opened or not; other events change nothing here"
    )]
    fn on_connection_event(&mut self, event: EventOf<'_, Self>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => self.server.accept(stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info,
            }) => self.client.opened(stream, info),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.client.not_opened(error, info);
            }
            ConnectionEvent::RemoteProtocolsChange(change) => self.client.handle_change(&change),
            _ => {}
        }
    }
}
