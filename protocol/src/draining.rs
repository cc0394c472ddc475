//! `/p2pnode/draining/1`: a relay announces that it drains. It grants no further reservation, renewal or circuit, and shuts down
//! soon.
//!
//! The circuit relay protocol has no message for that: peers would learn it when they renew, or when the connection closes. So a
//! draining relay opens a stream of this protocol to every peer that supports it. The stream itself is the message and carries
//! no data. Other peers are refused when they ask.
//!
//! Withdrawing the HOP protocol through an identify push does not work: over QUIC with lazy negotiation the push is lost, because
//! its sender does not wait for the remote, which then cannot answer the negotiation (`docs/notes.md`).

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

/// A peer has announced that it drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draining {
    /// The peer.
    pub peer: PeerId,
    /// The connection on which it did.
    pub connection: ConnectionId,
}

/// Announces that this relay drains, and reports which other peers do.
#[derive(Debug, Default)]
pub struct Behaviour {
    connections: HashMap<ConnectionId, PeerId>,
    draining: bool,
    queue: VecDeque<ToSwarm<Draining, Notice>>,
}

impl Behaviour {
    /// Announces it on every connection, open and future.
    pub fn announce(&mut self) {
        self.draining = true;
        for (connection, peer) in &self.connections {
            self.queue.push_back(notify(*peer, *connection));
        }
    }
}

fn notify(peer_id: PeerId, connection: ConnectionId) -> ToSwarm<Draining, Notice> {
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
                self.queue.push_back(notify(peer, connection));
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
        // An error means that the peer does not support the protocol, or is gone.
        if let Ok(Delivery::Received) = event {
            let draining = Draining { peer, connection };
            self.queue.push_back(ToSwarm::GenerateEvent(draining));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Draining, THandlerInEvent<Self>>> {
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The stream that announces it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notice;

/// What happened to a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The peer sent the notice.
    Received,
    /// The peer accepted the notice.
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

/// The end of a stream: of a received notice, or of a sent one.
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

    /// Waits for the remote. Otherwise a stream with lazy negotiation could end before the remote has agreed.
    fn upgrade_outbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            stream.close().await?;
            // The remote closes the stream. A byte is not part of the protocol; nothing behind it is awaited.
            let _end = stream.read(&mut [0]).await?;
            Ok(Delivered)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_gets_one_notice() {
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
    fn only_a_notice_of_the_peer_is_reported() {
        let (mut behaviour, peer) = (Behaviour::default(), PeerId::random());
        let connection = ConnectionId::new_unchecked(1);
        behaviour.on_connection_handler_event(peer, connection, Ok(Delivery::Sent));
        assert!(behaviour.queue.is_empty());
        behaviour.on_connection_handler_event(peer, connection, Ok(Delivery::Received));
        let event = behaviour.queue.pop_front();
        assert!(
            matches!(event, Some(ToSwarm::GenerateEvent(event)) if event == Draining { peer, connection })
        );
    }
}
