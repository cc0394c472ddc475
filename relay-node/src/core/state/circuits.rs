//! Reservations, and circuits from the request to their end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::hop;

use super::{Action, Event, Keep, RelayState, ReservationEnd};
use crate::core::{
    circuits::{CircuitId, Cut, End, Ended, OtherLeg, Traffic},
    clock::Now,
    denial::DenialReason,
    policy::{Granted, Refusal, Route},
    rates::Request,
};

/// A reservation that is granted: what the peer is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Whether the connection held it before.
    pub renewed: bool,
    /// When it ends unless it is renewed, in seconds since 1970.
    pub expires: u64,
    /// The external addresses of the relay, with its id, the newest first.
    pub addrs: Vec<Multiaddr>,
}

/// A circuit that is open.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The peer that dialed it.
    pub source: End,
    /// The peer that was dialed.
    pub destination: End,
    /// Where its bytes are counted.
    pub traffic: Arc<Traffic>,
}

impl RelayState {
    /// A peer asks for a reservation on a connection, or renews the one that the connection holds.
    ///
    /// # Errors
    /// Why it gets none.
    pub fn handle_reservation_request(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        now: Now,
    ) -> Result<Reservation, Refusal> {
        let measured = self.measured(Request::Reserve, peer, connection, now);
        let granted = measured
            .and_then(|()| {
                let admitted = self.admission.admitted(&peer, now.wall);
                self.policy.reserve(admitted, connection, peer, now.instant)
            })
            .inspect_err(|refusal| {
                if let Some(reason) = refusal.reason() {
                    let denied = Event::ReservationDenied { peer, reason };
                    self.events.push_back(denied);
                }
            });
        let Granted { renewed, lasts } = granted?;
        self.keep_alive(peer, Keep::Always);
        self.classify(peer);
        if let Some(ends) = self.policy.ends_of(connection).filter(|_| !renewed) {
            self.twins.granted(connection, peer, ends, now.instant);
        }
        self.events.push_back(Event::ReservationGranted {
            peer,
            connection,
            renewed,
        });
        self.records.reserved(&peer);
        if let Some((_, offer)) = self.records_awaiting_reservation.remove(&peer) {
            self.handle_record(offer, now);
        }
        let seen_at = self.introductions.seen.source(&peer, connection);
        let addrs = self.external.named(seen_at).cloned();
        let addrs = addrs.filter_map(|addr| addr.with_p2p(self.local).ok());
        Ok(Reservation {
            renewed,
            expires: seconds(now.wall, lasts),
            addrs: addrs.collect(),
        })
    }

    /// The answer that granted a new reservation could not be delivered, so the peer does not know of it.
    pub fn handle_reservation_undelivered(&mut self, connection: ConnectionId, now: Now) {
        if let Some(peer) = self.policy.release(connection) {
            self.end_reservation(peer, connection, ReservationEnd::Undelivered, now);
            self.settle_drain(now);
        }
    }

    pub(super) fn end_expired_reservations(&mut self, now: Now) {
        while let Some((peer, connection)) = self.policy.poll_expired(now.instant) {
            self.end_reservation(peer, connection, ReservationEnd::Expired, now);
        }
    }

    pub(super) fn end_reservation(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        how: ReservationEnd,
        now: Now,
    ) {
        let places = self.policy.places(&peer);
        self.twins.ended(connection, places);
        if !self.policy.holds(&peer) {
            self.records.released(&peer, now.instant);
        }
        // Another relay is kept for what it is.
        if !self.policy.holds(&peer) && !self.peer_relays.contains(&peer) {
            self.keep_alive(peer, Keep::WhileUsed);
        }
        self.classify(peer);
        self.events.push_back(Event::ReservationEnded {
            peer,
            connection,
            how,
        });
    }

    pub(super) fn keep_alive(&mut self, peer: PeerId, keep: Keep) {
        self.actions.push_back(Action::KeepAlive { peer, keep });
    }

