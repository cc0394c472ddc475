//! Connections and listeners of the swarm.

use std::{io, net::SocketAddr, time::Instant};

use libp2p::{
    Multiaddr, PeerId, TransportError,
    core::{ConnectedPoint, transport::ListenerId},
    multiaddr::Protocol,
    swarm::{ConnectionId, DialError, SwarmEvent},
};
use p2pnode_transports::{Sockets, Transport, to_socket_addr};

use super::{EventLoop, Purpose, jitter, reconnect};
use crate::{
    core::{
        dialer::{CircuitFailure, PingFailure},
        event::Event,
        liveness::{Ended, Link},
        peers::{How, PathKind},
        relays::Unreachable,
    },
    observe::metrics::Cause,
    swarm::{behaviour::BehaviourEvent, dial_error},
};

impl EventLoop {
    pub(super) fn on_connection_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                concurrent_dial_errors,
                ..
            } => {
                let failed = concurrent_dial_errors.unwrap_or_default();
                self.on_established(peer_id, connection_id, &endpoint, &failed);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                let ended = reconnect::ended(cause.as_ref());
                let reason = cause.map_or_else(
                    || "closed".to_owned(),
                    |cause| dial_error::innermost(&cause),
                );
                self.on_closed(peer_id, connection_id, ended, reason);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => self.on_dial_error(connection_id, &error),
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                tracing::debug!(from = %send_back_addr, error = %dial_error::innermost(&error), "an inbound connection failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.is_moved = true;
                if !address.iter().any(|p| p == Protocol::P2pCircuit) {
                    tracing::info!(%address, "listening");
                    self.observers.emit(Event::Listening { address });
                }
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                reason,
                ..
            } => {
                let reason = reason.map_or_else(
                    |error| dial_error::innermost(&error),
                    |()| "the connection to the relay closed".to_owned(),
                );
                self.on_listener_closed(listener_id, &reason);
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(error = %dial_error::innermost(&error), "a listener reported an error and goes on");
            }
            SwarmEvent::ExpiredListenAddr { .. } => self.is_moved = true,
            SwarmEvent::Dialing { .. }
            | SwarmEvent::IncomingConnection { .. }
            | SwarmEvent::NewExternalAddrCandidate { .. }
            | SwarmEvent::ExternalAddrConfirmed { .. }
            | SwarmEvent::ExternalAddrExpired { .. }
            | SwarmEvent::NewExternalAddrOfPeer { .. }
            | SwarmEvent::Behaviour(_) => {}
            // The enum is open: what a later libp2p adds is nobody's business here until it is looked at.
            other => tracing::trace!(?other, "an event that this version does not know"),
        }
    }

    /// `failed` are the addresses of the same dial that were tried in vain.
    fn on_established(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        failed: &[(Multiaddr, TransportError<io::Error>)],
    ) {
        let now = Instant::now();
        let purpose = self.purposes.remove(&id);
        let sockets = self.sockets_of(endpoint);
        self.peers.established(id, peer, endpoint, sockets, now);
        // Every dial of this loop has a purpose; one that has none and is direct is the punch behaviour's.
        if purpose.is_none() && endpoint.is_dialer() && !endpoint.is_relayed() {
            self.peers.punched(id);
        }
        let Some(path) = self.peers.path(id) else {
            return;
        };
        tracing::info!(%peer, connection = %id, kind = %path.kind, how = %path.how, path = %path, "connected");
        if path.kind == PathKind::Direct && path.how != How::Accepted && !self.in_range(&path) {
            tracing::error!(%peer, path = %path, range = %self.sockets.range(), "a dial left from outside the range; please report this");
            self.observers.out_of_range();
        }
        if endpoint.is_dialer() {
            self.observers.dialed(&path, failed);
        }
        // Whether the first direct connection came out of a punch is told by the punch behaviour, which comes next.
        if path.kind == PathKind::Relayed || self.peers.directs(&peer) > 1 {
            self.observe_path(peer, Cause::Made(path.how), now);
        }
        let is_leg = self.relays.handle_established(id).is_some();
        if is_leg {
            self.meet_again(peer);
        }
        if let Some(Purpose::Matched(peer)) = purpose {
            self.on_matched(peer);
        }
        if let Some(Purpose::Local { peer, host }) = purpose {
            self.neighbours.answered(host, peer, now);
        }
        if let Some(Purpose::FoundLeg(relay)) = purpose {
            // Without a token there is nothing to wait for: a relay that wants one is the exception.
            if !self.has_token(&relay) {
                self.on_found_leg(relay, id);
            }
        }
        if is_leg || matches!(purpose, Some(Purpose::FoundLeg(_))) {
            self.join(peer, id);
        }
        self.inquire(id, now);
        self.liveness
            .established(id, self.link(&peer, path.kind), now);
        self.reconnector.handle_connected(&peer, path.relay, now);
        if let Some(best) = self.best_path(&peer) {
            for dialer in self.dials_of(peer) {
                dialer.handle_connected(path.clone(), best.clone(), now);
            }
        }
        self.observers.emit(Event::Connected {
            t: self.t(),
            peer,
            path,
            found_by: None,
        });
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId, ended: Ended, reason: String) {
        let now = Instant::now();
        let lost = self.liveness.closed(id, ended, now);
        self.inquiries.handle_closed(id);
        self.end_meetings(id);
        self.swarm.behaviour_mut().punch.observation_lost(id);
        if let Some(relay) = self.relays.handle_closed(id, now, jitter()) {
            tracing::warn!(relay = %relay.peer, address = %relay.addr, %reason, "lost the connection to a relay; dialing it again");
        }
        let Some(connection) = self.peers.closed(id) else {
            return;
        };
        self.end_access(&peer);
        let kind = connection.path.kind;
        tracing::info!(%peer, connection = %id, %kind, %reason, "disconnected");
        self.observe_path(peer, Cause::of_end(ended, lost), now);
        let best = self.best_path(&peer);
        if best.is_none() {
            self.next_punches.remove(&peer);
            if lost {
                self.reconnector.handle_lost(&peer, now, jitter());
            } else {
                self.reconnector.forget(&peer);
            }
        }
        for dial in &mut self.dials {
            if let Some(dialer) = dial.take_ping(id) {
                dialer.handle_ping_failed(PingFailure::Stale);
            }
        }
        for dialer in self.dials_of(peer) {
            dialer.handle_disconnected(kind, reason.clone(), best.clone(), now);
        }
        self.observers.emit(Event::Disconnected {
            t: self.t(),
            peer,
            kind,
            reason,
        });
    }

    pub(super) fn on_dial_error(&mut self, id: ConnectionId, error: &DialError) {
        self.observers.dial_failed(error);
        let reason = dial_error::describe(error);
        let t = self.t();
        match self.purposes.remove(&id) {
            Some(Purpose::Leg) => {
                let Some(Unreachable {
                    relay,
                    failures,
                    is_news,
                }) = self.relays.handle_dial_failed(id, Instant::now(), jitter())
                else {
                    return;
                };
                if is_news {
                    tracing::warn!(relay = %relay.peer, address = %relay.addr, %reason, "cannot reach a relay; trying again until it answers");
                    self.observers.emit(Event::RelayUnreachable {
                        t,
                        relay: relay.peer,
                        reason: reason.clone(),
                    });
                } else {
                    tracing::debug!(relay = %relay.peer, address = %relay.addr, %reason, failures, "cannot reach a relay");
                }
                if self.relays.is_unreachable(&relay.peer) {
                    for dial in &mut self.dials {
                        dial.dialer.handle_relay_unreachable(relay.peer, t, &reason);
                    }
                }
            }
            Some(Purpose::Direct(peer)) => {
                for dialer in self.dials_of(peer) {
                    dialer.handle_direct_failed(reason.clone());
                }
            }
            Some(Purpose::Local { peer, host }) => {
                self.on_candidate_failed(peer, host, error, reason)
            }
            Some(Purpose::FoundLeg(relay)) => self.on_found_leg_failed(relay, id, &reason),
            Some(
                purpose @ (Purpose::Circuit { .. } | Purpose::Again { .. } | Purpose::Matched(_)),
            ) => {
                let failure = dial_error::circuit_failure(error);
                if failure != CircuitFailure::Refused || !self.holds_back(purpose, &reason) {
                    self.on_circuit_failed(purpose, failure, reason);
                }
            }
            // A punch's dial: its behaviour was told by the swarm and reports itself.
            None => tracing::debug!(connection = %id, %reason, "a dial failed"),
        }
    }

    /// A circuit was not made, or a peer that was lost was not reached.
    pub(super) fn on_circuit_failed(
        &mut self,
        purpose: Purpose,
        failure: CircuitFailure,
        reason: String,
    ) {
        let now = Instant::now();
        match purpose {
            Purpose::Circuit { peer, relay } => {
                for dialer in self.dials_of(peer) {
                    dialer.handle_circuit_failed(relay, failure, reason.clone(), now);
                }
            }
            Purpose::Again { peer, relay } => {
                tracing::debug!(%peer, %reason, "a lost peer was not reached");
                if let Some(relay) = relay {
                    self.reconnector.handle_failed(&peer, &relay, now);
                }
            }
            Purpose::Matched(peer) => {
                tracing::debug!(%peer, %reason, "the circuit stays as it is");
                let best = self.best_path(&peer);
                for dialer in self.dials_of(peer) {
                    dialer.handle_far_hop(best.clone());
                }
            }
            Purpose::Leg | Purpose::FoundLeg(_) | Purpose::Direct(_) | Purpose::Local { .. } => {}
        }
    }

    fn on_listener_closed(&mut self, listener: ListenerId, reason: &str) {
        self.is_moved = true;
        let Some(lost) = self
            .relays
            .handle_listener_closed(listener, Instant::now(), jitter())
        else {
            return;
        };
        if lost.is_held {
            tracing::info!(relay = %lost.relay, %reason, "lost the reservation in one family; asking for it again");
        } else if lost.was_held {
            tracing::warn!(relay = %lost.relay, %reason, "lost the reservation; asking for it again");
            self.observers.emit(Event::ReservationLost {
                t: self.t(),
                relay: lost.relay,
                reason: reason.to_owned(),
            });
        } else {
            tracing::warn!(relay = %lost.relay, %reason, "the relay gave no reservation; asking again later");
        }
    }

    fn link(&self, peer: &PeerId, kind: PathKind) -> Link {
        match kind {
            PathKind::Relayed => Link::Circuit,
            PathKind::Direct if self.is_relay(peer) => Link::Leg,
            PathKind::Direct => Link::Direct,
        }
    }

    /// The true sockets of a direct connection.
    fn sockets_of(&self, endpoint: &ConnectedPoint) -> Option<Sockets> {
        let sockets = match endpoint {
            ConnectedPoint::Dialer { address, .. } => self.sockets.sockets(address)?,
            ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            } => {
                let (transport, local) = socket_address(local_addr)?;
                let (_, remote) = socket_address(send_back_addr)?;
                Sockets {
                    transport,
                    local,
                    remote,
                }
            }
        };
        // A socket bound to the wildcard address knows its own address only by the route to the other side.
        if sockets.local.ip().is_unspecified() {
            let ip = self.sockets.source_ip(sockets.remote.ip())?;
            return Some(Sockets {
                local: SocketAddr::new(ip, sockets.local.port()),
                ..sockets
            });
        }
        Some(sockets)
    }

    fn in_range(&self, path: &crate::core::peers::Path) -> bool {
        path.hops
            .first()
            .and_then(|hop| hop.local)
            .is_none_or(|local| self.sockets.range().contains(local.port()))
    }
}

/// Transport and socket that an address of a direct connection names.
fn socket_address(address: &Multiaddr) -> Option<(Transport, SocketAddr)> {
    Some((Transport::of(address)?, to_socket_addr(address)?))
}
