//! How a relay says that it drains: it takes no reservations, no renewals and no circuits any more, and will end soon.
//!
//! The circuit relay protocol has no word for that; peers would learn of it when they renew, or when the connection ends. So a
//! relay that drains opens a stream of `/p2pnode/draining/1` to every peer that speaks it. That is all: nothing is said on it. Peers
//! that do not speak it are refused when they ask.
//!
//! To take back a protocol and let identify push the news would tell as much, but such a push is lost over QUIC where streams are
//! negotiated lazily: its sender does not wait for the other side, which then cannot answer the negotiation (`docs/notes.md`).

use std::{
    collections::{HashMap, VecDeque},
    io,
    task::{Context, Poll},
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, future::BoxFuture};
use libp2p::{
    InboundUpgrade, Multiaddr, OutboundUpgrade, PeerId, Stream, StreamProtocol,
    core::{Endpoint, UpgradeInfo, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, OneShotHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/draining/1");

/// A peer has said that it drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draining {
    /// The peer.
    pub peer: PeerId,
    /// The connection on which it has said so.
    pub connection: ConnectionId,
}

/// Says to all peers that this one drains, once it does, and tells who else does.
#[derive(Debug, Default)]
pub struct Behaviour {
    connections: HashMap<ConnectionId, PeerId>,
    draining: bool,
    queue: VecDeque<ToSwarm<Draining, Notice>>,
}

impl Behaviour {
    /// Tells the peers of all connections, and those that still come.
    pub fn announce(&mut self) {
        self.draining = true;
        for (connection, peer) in &self.connections {
            self.queue.push_back(told(*peer, *connection));
        }
    }
}

fn told(peer_id: PeerId, connection: ConnectionId) -> ToSwarm<Draining, Notice> {
    ToSwarm::NotifyHandler {
        peer_id,
        handler: NotifyHandler::One(connection),
        event: Notice,
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = OneShotHandler<Notice, Notice, Delivery>;
    type ToSwarm = Draining;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(OneShotHandler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(OneShotHandler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            let (peer, connection) = (established.peer_id, established.connection_id);
            self.connections.insert(connection, peer);
            if self.draining {
                self.queue.push_back(told(peer, connection));
            }
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.connections.remove(&closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        // An error means that the peer does not speak the protocol, or is gone.
        if let Ok(Delivery::Received) = event {
            let draining = Draining { peer, connection };
            self.queue.push_back(ToSwarm::GenerateEvent(draining));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Draining, THandlerInEvent<Self>>> {
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The stream that says it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notice;

/// What has become of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The peer has given it.
    Received,
    /// The peer has taken it.
    Sent,
}

impl From<Delivered<true>> for Delivery {
    fn from(_: Delivered<true>) -> Self {
        Self::Received
    }
}

impl From<Delivered<false>> for Delivery {
    fn from(_: Delivered<false>) -> Self {
        Self::Sent
    }
}

/// A stream has done its work: of a notice that was received, or else sent.
#[derive(Debug, Clone, Copy)]
pub struct Delivered<const RECEIVED: bool>;

impl UpgradeInfo for Notice {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

impl InboundUpgrade<Stream> for Notice {
    type Output = Delivered<true>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Delivered<true>>>;

    fn upgrade_inbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            stream.close().await?;
            Ok(Delivered)
        })
    }
}

impl OutboundUpgrade<Stream> for Notice {
    type Output = Delivered<false>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Delivered<false>>>;

    /// Waits for the other side, without which the stream of a lazy negotiation would end before it has begun.
    fn upgrade_outbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            stream.close().await?;
            // The other side says nothing and closes; a byte would be none of this protocol, and is not waited beyond.
            let _end = stream.read(&mut [0]).await?;
            Ok(Delivered)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_of_all_connections_are_told_once() {
        let mut behaviour = Behaviour::default();
        for number in 0..3 {
            let connection = ConnectionId::new_unchecked(number);
            behaviour.connections.insert(connection, PeerId::random());
        }
        assert!(behaviour.queue.is_empty());
        behaviour.announce();
        assert_eq!(behaviour.queue.len(), 3);
        assert!(behaviour.draining);
    }

    #[test]
    fn only_what_the_peer_says_is_told() {
        let (mut behaviour, peer) = (Behaviour::default(), PeerId::random());
        let connection = ConnectionId::new_unchecked(1);
        behaviour.on_connection_handler_event(peer, connection, Ok(Delivery::Sent));
        assert!(behaviour.queue.is_empty());
        behaviour.on_connection_handler_event(peer, connection, Ok(Delivery::Received));
        let told = behaviour.queue.pop_front();
        assert!(
            matches!(told, Some(ToSwarm::GenerateEvent(told)) if told == Draining { peer, connection })
        );
    }
}
