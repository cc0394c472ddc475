//! What the relay server reports.

use std::time::{Instant, SystemTime};

use libp2p::{PeerId, relay, swarm::ConnectionId};
use tracing::{debug, info};

use super::EventLoop;
use crate::{
    metrics::Reason,
    requests::Denial,
    server::{self, Attributed},
};

impl EventLoop {
    pub(super) fn on_relay(&mut self, event: server::Event) {
        match event {
            server::Event::Relay(event) => self.on_relayed(event),
            server::Event::Denied(Denial { peer, reason }) => {
                self.metrics.denied(reason);
                info!(%peer, reason = reason.as_str(), "reservation denied");
            }
        }
    }

    #[expect(
        deprecated,
        reason = "an exhaustive match names the events that libp2p is going to drop"
    )]
    fn on_relayed(
        &mut self,
        Attributed {
            connection,
            onward,
            event,
        }: Attributed,
    ) {
        match event {
            relay::Event::ReservationReqAccepted {
                src_peer_id,
                renewed,
            } => {
                self.reserved(src_peer_id, connection, renewed);
            }
            relay::Event::ReservationClosed { src_peer_id } => {
                self.released(src_peer_id, connection, "closed")
            }
            relay::Event::ReservationTimedOut { src_peer_id } => {
                self.released(src_peer_id, connection, "expired")
            }
            // It was told when it was decided.
            relay::Event::ReservationReqDenied { src_peer_id, .. } => {
                debug!(peer = %src_peer_id, "the denial of a reservation was delivered");
            }
            relay::Event::CircuitReqAccepted {
                src_peer_id,
                dst_peer_id,
            } => {
                self.circuit_opened(src_peer_id, dst_peer_id, connection, onward);
            }
            relay::Event::CircuitClosed {
                src_peer_id,
                dst_peer_id,
                error,
            } => {
                self.circuit_closed(src_peer_id, dst_peer_id, connection, error);
            }
            relay::Event::CircuitReqDenied {
                src_peer_id,
                dst_peer_id,
                status,
            } => {
                let mut reason = Reason::of_circuit(status);
                let admitted = self.admission.admitted(&src_peer_id, SystemTime::now());
                // The gate refuses as a limit does.
                if let (Reason::CircuitLimit, Err(refused)) = (reason, admitted) {
                    reason = refused.reason();
                } else if reason == Reason::CircuitLimit && self.drain.is_some() {
                    reason = Reason::Draining;
                }
                self.metrics.denied(reason);
                info!(source = %src_peer_id, destination = %dst_peer_id, reason = reason.as_str(), "circuit denied");
            }
            relay::Event::StatusChanged { status } => match status {
                relay::Status::Enable => info!("taking reservations"),
                relay::Status::Disable => info!("taking no reservations: no external address"),
            },
            relay::Event::ReservationReqAcceptFailed { src_peer_id, error }
            | relay::Event::ReservationReqDenyFailed { src_peer_id, error } => {
                debug!(peer = %src_peer_id, %error, "the answer to a reservation was not delivered");
            }
            relay::Event::CircuitReqDenyFailed {
                src_peer_id,
                dst_peer_id,
                error,
            }
            | relay::Event::CircuitReqAcceptFailed {
                src_peer_id,
                dst_peer_id,
                error,
            } => {
                debug!(source = %src_peer_id, destination = %dst_peer_id, %error, "the answer to a circuit was not delivered");
            }
            relay::Event::CircuitReqOutboundConnectFailed {
                src_peer_id,
                dst_peer_id,
                error,
            } => {
                debug!(source = %src_peer_id, destination = %dst_peer_id, %error, "the destination did not take the circuit");
            }
        }
    }

    fn reserved(&mut self, peer: PeerId, connection: Option<ConnectionId>, renewed: bool) {
        let Some(connection) = connection else { return };
        if self.ledger.reserved(peer, connection) {
            self.swarm.behaviour_mut().keep_alive.hold(peer);
        }
        self.metrics.observe(&self.ledger);
        if renewed {
            debug!(%peer, %connection, "reservation renewed");
        } else {
            info!(%peer, %connection, reservations = self.ledger.reservations(), "reservation granted");
        }
        if let Some(offer) = self.early.remove(&peer) {
            self.on_offer(offer);
        }
    }

    fn released(&mut self, peer: PeerId, connection: Option<ConnectionId>, how: &'static str) {
        let Some(connection) = connection else { return };
        let before = self.ledger.reservations();
        if self.ledger.released(peer, connection) {
            self.swarm.behaviour_mut().keep_alive.release(peer);
        }
        // libp2p reports the end of connections that never had a reservation in the same way.
        if self.ledger.reservations() < before {
            self.metrics.observe(&self.ledger);
            info!(%peer, %connection, how, reservations = self.ledger.reservations(), "reservation ended");
        }
    }

    fn circuit_opened(
        &mut self,
        source: PeerId,
        destination: PeerId,
        connection: Option<ConnectionId>,
        onward: Option<ConnectionId>,
    ) {
        let Some(connection) = connection else { return };
        self.ledger
            .opened(source, destination, connection, onward, Instant::now());
        self.metrics.observe(&self.ledger);
        info!(%source, %destination, circuits = self.ledger.circuits(), "circuit opened");
    }

    fn circuit_closed(
        &mut self,
        source: PeerId,
        destination: PeerId,
        connection: Option<ConnectionId>,
        error: Option<std::io::Error>,
    ) {
        let Some(connection) = connection else { return };
        if let Some(open) = self
            .ledger
            .closed(source, destination, connection, Instant::now())
        {
            self.metrics.circuit_closed(open);
            self.metrics.observe(&self.ledger);
            let reason = error.map_or_else(|| "done".to_owned(), |error| error.to_string());
            info!(%source, %destination, ?open, reason, "circuit closed");
        }
    }
}
