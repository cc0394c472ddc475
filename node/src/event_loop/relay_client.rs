//! What the relay client tells: reservations and circuits.

use libp2p::relay::client::Event;

use super::EventLoop;
use crate::event;

impl EventLoop {
    pub(super) fn on_relay_client(&mut self, event: Event) {
        match event {
            Event::ReservationReqAccepted {
                relay_peer_id,
                renewal,
                ..
            } => {
                if self.relays.handle_reserved(&relay_peer_id) {
                    tracing::info!(relay = %relay_peer_id, "holding a reservation");
                    self.observers.tell(event::Event::Reserved {
                        t: self.t(),
                        relay: relay_peer_id,
                    });
                } else {
                    tracing::debug!(relay = %relay_peer_id, renewal, "reservation renewed");
                }
            }
            Event::OutboundCircuitEstablished { relay_peer_id, .. } => {
                tracing::debug!(relay = %relay_peer_id, "circuit made");
            }
            Event::InboundCircuitEstablished { src_peer_id, .. } => {
                tracing::debug!(peer = %src_peer_id, "circuit accepted");
            }
        }
    }
}
