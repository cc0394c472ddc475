//! Sends bytes over a stream and collects what comes back.

use std::{
    collections::VecDeque,
    future::{Ready, ready},
    io,
    pin::Pin,
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{
    InboundUpgrade, OutboundUpgrade, PeerId, Stream, StreamProtocol,
    core::UpgradeInfo,
    swarm::{
        ConnectionId, NetworkBehaviour, NotifyHandler, OneShotHandler, THandlerOutEvent, ToSwarm,
    },
};

/// Asks, and reports what the relay sent until it closed the stream; `None` if it reset it.
#[derive(Default)]
pub struct Ask {
    queue: VecDeque<ToSwarm<Option<Vec<u8>>, Question>>,
}

impl Ask {
    /// Sends `bytes` over a stream of `protocol`.
    pub fn send_over(&mut self, protocol: StreamProtocol, peer_id: PeerId, bytes: Vec<u8>) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::Any,
            event: Question(protocol, bytes),
        });
    }
}

impl NetworkBehaviour for Ask {
    type ConnectionHandler = OneShotHandler<Nothing, Question, Answer>;
    type ToSwarm = Option<Vec<u8>>;

    p2pnode_protocol::handlers!(self => OneShotHandler::default());
    p2pnode_protocol::no_swarm_events!();

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let answer = event.ok().and_then(|Answer(bytes)| bytes);
        self.queue.push_back(ToSwarm::GenerateEvent(answer));
    }

    p2pnode_protocol::polls!(self.queue);
}

#[derive(Debug)]
pub struct Answer(Option<Vec<u8>>);

impl From<()> for Answer {
    fn from((): ()) -> Self {
        unreachable!("no inbound stream is accepted")
    }
}

impl From<Option<Vec<u8>>> for Answer {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

/// No inbound protocol.
#[derive(Debug, Clone, Default)]
pub struct Nothing;

impl UpgradeInfo for Nothing {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Empty<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::empty()
    }
}

impl InboundUpgrade<Stream> for Nothing {
    type Output = ();
    type Error = io::Error;
    type Future = Ready<io::Result<()>>;

    fn upgrade_inbound(self, _: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(()))
    }
}

/// The protocol and the bytes of a question.
#[derive(Debug, Clone)]
pub struct Question(StreamProtocol, Vec<u8>);

impl UpgradeInfo for Question {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(self.0.clone())
    }
}

impl OutboundUpgrade<Stream> for Question {
    type Output = Option<Vec<u8>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Option<Vec<u8>>>> + std::marker::Send>>;

    fn upgrade_outbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            let mut answer = Vec::new();
            // The relay may have closed the stream before all was sent.
            if stream.write_all(&self.1).await.is_err() || stream.close().await.is_err() {
                return Ok(None);
            }
            let read = stream.read_to_end(&mut answer).await;
            Ok(read.ok().map(|_| answer))
        })
    }
}