    /// `source` asks on a connection for a circuit to `destination`. If there is a route, the destination is asked on it, within a
    /// time that the adapter sets. [`Self::handle_circuit_ready`], [`Self::handle_circuit_not_taken`] or
    /// [`Self::handle_circuit_undelivered`] follows, and the circuit counts until then.
    ///
    /// # Errors
    /// Why there is none.
    pub fn handle_circuit_request(
        &mut self,
        source: PeerId,
        connection: ConnectionId,
        destination: PeerId,
        now: Now,
    ) -> Result<Route, Refusal> {
        let measured = self.measured(Request::Connect, source, connection, now);
        measured
            .and_then(|()| {
                let admitted = self.admission.admitted(&source, now.wall);
                self.policy
                    .connect(admitted, connection, source, destination)
            })
            .inspect_err(|refusal| {
                if let Some(reason) = refusal.reason() {
                    self.events.push_back(Event::CircuitDenied {
                        source,
                        destination,
                        reason,
                        why: None,
                    });
                }
            })
            // It has streams for the circuits that it asks for in the same moment.
            .inspect(|_| self.classify(source))
    }

    /// The destination of a circuit did not take it, or its connection is gone.
    pub fn handle_circuit_not_taken(&mut self, id: CircuitId, why: String, now: Now) {
        if let Some(ended) = self.end_circuit(id, now) {
            self.events.push_back(Event::CircuitDenied {
                source: ended.source.peer,
                destination: ended.destination.peer,
                reason: DenialReason::DestinationFailed,
                why: Some(why),
            });
        }
    }

    /// The destination of a circuit took it, and the answer could not be delivered to the source. Returns the destination, if the circuit was still being made.
    pub fn handle_circuit_undelivered(&mut self, id: CircuitId, now: Now) -> Option<PeerId> {
        let ended = self.end_circuit(id, now)?;
        Some(ended.destination.peer)
    }

    fn end_circuit(&mut self, id: CircuitId, now: Now) -> Option<Ended> {
        let ended = self.policy.closed(id, now.instant)?;
        self.classify(ended.source.peer);
        self.classify(ended.destination.peer);
        Some(ended)
    }

    /// Both sides of a circuit are there, and know it. `None` if the connection of one of them is gone meanwhile: then nothing is
    /// carried. Otherwise [`Self::handle_circuit_ended`] follows.
    pub fn handle_circuit_ready(&mut self, id: CircuitId, now: Now) -> Option<Opened> {
        let (source, destination, traffic) = self.policy.opened(id, now.instant)?;
        self.classify(source.peer);
        self.classify(destination.peer);
        self.events.push_back(Event::CircuitOpened {
            source: source.peer,
            destination: destination.peer,
        });
        self.settle_drain(now);
        Some(Opened {
            source,
            destination,
            traffic,
        })
    }

    /// Nothing more is carried over a circuit: both sides have ended it, or it was cut.
    pub fn handle_circuit_ended(&mut self, id: CircuitId, cut: Option<Cut>, now: Now) {
        if let Some(ended) = self.end_circuit(id, now)
            && let Some(open) = ended.open
        {
            self.events.push_back(Event::CircuitClosed {
                source: ended.source.peer,
                destination: ended.destination.peer,
                open,
                traffic: ended.traffic,
                cut,
            });
        }
        self.settle_drain(now);
    }

    /// A party to a circuit asks for its other leg.
    pub fn handle_hop_request(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        request: &hop::Request,
        now: Now,
    ) -> hop::Answer {
        use hop::{Answer, Refusal};
        if !self.hop_requests.admits(peer, now.instant) {
            return Answer::Refused(Refusal::TooOften);
        }
        let other = self
            .policy
            .other_leg(peer, connection, request.peer, request.dialed);
        match other {
            OtherLeg::None => Answer::Refused(Refusal::NotAParty),
            OtherLeg::Unknown => Answer::Refused(Refusal::Unknown),
            OtherLeg::Is(other) => {
                self.connections
                    .leg(other)
                    .map_or(Answer::Refused(Refusal::Unknown), |leg| {
                        let all = &self.introductions.seen;
                        let near = all.near(&peer, &request.peer);
                        let seen = all.seen_at(&request.peer, &request.ips);
                        Answer::Leg(hop::Leg { near, seen, ..leg })
                    })
            }
        }
    }
}

fn seconds(now: SystemTime, lasts: Duration) -> u64 {
    let ends = (now + lasts).duration_since(SystemTime::UNIX_EPOCH);
    ends.unwrap_or_default().as_secs()
}
