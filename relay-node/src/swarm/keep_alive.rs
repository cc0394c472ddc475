//! Keeps every connection of a peer that holds a reservation.
//!
//! A node holds its reservation on one connection and observes its own mappings on others (the other transport, the
//! other IP family). Nothing runs on those, so the swarm's idle timeout would close them; the node would dial them again,
//! without end. Peers without a reservation are left to the idle timeout.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    PeerId,
    core::upgrade::DeniedUpgrade,
    swarm::{
        ConnectionHandler, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
        SubstreamProtocol, ToSwarm,
    },
};
use p2pnode_protocol::behaviour::{EventOf, PollOf};

/// Which peers' connections live on although nothing runs on them.
#[derive(Default)]
pub(crate) struct Behaviour {
    connections: HashMap<PeerId, HashSet<ConnectionId>>,
    held: HashSet<PeerId>,
    queue: VecDeque<ToSwarm<Infallible, bool>>,
}

impl Behaviour {
    /// From now on keeps all connections of `peer`, those that it has and those that it makes.
    ///
    /// To be called while the swarm is being polled: the handlers learn of it at the next poll.
    pub(crate) fn hold(&mut self, peer: PeerId) {
        if self.held.insert(peer) {
            self.notify(peer, true);
        }
    }

    /// Leaves the connections of `peer` to the idle timeout again.
    pub(crate) fn release(&mut self, peer: PeerId) {
        if self.held.remove(&peer) {
            self.notify(peer, false);
        }
    }

    fn notify(&mut self, peer_id: PeerId, keep: bool) {
        for connection in self.connections.get(&peer_id).into_iter().flatten() {
            self.queue.push_back(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(*connection),
                event: keep,
            });
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    p2pnode_protocol::handlers!(self, _, peer, _ => Handler {
        keep: self.held.contains(&peer),
    });

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            self.connections
                .entry(established.peer_id)
                .or_default()
                .insert(established.connection_id);
        } else if let FromSwarm::ConnectionClosed(closed) = event
            && let Some(connections) = self.connections.get_mut(&closed.peer_id)
        {
            connections.remove(&closed.connection_id);
            if connections.is_empty() {
                self.connections.remove(&closed.peer_id);
            }
        }
    }

    p2pnode_protocol::no_reports!();
    p2pnode_protocol::polls!(self.queue);
}

/// Speaks no protocol; says whether its connection lives.
pub(crate) struct Handler {
    keep: bool,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = bool;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep
    }

    fn poll(&mut self, _: &mut Context<'_>) -> PollOf<Self> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, keep: bool) {
        self.keep = keep;
    }

    fn on_connection_event(&mut self, _: EventOf<'_, Self>) {}
}

#[cfg(test)]
mod tests {
    use libp2p::Multiaddr;

    use super::*;

    fn notified(behaviour: &mut Behaviour) -> usize {
        let count = behaviour.queue.len();
        behaviour.queue.clear();
        count
    }

    #[test]
    fn a_handler_made_after_the_reservation_keeps_its_connection() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let mut behaviour = Behaviour::default();
        behaviour.hold(peer);
        let address = Multiaddr::empty();
        let connection = ConnectionId::new_unchecked(1);
        let mut handler = |peer| {
            behaviour
                .handle_established_inbound_connection(connection, peer, &address, &address)
                .expect("never denied")
        };
        assert!(handler(peer).connection_keep_alive());
        assert!(!handler(other).connection_keep_alive());
    }

    #[test]
    fn handlers_are_notified_once_per_change() {
        let peer = PeerId::random();
        let mut behaviour = Behaviour::default();
        behaviour
            .connections
            .entry(peer)
            .or_default()
            .extend([1, 2].map(ConnectionId::new_unchecked));
        behaviour.hold(peer);
        assert_eq!(notified(&mut behaviour), 2);
        behaviour.hold(peer);
        assert_eq!(notified(&mut behaviour), 0);
        behaviour.release(peer);
        assert_eq!(notified(&mut behaviour), 2);
        behaviour.release(peer);
        assert_eq!(notified(&mut behaviour), 0);
    }
}
