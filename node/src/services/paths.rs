//! The connections that streams can be opened on, and which one is chosen for each peer.

use std::{collections::BTreeMap, time::Duration};

use libp2p::{PeerId, StreamProtocol, swarm::ConnectionId};
use p2pnode_services::wire::PROTOCOL;
use p2pnode_transports::Transport;
use tokio::sync::mpsc;

use super::opening::{OpenError, Opening, Wanted};
use crate::core::peers::PathKind;

/// The chosen connection of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// The connection.
    pub(crate) connection: ConnectionId,
    /// Its round trip time, once it is known.
    pub(crate) rtt: Option<Duration>,
}

/// A connection as its handler registers it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// The peer.
    pub(crate) peer: PeerId,
    /// Direct or relayed.
    pub(crate) kind: PathKind,
    /// The transport of the first hop.
    pub(crate) transport: Option<Transport>,
    /// To the handler.
    pub(crate) handler: mpsc::Sender<Wanted>,
}

/// What is known of the paths of all peers.
#[derive(Debug, Default)]
pub(super) struct Paths {
    connections: BTreeMap<ConnectionId, Connection>,
    peers: BTreeMap<PeerId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    chosen: Option<Chosen>,
    /// There was one since its first connection.
    had_path: bool,
    /// The protocols for services that its last identify message lists; `None`: there was none yet.
    speaks: Option<Vec<StreamProtocol>>,
    /// Why it could not be reached lately.
    unreachable: Option<String>,
}

impl Paths {
    pub(super) fn opened(&mut self, id: ConnectionId, connection: Connection) {
        self.connections.insert(id, connection);
    }

    pub(super) fn closed(&mut self, id: ConnectionId) {
        let Some(closed) = self.connections.remove(&id) else {
            return;
        };
        let of_peer = |other: &Connection| other.peer == closed.peer;
        // Another process may be there next.
        if !self.connections.values().any(of_peer)
            && let Some(peer) = self.peers.get_mut(&closed.peer)
        {
            (peer.speaks, peer.had_path) = (None, false);
            self.forget(closed.peer);
        }
    }

    /// The connection chosen for `peer`. Whether it is another one than before.
    pub(super) fn choose(&mut self, peer: PeerId, chosen: Option<Chosen>) -> bool {
        let known = self.peers.entry(peer).or_default();
        let before = std::mem::replace(&mut known.chosen, chosen);
        if chosen.is_some() {
            (known.unreachable, known.had_path) = (None, true);
        }
        let connection = |chosen: Option<Chosen>| chosen.map(|chosen| chosen.connection);
        self.forget(peer);
        connection(before) != connection(chosen)
    }

    pub(super) fn speaks(&mut self, peer: PeerId, protocols: Vec<StreamProtocol>) {
        self.peers.entry(peer).or_default().speaks = Some(protocols);
    }

    pub(super) fn unreachable(&mut self, peer: PeerId, reason: String) {
        self.peers.entry(peer).or_default().unreachable = Some(reason);
    }

    pub(super) fn why_unreachable(&self, peer: &PeerId) -> Option<&str> {
        self.peers.get(peer)?.unreachable.as_deref()
    }

    /// Another try has begun.
    pub(super) fn tried_again(&mut self, peer: PeerId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.unreachable = None;
        }
        self.forget(peer);
    }

    pub(super) fn chosen(&self, peer: &PeerId) -> Option<Chosen> {
        self.peers.get(peer)?.chosen
    }

    pub(super) fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// A stream of sessions on the chosen connection of `peer`.
    pub(super) fn open(&self, peer: &PeerId) -> Opening {
        self.open_protocol(peer, PROTOCOL, true)
    }

    /// A stream of `protocol` there. It is proposed along with the first data only to a peer whose identify message lists it, and only
    /// if `may_be_lazy`.
    pub(super) fn open_protocol(
        &self,
        peer: &PeerId,
        protocol: StreamProtocol,
        may_be_lazy: bool,
    ) -> Opening {
        let known = self.peers.get(peer);
        let speaks = known.and_then(|known| known.speaks.as_ref());
        let chosen = known.and_then(|known| known.chosen);
        let Some((id, connection)) = chosen.and_then(|chosen| {
            let connection = self.connections.get(&chosen.connection)?;
            Some((chosen.connection, connection))
        }) else {
            // A relay has identified itself, and has no path to choose.
            let has_none = known.is_some_and(|known| !known.had_path);
            let lacks = has_none && speaks.is_some_and(|speaks| !speaks.contains(&protocol));
            return Opening::failed(match lacks {
                true => OpenError::Unsupported,
                false => OpenError::NoPath,
            });
        };
        // A push that lists it may have been lost: others are asked, and the answer is awaited.
        let lazily = may_be_lazy && speaks.is_some_and(|speaks| speaks.contains(&protocol));
        Opening::ask(id, &connection.handler, protocol, lazily)
    }

    fn forget(&mut self, peer: PeerId) {
        let idle = |known: &Peer| {
            known.chosen.is_none() && known.speaks.is_none() && known.unreachable.is_none()
        };
        if self.peers.get(&peer).is_some_and(idle) {
            self.peers.remove(&peer);
        }
    }
}
