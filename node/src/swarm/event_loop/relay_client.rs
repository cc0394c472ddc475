//! What the relay client tells: reservations and circuits.

use libp2p::relay::client;
use p2pnode_protocol::draining::Draining;

use super::EventLoop;
use crate::{core::event, swarm::circuits::Event};

impl EventLoop {
    /// A peer says that it is a relay that ends. Only of a relay of ours does it matter.
    pub(super) fn on_draining(&mut self, Draining { peer, connection }: Draining) {
        if self.relays.handle_draining(connection) {
            tracing::info!(relay = %peer, "the relay is ending; the next one is asked for a reservation");
        } else {
            tracing::debug!(%peer, %connection, "a peer says that it drains");
        }
    }

    pub(super) fn on_relay_client(&mut self, event: Event) {
        let family = event.family;
        match event.event {
            client::Event::ReservationReqAccepted {
                relay_peer_id,
                renewal,
                ..
            } => {
                self.is_moved = true;
                if self.relays.handle_reserved(&relay_peer_id, family) {
                    tracing::info!(relay = %relay_peer_id, %family, "holding a reservation");
                    self.observers.emit(event::Event::Reserved {
                        t: self.t(),
                        relay: relay_peer_id,
                    });
                } else {
                    tracing::debug!(relay = %relay_peer_id, %family, renewal, "reservation");
                }
            }
            client::Event::OutboundCircuitEstablished { relay_peer_id, .. } => {
                tracing::debug!(relay = %relay_peer_id, "circuit made");
            }
            client::Event::InboundCircuitEstablished { src_peer_id, .. } => {
                tracing::debug!(peer = %src_peer_id, "circuit accepted");
            }
        }
    }
}
