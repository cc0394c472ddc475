//! Refuses connections, before their handshake and after it, as [`RelayState`](crate::core::RelayState) decides.
//!
//! It is the first of the behaviours, so that no other sees a connection that is refused.

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

use p2pnode_daemon::memory;

use crate::swarm::shared_state::{SharedState, now};

/// The gate.
pub(crate) struct Behaviour(SharedState);

impl Behaviour {
    /// Refuses what `state` refuses.
    pub(crate) fn new(state: SharedState) -> Self {
        Self(state)
    }

    fn check(
        &self,
        peer: &PeerId,
        incoming: Option<&Multiaddr>,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0
            .lock()
            .handle_authenticated(peer, incoming)
            .map(|()| dummy::ConnectionHandler)
            .map_err(ConnectionDenied::new)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.0
            .lock()
            .handle_incoming(connection, remote, memory::resident, now())
            .map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer, Some(remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer, None)
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

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
