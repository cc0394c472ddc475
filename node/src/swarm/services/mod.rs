//! Streams of `/p2pnode/service/1`: those of peers go to the [`Hub`], and its tasks open others on the connection of their choice.
//!
//! The protocol is offered only while a service or a forward is there. So a node without either looks as before to its peers.

mod handler;

use std::{
    collections::{BTreeMap, VecDeque},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandlerInEvent, ToSwarm},
};
use p2pnode_protocol::addr::is_circuit;
use p2pnode_transports::Transport;
use tokio::sync::mpsc;

use crate::{
    core::peers::PathKind,
    services::{Connection, Hub},
};

use handler::{Handler, Offers};

/// Streams that may wait to be opened on one connection. A session whose stream finds no place asks again.
const WAITING: usize = 256;

/// Connects the streams of all connections with the hub.
pub(crate) struct Behaviour {
    hub: Hub,
    connections: BTreeMap<ConnectionId, PeerId>,
    /// Whether the protocol was offered when the handlers were last notified, and which services there were.
    offers: (bool, u64),
    queue: VecDeque<ToSwarm<std::convert::Infallible, Offers>>,
}

impl Behaviour {
    pub(crate) fn new(hub: Hub) -> Self {
        Self {
            offers: (hub.offers(), hub.offers_version()),
            hub,
            connections: BTreeMap::new(),
            queue: VecDeque::new(),
        }
    }

    fn connected(&mut self, id: ConnectionId, peer: PeerId, address: &Multiaddr) -> Handler {
        let (sender, wanted) = mpsc::channel(WAITING);
        let kind = match is_circuit(address) {
            true => PathKind::Relayed,
            false => PathKind::Direct,
        };
        let connection = Connection {
            peer,
            kind,
            transport: Transport::of(address),
            handler: sender,
        };
        self.hub.handle_connection(id, connection);
        self.connections.insert(id, peer);
        Handler::new(self.hub.clone(), peer, id, wanted)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    p2pnode_protocol::handlers!(self, connection, peer, local => self.connected(connection, peer, local));

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "only connections that end matter"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let gone = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            FromSwarm::ListenFailure(failure) => failure.connection_id,
            FromSwarm::DialFailure(failure) => failure.connection_id,
            _ => return,
        };
        self.connections.remove(&gone);
        self.hub.handle_connection_closed(gone);
    }

    p2pnode_protocol::no_reports!();

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.hub.register(cx);
        let offers = self.hub.offers();
        let current = (offers, self.hub.offers_version());
        if std::mem::replace(&mut self.offers, current) != current {
            // A handler that is polled reports what it listens for.
            let connections = self.connections.iter();
            self.queue
                .extend(connections.map(|(id, peer)| ToSwarm::NotifyHandler {
                    peer_id: *peer,
                    handler: NotifyHandler::One(*id),
                    event: Offers(offers),
                }));
        }
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
