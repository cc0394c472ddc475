//! `/p2pnode/draining/1`: a relay announces that it drains. It grants no further reservation, renewal or circuit, and shuts down
//! soon.
//!
//! The circuit relay protocol has no message for that: peers would learn it when they renew, or when the connection closes. So a
//! draining relay opens a stream of this protocol to every peer that supports it. The stream itself is the message. It carries a
//! [`json`](crate::frame::json) frame `{"retry_after_ms": 12500}`: how long the peer should wait before it comes back. A stream without
//! a frame says nothing about that. Other peers are refused when they ask.
//!
//! A relay gives each peer another time, so that they do not come back all at once.
//!
//! Withdrawing the HOP protocol through an identify push does not work. Over QUIC with lazy negotiation the push is lost, because
//! its sender does not wait for the remote. The remote then cannot answer the negotiation (`docs/notes.md`).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, future::BoxFuture};
use libp2p::{
    InboundUpgrade, OutboundUpgrade, PeerId, Stream, StreamProtocol,
    core::UpgradeInfo,
    swarm::{
        ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, OneShotHandler, THandlerOutEvent,
        ToSwarm,
    },
};
use serde::{Deserialize, Serialize};

use crate::frame;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/draining/1");

/// The most bytes of a message.
const MAX_MESSAGE: usize = 256;

/// The longest that a peer is made to wait.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// What the stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Message {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// A peer has announced that it drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draining {
    /// The peer.
    pub peer: PeerId,
    /// The connection on which it did.
    pub connection: ConnectionId,
    /// How long this node should wait before it comes back, [`MAX_RETRY_AFTER`] at most.
    pub retry_after: Option<Duration>,
}

/// Announces that this relay drains, and reports which other peers do.
#[derive(Debug, Default)]
pub struct Behaviour {
    /// Open connections whose peers list the protocol.
    connections: HashMap<ConnectionId, PeerId>,
    /// In which time the peers should come back.
    draining: Option<Duration>,
    queue: VecDeque<ToSwarm<Draining, Notice>>,
}

impl Behaviour {
    /// A peer has identified itself. It gets the announcement only if it lists the protocol.
    pub fn identified(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        protocols: &[StreamProtocol],
    ) {
        let is_new =
            protocols.contains(&PROTOCOL) && self.connections.insert(connection, peer).is_none();
        if is_new && let Some(over) = self.draining {
            self.queue.push_back(notify(peer, connection, over));
        }
    }

    /// Announces it on every connection, open and future, and spreads the return of the peers `over` a time.
    pub fn announce(&mut self, over: Duration) {
        self.draining = Some(over);
        let mut peers: BTreeMap<PeerId, Vec<ConnectionId>> = BTreeMap::new();
        for (connection, peer) in &self.connections {
            peers.entry(*peer).or_default().push(*connection);
        }
        let count = u32::try_from(peers.len()).unwrap_or(u32::MAX);
        for (number, (peer, connections)) in (1..).zip(peers) {
            let retry_after = over * number / count;
            let notices = connections.into_iter();
            self.queue
                .extend(notices.map(|connection| notify(peer, connection, retry_after)));
        }
    }
}

fn notify(
    peer_id: PeerId,
    connection: ConnectionId,
    retry_after: Duration,
) -> ToSwarm<Draining, Notice> {
    ToSwarm::NotifyHandler {
        peer_id,
        handler: NotifyHandler::One(connection),
        event: Notice {
            retry_after: Some(retry_after),
        },
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = OneShotHandler<Notice, Notice, Delivery>;
    type ToSwarm = Draining;

    crate::handlers!(self => OneShotHandler::default());

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.connections.remove(&closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        // An error means that the peer does not support the protocol, or is gone.
        if let Ok(Delivery::Received { retry_after }) = event {
            let draining = Draining {
                peer,
                connection,
                retry_after,
            };
            self.queue.push_back(ToSwarm::GenerateEvent(draining));
        }
    }

    crate::polls!(self.queue);
}

/// The stream that announces it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notice {
    retry_after: Option<Duration>,
}

/// What happened to a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The peer sent the notice.
    Received {
        /// How long this node should wait.
        retry_after: Option<Duration>,
    },
    /// The peer accepted the notice.
    Sent,
}

impl From<Received> for Delivery {
    fn from(Received { retry_after }: Received) -> Self {
        Self::Received { retry_after }
    }
}

impl From<Sent> for Delivery {
    fn from(_: Sent) -> Self {
        Self::Sent
    }
}

/// The end of the stream of a received notice.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    retry_after: Option<Duration>,
}

/// The end of the stream of a sent notice.
#[derive(Debug, Clone, Copy)]
pub struct Sent;

impl UpgradeInfo for Notice {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

impl InboundUpgrade<Stream> for Notice {
    type Output = Received;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Received>>;

    fn upgrade_inbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            stream.ignore_for_keep_alive();
            let retry_after = read_retry_after(&mut stream).await;
            stream.close().await?;
            Ok(Received { retry_after })
        })
    }
}

