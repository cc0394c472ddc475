//! Collects what a relay says over `/p2pnode/meet/1` streams of its own.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{
    InboundUpgrade, PeerId, Stream, StreamProtocol,
    core::UpgradeInfo,
    swarm::{
        ConnectionId, NetworkBehaviour, OneShotHandler, SubstreamProtocol, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::introduction as meet;

use super::ask::Question;

/// Reports the bytes of each stream.
#[derive(Default)]
pub struct Hear {
    /// Does not speak the protocol.
    pub is_deaf: bool,
    /// All that was heard, also while a test waited for something else.
    pub heard: Vec<Vec<u8>>,
    queue: VecDeque<ToSwarm<Vec<u8>, Infallible>>,
}

impl Hear {
    fn handler(&self) -> OneShotHandler<Listen, Question, Heard> {
        let listen = SubstreamProtocol::new(Listen(!self.is_deaf), ());
        OneShotHandler::new(listen, Default::default())
    }
}

impl NetworkBehaviour for Hear {
    type ConnectionHandler = OneShotHandler<Listen, Question, Heard>;
    type ToSwarm = Vec<u8>;

    p2pnode_protocol::handlers!(self => self.handler());
    p2pnode_protocol::no_swarm_events!();

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if let Ok(Heard(bytes)) = event {
            self.heard.push(bytes.clone());
            self.queue.push_back(ToSwarm::GenerateEvent(bytes));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Vec<u8>, THandlerInEvent<Self>>> {
        match self.queue.pop_front() {
            Some(heard) => Poll::Ready(heard.map_in(|never| match never {})),
            None => Poll::Pending,
        }
    }
}

#[derive(Debug)]
pub struct Heard(Vec<u8>);

impl From<Vec<u8>> for Heard {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<Option<Vec<u8>>> for Heard {
    fn from(_: Option<Vec<u8>>) -> Self {
        unreachable!("nothing is asked")
    }
}

/// Takes the protocol, or not.
#[derive(Debug, Clone)]
pub struct Listen(bool);

impl UpgradeInfo for Listen {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.then_some(meet::PROTOCOL).into_iter()
    }
}

impl InboundUpgrade<Stream> for Listen {
    type Output = Vec<u8>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + Send>>;

    fn upgrade_inbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await?;
            stream.close().await?;
            Ok(bytes)
        })
    }
}
