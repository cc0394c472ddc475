//! Refuses inbound connections while the process is above `limits.memory`, and has others closed.

use std::convert::Infallible;

use libp2p::{
    Multiaddr,
    swarm::{ConnectionDenied, ConnectionId, NetworkBehaviour, dummy},
};
use p2pnode_daemon::memory::{Holders, Pressure};
use p2pnode_transports::{Budgets, Largest};
use prometheus_client::metrics::counter::Counter;

use crate::core::admission::Refused;

/// Refuses with [`Refused::Memory`].
pub(crate) struct Behaviour(pub(crate) Pressure);

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        match self.0.is_high() {
            true => Err(ConnectionDenied::new(Refused::Memory)),
            false => Ok(()),
        }
    }

    p2pnode_protocol::handlers!(self => dummy::ConnectionHandler);
    p2pnode_protocol::no_swarm_events!();
    p2pnode_protocol::no_reports!();
    p2pnode_protocol::polls!(nothing);
}

/// The connections of a node, and where those are counted that are closed.
pub(crate) struct Connections {
    pub(crate) budgets: Budgets,
    pub(crate) closed: Counter,
}

impl Holders for Connections {
    fn set_room(&mut self, bytes: u64) {
        self.budgets.set_room(bytes);
    }

    fn close(&mut self, bytes: u64, of_others: u64) -> u64 {
        let closed = self.budgets.close(bytes, of_others);
        for largest in &closed {
            self.closed.inc();
            tracing::warn!(peer = %largest.peer, bytes = largest.held, "closed a connection: too little is left of limits.memory");
        }
        closed.iter().map(Largest::frees).sum()
    }
}
