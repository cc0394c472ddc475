//! Refuses connections, before their handshake and after it, as [`RelayState`](crate::core::RelayState) decides.
//!
//! It is the first of the behaviours, so that no other sees a connection that is refused.

use std::convert::Infallible;

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, dummy},
};

use p2pnode_daemon::memory;
use p2pnode_transports::Displacer;

use crate::swarm::shared_state::{SharedState, now};

/// The gate.
pub(crate) struct Behaviour {
    state: SharedState,
    displacer: Displacer,
}

impl Behaviour {
    /// Refuses what `state` refuses; `displacer` ends handshakes of the transport.
    pub(crate) fn new(state: SharedState, displacer: Displacer) -> Self {
        Self { state, displacer }
    }

    fn check(
        &self,
        peer: &PeerId,
        incoming: Option<&Multiaddr>,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.state
            .lock()
            .handle_authenticated(peer, incoming, now())
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
        let displaced = self
            .state
            .lock()
            .handle_incoming(connection, remote, memory::resident, now())
            .map_err(ConnectionDenied::new)?;
        self.displacer.begun(connection);
        if let Some(displaced) = displaced {
            self.displacer.end(displaced);
        }
        Ok(())
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

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "only the ends of handshakes matter"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                self.displacer.over(established.connection_id);
            }
            FromSwarm::ListenFailure(failure) => self.displacer.over(failure.connection_id),
            _ => {}
        }
    }

    p2pnode_protocol::no_reports!();
    p2pnode_protocol::polls!(nothing);
}
