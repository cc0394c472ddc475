//! What happens in the swarm, as inputs of the state.

use std::{
    io,
    net::SocketAddr,
    time::{Instant, SystemTime},
};

use libp2p::{
    Multiaddr, PeerId, TransportError,
    core::ConnectedPoint,
    identify,
    relay::client,
    swarm::{ConnectionId, DialError, ListenError, SwarmEvent},
};
use p2pnode_protocol::{
    dcutr, directory, draining::Draining, exchange, from_remote, introduction::IntroductionReply,
    preference, shared_key::Received,
};
use p2pnode_transports::{Sockets, Transport, to_socket_addr};

use super::EventLoop;
use crate::{
    core::{
        admission::{Event, Refused},
        state::{Closed, Established, ListenerEnd},
    },
    discovery::SearchEvent,
    swarm::{behaviour::BehaviourEvent, circuits, dial_error, introduction, join},
};

impl EventLoop {
    pub(super) fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let now = Instant::now();
        // Polling the swarm may have opened a punch socket.
        self.state
            .handle_punch_ports(self.sockets.punch_ports(), now);
        self.state.handle_learned(self.sockets.learned(), now);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event, now),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                concurrent_dial_errors,
                ..
            } => {
                let failed = concurrent_dial_errors.unwrap_or_default();
                self.on_established(peer_id, connection_id, endpoint, &failed, now);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                endpoint,
                ..
            } => {
                if dial_error::is_overuse(cause.as_ref()) {
                    self.observers.refused(Refused::Unread);
                    self.state.handle_turned_away(Refused::Unread, now);
                }
                let closed = Closed {
                    connection: connection_id,
                    peer: peer_id,
                    ended: dial_error::ended(cause.as_ref(), endpoint.is_relayed()),
                    reason: dial_error::end(cause.as_ref(), endpoint.is_relayed()),
                };
                self.state.handle_closed(closed, now);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => self.on_dial_error(connection_id, &error, now),
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                if matches!(error, ListenError::LocalPeerId { .. }) {
                    self.state.handle_met_itself(now);
                }
                tracing::debug!(from = %send_back_addr, error = %dial_error::innermost(&error), "an inbound connection failed");
            }
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => self.state.handle_listening(listener_id, address, now),
            SwarmEvent::ExpiredListenAddr {
                listener_id,
                address,
            } => self.state.handle_listen_expired(listener_id, &address, now),
            SwarmEvent::ListenerClosed {
                listener_id,
                reason,
                ..
            } => {
                let end = reason.map_or_else(
                    |error| dial_error::no_reservation(&error),
                    |()| ListenerEnd::Connection,
                );
                // Why there is no reservation has no event where there was none.
                self.observers.touch();
                self.state.handle_listener_closed(listener_id, end, now);
            }
            SwarmEvent::ListenerError { error, .. } => {
                self.observers.listener_error();
                let error = p2pnode_transports::explained(error);
                tracing::warn!(error = %dial_error::innermost(&error), "a listener reported an error and goes on");
            }
            SwarmEvent::Dialing { .. }
            | SwarmEvent::IncomingConnection { .. }
            | SwarmEvent::NewExternalAddrCandidate { .. }
            | SwarmEvent::ExternalAddrConfirmed { .. }
            | SwarmEvent::ExternalAddrExpired { .. }
            | SwarmEvent::NewExternalAddrOfPeer { .. } => {}
            // The enum is open: events that a later libp2p adds are ignored.
            other => tracing::trace!(?other, "an event that this version does not know"),
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Identify(event) => self.on_identify(event, now),
            BehaviourEvent::Ping(event) => self.state.handle_ping(event, now),
            BehaviourEvent::RelayIp4(event) | BehaviourEvent::RelayIp6(event) => {
                self.on_relay_client(&event, now);
            }
            BehaviourEvent::Punch(event) => self.state.handle_punch(event, now),
            BehaviourEvent::Introduction(introduction::Event::Replied {
                request,
                connection,
                reply,
            }) => {
                self.state
                    .handle_introduction_reply(request, connection, reply, now);
            }
            BehaviourEvent::Introduction(introduction::Event::Offered { peer, reply }) => {
                if !matches!(reply, IntroductionReply::Introduced(_)) {
                    tracing::debug!(%peer, ?reply, "the relay does not pass an offer on");
                    self.state.handle_offer_refused(peer, now);
                }
            }
            BehaviourEvent::Introduction(introduction::Event::Notified { relay, notice }) => {
                self.state.handle_introduction(relay, notice, now);
            }
            BehaviourEvent::Draining(Draining {
                peer,
                connection,
                retry_after,
            }) => {
                self.state
                    .handle_draining(peer, connection, retry_after, now);
            }
            BehaviourEvent::SharedKey(exchange::Event::Asked(question)) => {
                let (peer, at) = (question.peer, question.request.at);
                // An error means that the stream is gone.
                let _ = question.reply.send(Received {});
                self.state
                    .handle_shared_key(peer, question.connection, at, now);
            }
            BehaviourEvent::SharedKey(exchange::Event::Replied { request, .. }) => match request {},
            BehaviourEvent::Directory(event) => self.on_directory(event, now),
            BehaviourEvent::Admission(Event { refused, to_log }) => {
                self.observers.refused(refused);
                self.state.handle_turned_away(refused, now);
                tracing::debug!(%refused, "a connection was refused or ended early");
                if let Some(count) = to_log {
                    tracing::warn!(count, last = %refused, "connections were refused or ended early; the metric p2pnode_refused_total counts them, and `status` shows those of the last minute");
                }
            }
            BehaviourEvent::Access(never)
            | BehaviourEvent::Streams(never)
            | BehaviourEvent::Services(never)
            | BehaviourEvent::Autonat(never) => match never {},
        }
    }

    /// `failed` are the addresses of the same dial that failed before.
    fn on_established(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: ConnectedPoint,
        failed: &[(Multiaddr, TransportError<io::Error>)],
        now: Instant,
    ) {
        // A leg is asked for admission with the token that is in the file now.
        self.read_tokens();
        let is_dialed = endpoint.is_dialer();
        let established = Established {
            connection,
            peer,
            sockets: self.sockets_of(&endpoint),
            endpoint,
        };
        if self.sockets.kin().contains(&peer) {
            let behaviour = self.swarm.behaviour_mut();
            // Until it has identified itself.
            behaviour
                .directory
                .identified(connection, &[directory::PROTOCOL]);
        }
        self.state.handle_established(established, now);
        if is_dialed && let Some(path) = self.state.peers().path(connection) {
            self.observers.dialed(&path, failed);
        }
    }

    pub(super) fn on_dial_error(
        &mut self,
        connection: ConnectionId,
        error: &DialError,
        now: Instant,
    ) {
        let failure = dial_error::failure(error);
        self.observers.dial_failed(error, failure.circuit);
        self.state.handle_dial_failed(connection, failure, now);
    }

    fn on_identify(&mut self, event: identify::Event, now: Instant) {
        match event {
            identify::Event::Received {
                connection_id: connection,
                peer_id: peer,
                info,
            } => {
                tracing::debug!(%peer, %connection, observed = %info.observed_addr, agent = %from_remote(&info.agent_version), "identified");
                let prefers = preference::of(&info.protocols);
                let behaviour = self.swarm.behaviour_mut();
                behaviour.punch.identified(peer, prefers);
                behaviour.directory.identified(connection, &info.protocols);
                let lists_punching = info.protocols.contains(&dcutr::PROTOCOL);
                self.state.handle_protocols(connection, lists_punching);
                self.hub.handle_identified(peer, &info.protocols);
                self.state
                    .handle_identified(connection, peer, info.observed_addr, now);
            }
            identify::Event::Error {
                peer_id,
                connection_id,
                error,
            } => {
                tracing::debug!(peer = %peer_id, connection = %connection_id, %error, "identify failed");
            }
            identify::Event::Sent { .. } | identify::Event::Pushed { .. } => {}
        }
    }

    fn on_relay_client(&mut self, event: &circuits::Event, now: Instant) {
        match &event.event {
            client::Event::ReservationReqAccepted { relay_peer_id, .. } => {
                self.state
                    .handle_reserved(*relay_peer_id, event.family, now);
            }
            client::Event::OutboundCircuitEstablished { relay_peer_id, .. } => {
                tracing::debug!(relay = %relay_peer_id, "circuit made");
            }
            client::Event::InboundCircuitEstablished { src_peer_id, .. } => {
                tracing::debug!(peer = %src_peer_id, "circuit accepted");
            }
        }
    }

    pub(super) fn on_directory(&mut self, event: directory::Event, now: Instant) {
        match event {
            directory::Event::Found {
                query,
                registration,
            } => {
                if let Some(query) = self.queries.get(&query) {
                    self.state.handle_record(*query, &registration, now);
                }
            }
            directory::Event::LookedUp { query } => {
                if let Some(query) = self.queries.remove(&query) {
                    self.state.handle_lookup_ended(query, now);
                }
            }
            directory::Event::Sent { query, arrived } => {
                if let Some(query) = self.queries.remove(&query) {
                    self.state.handle_registered(query, arrived, now);
                }
            }
            directory::Event::Refused { source, reason } => {
                tracing::warn!(relay = ?source, %reason, "a relay sent an invalid record");
            }
            // A node keeps no records and runs the directory with relays only.
            directory::Event::Put(_) => {}
        }
    }

    pub(super) fn on_join_outcome(&mut self, outcome: join::Outcome) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let join::Outcome {
            relay,
            connection,
            reply,
            again,
        } = outcome;
        self.state
            .handle_join_reply(relay, connection, again, reply, now, wall);
    }

    pub(super) fn on_search_event(&mut self, peer: PeerId, event: SearchEvent) {
        let now = Instant::now();
        match event {
            SearchEvent::Found(candidates) => {
                let ips = candidates.iter().map(|candidate| candidate.host.ip());
                let own = ips.filter(|ip| self.sockets.source_ip(*ip) == Some(*ip));
                let own = own.collect();
                self.state.handle_candidates(peer, candidates, &own, now);
            }
            SearchEvent::Failed(reason) => self.state.handle_search_failed(peer, &reason, now),
            SearchEvent::Over => self.state.handle_search_ended(peer, now),
        }
    }

    /// The true sockets of a direct connection.
    fn sockets_of(&self, endpoint: &ConnectedPoint) -> Option<Sockets> {
        let sockets = match endpoint {
            ConnectedPoint::Dialer { address, .. } => self.sockets.sockets(address)?,
            ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            } => Sockets {
                transport: Transport::of(local_addr)?,
                local: to_socket_addr(local_addr)?,
                remote: to_socket_addr(send_back_addr)?,
            },
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
}
