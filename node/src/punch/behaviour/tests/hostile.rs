//! A peer that opens DCUtR streams and writes what it likes.

use std::{
    collections::VecDeque,
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered,
};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, Stream, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy, handler::ConnectionEvent,
    },
};
use p2pnode_protocol::{
    addr::is_circuit,
    dcutr::{self, MAX_MESSAGE, Message, PROTOCOL},
};
use p2pnode_transports::Transport;

use super::swarm::{Punch, Seen, meet};
use crate::punch::Behaviour;

/// What is written, one stream after the other; the last is a CONNECT as it should be.
fn script() -> VecDeque<Vec<u8>> {
    let framed = |message| {
        let mut bytes = Vec::new();
        futures::executor::block_on(dcutr::write(&mut bytes, &message)).unwrap();
        bytes
    };
    let good = vec!["/ip4/127.0.0.1/udp/9/quic-v1".parse().unwrap()];
    let good = framed(Message::Connect(good.into()));
    [
        // A length beyond every message.
        vec![0xff; 64],
        // A message of the greatest length, all nonsense.
        [vec![0x80, 0x20], vec![0xff; MAX_MESSAGE]].concat(),
        // Cut off.
        good[..good.len() - 3].to_vec(),
        // Nothing at all.
        Vec::new(),
        // The wrong message first.
        framed(Message::Sync),
        good,
    ]
    .into()
}

/// Writes the script over each circuit.
pub(super) struct Hostile(VecDeque<Vec<u8>>);

impl Punch for Hostile {
    fn make(_: PeerId, _: &[Transport]) -> Self {
        Self(VecDeque::new())
    }

    fn note(event: &Vec<u8>, seen: &mut Seen) {
        seen.hostile.push(event.clone());
    }
}

impl NetworkBehaviour for Hostile {
    type ConnectionHandler = Writer;
    type ToSwarm = Vec<u8>;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Writer::new(is_circuit(local)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        addr: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Writer::new(is_circuit(addr)))
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        answer: THandlerOutEvent<Self>,
    ) {
        self.0.push_back(answer);
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.0.pop_front().map_or(Poll::Pending, |answer| {
            Poll::Ready(ToSwarm::GenerateEvent(answer))
        })
    }
}

/// Opens a stream for each line of its script, and reports what comes back.
pub(super) struct Writer {
    script: VecDeque<Vec<u8>>,
    asked: bool,
    talks: FuturesUnordered<BoxFuture<'static, Vec<u8>>>,
}

impl Writer {
    fn new(active: bool) -> Self {
        Self {
            script: if active { script() } else { VecDeque::new() },
            asked: false,
            talks: FuturesUnordered::new(),
        }
    }
}

async fn talk(mut stream: Stream, bytes: Vec<u8>) -> Vec<u8> {
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
    if bytes.is_empty() {
        let _ = stream.close().await;
    }
    let mut answer = vec![0; 64];
    // A reset is as good an answer as none.
    match tokio::time::timeout(Duration::from_millis(300), stream.read(&mut answer)).await {
        Ok(Ok(len)) => answer.truncate(len),
        Ok(Err(_)) | Err(_) => answer.clear(),
    }
    answer
}

impl ConnectionHandler for Writer {
    type FromBehaviour = Infallible;
    type ToBehaviour = Vec<u8>;
    type InboundProtocol = <dummy::ConnectionHandler as ConnectionHandler>::InboundProtocol;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        dummy::ConnectionHandler.listen_protocol()
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Vec<u8>>> {
        if let Poll::Ready(Some(answer)) = self.talks.poll_next_unpin(cx) {
            self.asked = false;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(answer));
        }
        if !self.asked && !self.script.is_empty() {
            self.asked = true;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        let ConnectionEvent::FullyNegotiatedOutbound(negotiated) = event else {
            return;
        };
        if let Some(bytes) = self.script.pop_front() {
            self.talks.push(talk(negotiated.protocol, bytes).boxed());
        }
    }
}

#[tokio::test]
async fn nonsense_gets_no_answer_and_a_good_message_after_it_gets_one() {
    let done = |_: &Seen, hostile: &Seen| hostile.hostile.len() == script().len();
    let (victim, hostile) = meet::<Behaviour, Hostile>(&[Transport::Quic], done).await;
    let (last, nonsense) = hostile.hostile.split_last().unwrap();
    assert!(nonsense.iter().all(Vec::is_empty), "{nonsense:?}");
    assert!(!last.is_empty(), "the good CONNECT is not answered");
    assert_eq!(victim.direct(), 0);
}
