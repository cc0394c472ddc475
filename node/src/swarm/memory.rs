//! Refuses inbound connections while the process is above `limits.memory`, and has others closed.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
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

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
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
