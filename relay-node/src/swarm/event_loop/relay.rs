//! What the relay server reports.

use libp2p::{PeerId, swarm::ConnectionId};
use tracing::{debug, info};

use super::EventLoop;
use crate::{
    observe::metrics::Reason,
    swarm::circuit::{Closed, Event, Judge},
};

impl EventLoop {
    /// What the relay has granted.
    pub(super) fn judge(&self) -> &Judge {
        self.swarm.behaviour().relay.judge()
    }

    pub(super) fn on_relay(&mut self, event: Event) {
        match event {
            Event::Reserved {
                peer,
                connection,
                renewed,
            } => self.reserved(peer, connection, renewed),
            Event::Released {
                peer,
                connection,
                how,
            } => self.released(peer, connection, how),
            Event::ReservationDenied { peer, reason } => {
                self.metrics.denied(reason);
                info!(%peer, reason = reason.as_str(), "reservation denied");
            }
            Event::Opened {
                source,
                destination,
            } => {
                self.metrics.observe(self.judge());
                info!(%source, %destination, circuits = self.judge().circuits(), "circuit opened");
            }
            Event::Closed(closed) => self.circuit_closed(&closed),
            Event::CircuitDenied {
                source,
                destination,
                reason,
                why,
            } => {
                self.metrics.denied(reason);
                let why = why.map(|why| why.to_string());
                info!(%source, %destination, reason = reason.as_str(), why, "circuit denied");
            }
            // Anybody on the internet can cause these, so they are counted and not logged by default.
            Event::Malformed { peer, fault } => {
                self.metrics.denied(Reason::Malformed);
                debug!(%peer, %fault, "a request was refused");
            }
            Event::TooMany { peer } => {
                self.metrics.denied(Reason::HandshakeLimit);
                debug!(%peer, "a request was refused: too many at once");
            }
            Event::Serves(true) => info!("taking reservations"),
            Event::Serves(false) => info!("taking no reservations: no external address"),
        }
    }

    fn reserved(&mut self, peer: PeerId, connection: ConnectionId, renewed: bool) {
        self.swarm.behaviour_mut().keep_alive.hold(peer);
        self.metrics.observe(self.judge());
        if renewed {
            debug!(%peer, %connection, "reservation renewed");
        } else {
            info!(%peer, %connection, reservations = self.judge().reservations(), "reservation granted");
        }
        if let Some(offer) = self.early.remove(&peer) {
            self.on_offer(offer);
        }
    }

    fn released(&mut self, peer: PeerId, connection: ConnectionId, how: &'static str) {
        // Another relay is kept for what it is.
        if !self.judge().holds(&peer) && !self.partners.contains(&peer) {
            self.swarm.behaviour_mut().keep_alive.release(peer);
        }
        self.metrics.observe(self.judge());
        info!(%peer, %connection, how, reservations = self.judge().reservations(), "reservation ended");
    }

    fn circuit_closed(&self, closed: &Closed) {
        let Closed {
            source,
            destination,
            open,
            traffic,
            cut,
        } = closed;
        self.metrics.circuit_closed(*open);
        self.metrics.observe(self.judge());
        let reason = cut
            .as_ref()
            .map_or_else(|| "done".to_owned(), ToString::to_string);
        let (to_destination, to_source) = (traffic.to_destination(), traffic.to_source());
        info!(%source, %destination, ?open, to_destination, to_source, reason, "circuit closed");
    }
}