impl OutboundUpgrade<Stream> for Notice {
    type Output = Sent;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Sent>>;

    /// Waits for the remote. Otherwise a stream with lazy negotiation could end before the remote has agreed.
    fn upgrade_outbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            let millis = self.retry_after.map(|wait| wait.as_millis());
            let message = Message {
                retry_after_ms: millis.and_then(|millis| u64::try_from(millis).ok()),
            };
            frame::write_up_to(MAX_MESSAGE, &mut stream, &message).await?;
            stream.close().await?;
            // The remote closes the stream. A byte is not part of the protocol; nothing behind it is awaited.
            let _end = stream.read(&mut [0]).await?;
            Ok(Sent)
        })
    }
}

/// What a message says. Whatever is not one says nothing.
async fn read_retry_after(stream: &mut (impl AsyncRead + Unpin)) -> Option<Duration> {
    let message = frame::read_up_to::<Message>(MAX_MESSAGE, stream).await;
    let millis = message.ok()?.retry_after_ms?;
    Some(Duration::from_millis(millis).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use futures::{FutureExt as _, io::Cursor};

    use super::*;
    use crate::frame::json::memory;

    fn retry_after(behaviour: &mut Behaviour) -> Vec<(PeerId, u64)> {
        let mut announced = Vec::new();
        while let Some(ToSwarm::NotifyHandler { peer_id, event, .. }) = behaviour.queue.pop_front()
        {
            announced.push((peer_id, event.retry_after.unwrap().as_secs()));
        }
        announced
    }

    #[test]
    fn every_connection_gets_one_notice_and_the_return_of_peers_is_spread() {
        let mut behaviour = Behaviour::default();
        let peers = [(); 4].map(|()| PeerId::random());
        for number in 0..8 {
            let connection = ConnectionId::new_unchecked(number);
            behaviour.connections.insert(connection, peers[number % 4]);
        }
        assert!(behaviour.queue.is_empty());
        behaviour.announce(Duration::from_secs(60));
        let mut announced = retry_after(&mut behaviour);
        assert_eq!(announced.len(), 8);
        announced.sort_unstable();
        announced.dedup();
        let mut times: Vec<u64> = announced.iter().map(|(_, time)| *time).collect();
        times.sort_unstable();
        assert_eq!(times, [15, 30, 45, 60], "one for each peer");
    }

    #[test]
    fn only_a_peer_that_lists_the_protocol_gets_a_notice() {
        let mut behaviour = Behaviour::default();
        let [ours, other] = [(); 2].map(|()| PeerId::random());
        let foreign = [StreamProtocol::new("/ipfs/kad/1.0.0")];
        let identify = |behaviour: &mut Behaviour, numbers: [usize; 2]| {
            let [first, second] = numbers.map(ConnectionId::new_unchecked);
            behaviour.identified(ours, first, &[PROTOCOL]);
            behaviour.identified(ours, first, &[PROTOCOL]);
            behaviour.identified(other, second, &foreign);
        };
        identify(&mut behaviour, [1, 2]);
        behaviour.announce(Duration::from_secs(60));
        identify(&mut behaviour, [3, 4]);
        assert_eq!(retry_after(&mut behaviour), [(ours, 60), (ours, 60)]);
    }

    #[test]
    fn only_a_notice_of_the_peer_is_reported() {
        let (mut behaviour, peer) = (Behaviour::default(), PeerId::random());
        let connection = ConnectionId::new_unchecked(1);
        behaviour.on_connection_handler_event(peer, connection, Ok(Delivery::Sent));
        assert!(behaviour.queue.is_empty());
        let retry_after = Some(Duration::from_secs(7));
        let received = Delivery::Received { retry_after };
        behaviour.on_connection_handler_event(peer, connection, Ok(received));
        let draining = Draining {
            peer,
            connection,
            retry_after,
        };
        let event = behaviour.queue.pop_front();
        assert!(matches!(event, Some(ToSwarm::GenerateEvent(event)) if event == draining));
    }

    #[test]
    fn a_message_says_how_long_to_wait_and_an_earlier_version_sends_none() {
        let read = |bytes: Vec<u8>| {
            let mut stream = Cursor::new(bytes);
            read_retry_after(&mut stream).now_or_never().unwrap()
        };
        let message = Message {
            retry_after_ms: Some(12_500),
        };
        let written = memory::written(MAX_MESSAGE, &message);
        assert_eq!(written, memory::frame(br#"{"retry_after_ms":12500}"#));
        assert_eq!(read(written), Some(Duration::from_millis(12_500)));
        let longer = memory::frame(br#"{"retry_after_ms":4000000000000,"later":1}"#);
        assert_eq!(read(longer), Some(MAX_RETRY_AFTER));
        for nothing in [&b""[..], b"{}", b"\0\x02{}", b"\xff\xff", b"garbage"] {
            assert_eq!(read(nothing.to_vec()), None, "{nothing:?}");
        }
    }
}
