//! Refuses connections, and ends others for newcomers, as [`Admission`] decides.

use std::{
    collections::BTreeSet,
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, ToSwarm, dummy,
    },
};
use p2pnode_daemon::memory::Pressure;
use p2pnode_transports::Displacer;

use crate::core::admission::{Action, Admission, Event};

/// Admission and what ends the handshakes of the transport.
pub(crate) struct Behaviour {
    admission: Admission,
    pressure: Pressure,
    displacer: Displacer,
}

impl Behaviour {
    /// Does what `admission` decides; `displacer` ends handshakes of the swarm's transport.
    pub(crate) fn new(admission: Admission, pressure: Pressure, displacer: Displacer) -> Self {
        Self {
            admission,
            pressure,
            displacer,
        }
    }

    /// From now on the configuration names these peers.
    pub(crate) fn set_named(&mut self, named: BTreeSet<PeerId>) {
        self.admission.handle_named(named);
    }

    /// This node wants to dial `peer`, and does so as this connection.
    pub(crate) fn own_dial(&mut self, connection: ConnectionId, peer: PeerId) {
        self.admission.handle_own_dial(connection, peer);
    }

    fn authenticated(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        inbound: Option<(&Multiaddr, &Multiaddr)>,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admission
            .handle_authenticated(connection, peer, inbound, Instant::now())
            .map(|()| dummy::ConnectionHandler)
            .map_err(ConnectionDenied::new)
    }

    fn failed(&mut self, connection: ConnectionId) {
        self.displacer.over(connection);
        self.admission.handle_failed(connection);
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let pressure = &self.pressure;
        (self.admission).handle_memory(pressure.handshakes(), pressure.is_high());
        self.admission
            .handle_incoming(connection, local, remote, Instant::now())
            .map_err(ConnectionDenied::new)?;
        self.displacer.begun(connection);
        Ok(())
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.admission
            .handle_dial(connection, peer, Instant::now())
            .map(|()| Vec::new())
            .map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.authenticated(connection, peer, Some((local, remote)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.authenticated(connection, peer, None)
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "only connections that begin and end matter"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let (connection, peer) = (established.connection_id, established.peer_id);
                self.displacer.over(connection);
                let inbound = match established.endpoint {
                    ConnectedPoint::Listener {
                        local_addr,
                        send_back_addr,
                    } => Some((local_addr, send_back_addr)),
                    ConnectedPoint::Dialer { .. } => None,
                };
                self.admission
                    .handle_established(connection, peer, inbound, Instant::now());
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.admission
                    .handle_closed(closed.connection_id, closed.peer_id);
            }
            FromSwarm::ListenFailure(failure) => self.failed(failure.connection_id),
            FromSwarm::DialFailure(failure) => self.failed(failure.connection_id),
            _ => {}
        }
    }

    p2pnode_protocol::no_reports!();

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        while let Some(action) = self.admission.poll_action() {
            match action {
                Action::End(handshake) => self.displacer.end(handshake),
                Action::Close(peer_id, connection) => {
                    return Poll::Ready(ToSwarm::CloseConnection {
                        peer_id,
                        connection: CloseConnection::One(connection),
                    });
                }
            }
        }
        match self.admission.poll_event() {
            Some(event) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            None => Poll::Pending,
        }
    }
}
