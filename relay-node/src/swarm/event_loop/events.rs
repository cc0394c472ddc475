//! From the swarm to the state.

use libp2p::{
    PeerId, identify,
    swarm::{ConnectionError, SwarmEvent},
};
use p2pnode_daemon::lossy::Stdout;
use p2pnode_protocol::{
    autonat::Response,
    directory,
    draining::Draining,
    exchange::{
        Event::{Asked, Replied},
        Reply,
    },
    from_remote, ping,
};
use p2pnode_transports::{Closed, Overuse, closed};
use tracing::{debug, trace, warn};

use super::EventLoop;
use crate::{
    config::reload::Reload,
    core::{Delivery, DenialReason, Now, RelayState},
    observe::observer::Observer,
    swarm::{
        behaviour::{Behaviour, BehaviourEvent},
        circuit,
        shared_state::now,
    },
};

impl EventLoop {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) -> anyhow::Result<()> {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                self.observer.listening(&address);
                self.state.lock().handle_listening(&address);
                self.listeners.up(listener_id, address);
                self.update_readiness();
            }
            SwarmEvent::ExpiredListenAddr {
                listener_id,
                address,
            } => {
                self.observer.no_longer_listening(&address);
                self.state.lock().handle_listen_expired(&address);
                self.listeners.down(listener_id, &address);
                self.update_readiness();
            }
            // Nothing but a restart brings it back, so this ends the relay.
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => return Err(self.listeners.closed(&addresses, reason)),
            SwarmEvent::ListenerError { error, .. } => {
                let error = p2pnode_transports::explained(error);
                self.observer.metrics().listener_error();
                warn!(%error, "a listener reported an error and goes on");
            }
            SwarmEvent::IncomingConnectionError {
                connection_id,
                send_back_addr,
                error,
                ..
            } => {
                self.state.lock().handle_incoming_failed(connection_id);
                self.observer.incoming_failed(&send_back_addr, error);
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                debug!(peer = %peer_id, connection = %connection_id, remote = %endpoint.get_remote_address(), "connected");
                self.state
                    .lock()
                    .handle_established(peer_id, connection_id, &endpoint, now());
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                if let Some(ConnectionError::IO(error)) = &cause
                    && closed(error) == Some(Closed::Overuse(Overuse::Stranger))
                {
                    self.observer.metrics().denied(DenialReason::Unread);
                }
                let cause = cause.map(|cause| p2pnode_transports::innermost(&cause));
                debug!(peer = %peer_id, connection = %connection_id, cause, "disconnected");
                let jitter = fastrand::f64();
                self.state
                    .lock()
                    .handle_closed(peer_id, connection_id, now(), jitter);
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(relay),
                error,
                ..
            } => self.on_dial_failed(relay, &error),
            // The relay takes no peer's word for its own address.
            SwarmEvent::OutgoingConnectionError { peer_id: None, .. }
            | SwarmEvent::IncomingConnection { .. }
            | SwarmEvent::Dialing { .. }
            | SwarmEvent::NewExternalAddrCandidate { .. }
            | SwarmEvent::ExternalAddrConfirmed { .. }
            | SwarmEvent::ExternalAddrExpired { .. }
            | SwarmEvent::NewExternalAddrOfPeer { .. }
            | _ => {}
        }
        Ok(())
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        let (mut state, now) = (self.state.lock(), now());
        match event {
            BehaviourEvent::Relay(event) => {
                let relay = &mut self.swarm.behaviour_mut().relay;
                on_relay(&mut state, relay, &self.observer, event, now);
            }
            BehaviourEvent::Join(Asked(question)) => {
                let request = &question.request;
                if let Some(instance) = request.instance {
                    state.handle_instance(question.connection, instance);
                }
                let answer = state.handle_join(question.peer, request.token.as_deref(), now);
                // An error means that the stream is gone, here and below.
                let _ = question.reply.send(answer);
            }
            BehaviourEvent::Hop(Asked(question)) => {
                let (peer, connection) = (question.peer, question.connection);
                let answer = state.handle_hop_request(peer, connection, &question.request, now);
                let other = question.request.peer;
                debug!(%peer, %connection, %other, ?answer, "asked for the other leg of a circuit");
                let _ = question.reply.send(answer);
            }
            BehaviourEvent::Introduction(Asked(question)) => {
                let (peer, other) = (question.peer, question.request.peer);
                let answer = state.handle_introduction_request(peer, &question.request, now);
                debug!(%peer, %other, ?answer, "wants to be introduced");
                let _ = question.reply.send(answer);
            }
            BehaviourEvent::Probe(Asked(question)) => {
                let (peer, connection) = (question.peer, question.connection);
                let answer = state.handle_probe_request(peer, connection, &question.request);
                debug!(%peer, %connection, request = ?question.request, ?answer, "asks for a nonce");
                let _ = question.reply.send(answer);
            }
            BehaviourEvent::Autonat(Asked(question)) => {
                let (peer, connection) = (question.peer, question.connection);
                let dialed = state.dial_back(peer, connection, &question.request);
                debug!(%peer, %connection, request = ?question.request, ?dialed, "asks to be dialed");
                let nonce = question.request.nonce;
                match dialed {
                    Some(dialed) => self.dial_backs.dial(peer, dialed, nonce, question.reply),
                    None => drop(question.reply.send(Response::DialRefused)),
                }
            }
            BehaviourEvent::Introduction(Replied { peer, reply, .. }) => {
                let delivery = Delivery::of(matches!(reply, Reply::Answer(_)));
                state.handle_introduction_sent(peer, delivery);
            }
            BehaviourEvent::Identify(event) => {
                let behaviour = self.swarm.behaviour_mut();
                on_identify(&mut state, behaviour, event);
            }
            BehaviourEvent::Ping(event) => on_ping(&mut state, event),
            BehaviourEvent::Draining(Draining { peer, .. }) => {
                debug!(%peer, "a peer says that it drains");
            }
            BehaviourEvent::Directory(directory::Event::Put(put)) => {
                let source = put.source;
                let admitted = state.admits_record(&source, put.connection, now);
                match admitted.then(|| put.verify()) {
                    Some(Ok(offer)) => state.handle_record(offer, now),
                    Some(Err(reason)) => self.observer.invalid_record(&source, &reason),
                    None => self.observer.record_rate(&source),
                }
            }
            BehaviourEvent::Directory(directory::Event::Sent { query, arrived }) => {
                if let Some((relay, peer)) = self.copies.remove(&query) {
                    state.handle_record_copied(relay, peer, Delivery::of(arrived), now);
                }
            }
            // The relay asks nobody.
            BehaviourEvent::Directory(
                directory::Event::Found { .. }
                | directory::Event::LookedUp { .. }
                | directory::Event::Refused { .. },
            ) => {}
            // It reports again with the next ping.
            BehaviourEvent::SharedKey(Replied { .. }) => {}
            BehaviourEvent::SharedKey(Asked(question)) => match question.request {},
            BehaviourEvent::Join(Replied { request: never, .. })
            | BehaviourEvent::Probe(Replied { request: never, .. })
            | BehaviourEvent::Autonat(Replied { request: never, .. })
            | BehaviourEvent::Hop(Replied { request: never, .. }) => match never {},
            BehaviourEvent::Gate(never) | BehaviourEvent::KeepAlive(never) => match never {},
        }
    }

    pub(super) fn on_reload(&mut self, reload: Reload) {
        if let Reload::Read { access, .. } = &reload {
            self.state.lock().handle_access(access, now());
            // Which rules are in force comes before the keys that are not.
            self.show();
        }
        self.observer.reload(reload);
    }

    fn update_readiness(&self) {
        let hop = self.state.lock().hop();
        self.observer.readiness(self.listeners.missing(), hop);
    }
}

fn on_relay(
    state: &mut RelayState,
    relay: &mut circuit::Behaviour,
    observer: &Observer<Stdout>,
    event: circuit::Event,
    now: Now,
) {
    match event {
        circuit::Event::ReservationRequested {
            peer,
            connection,
            reply,
        } => {
            let reservation = state.handle_reservation_request(peer, connection, now);
            relay.answer_reservation(reply, reservation);
        }
        circuit::Event::ReservationUndelivered {
            peer,
            connection,
            error,
        } => {
            debug!(%peer, %connection, %error, "cannot send the answer to a reservation");
            state.handle_reservation_undelivered(connection, now);
        }
        circuit::Event::CircuitRequested {
            source,
            connection,
            destination,
            reply,
        } => {
            let route = state.handle_circuit_request(source, connection, destination, now);
            relay.answer_circuit(reply, [source, destination], route);
        }
        circuit::Event::CircuitNotTaken { id, why } => {
            state.handle_circuit_not_taken(id, why.to_string(), now);
        }
        circuit::Event::CircuitUndelivered { id, source, error } => {
            let destination = state.handle_circuit_undelivered(id, now);
            let destination = destination.as_ref().map(PeerId::to_string);
            debug!(%source, destination, %error, "cannot send the answer to a circuit request");
        }
        circuit::Event::CircuitReady {
            id,
            source,
            destination,
        } => {
            if let Some(opened) = state.handle_circuit_ready(id, now) {
                relay.carry(id, opened, [source, destination], now.instant);
            }
        }
        circuit::Event::CircuitEnded { id, cut } => state.handle_circuit_ended(id, cut, now),
        circuit::Event::Malformed {
            peer,
            connection,
            fault,
        } => {
            state.handle_malformed(peer, connection, now);
            observer.malformed(&peer, &fault);
        }
        circuit::Event::TooMany { peer, connection } => {
            state.handle_malformed(peer, connection, now);
            observer.too_many(&peer);
        }
    }
}

fn on_identify(state: &mut RelayState, behaviour: &mut Behaviour, event: identify::Event) {
    match event {
        identify::Event::Received {
            peer_id,
            connection_id,
            info,
        } => {
            debug!(peer = %peer_id, connection = %connection_id, agent = from_remote(&info.agent_version), "identified");
            let protocols = &info.protocols;
            behaviour
                .draining
                .identified(peer_id, connection_id, protocols);
            behaviour.directory.identified(connection_id, protocols);
            state.handle_identified(&peer_id, connection_id, protocols);
        }
        identify::Event::Error {
            peer_id,
            connection_id,
            error,
        } => {
            debug!(peer = %peer_id, connection = %connection_id, %error, "not identified");
        }
        identify::Event::Sent { .. } | identify::Event::Pushed { .. } => {}
    }
}

fn on_ping(state: &mut RelayState, event: ping::Event) {
    let ping::Event {
        peer,
        connection,
        result,
        missed,
        asked: _,
    } = event;
    match result {
        Ok(rtt) => {
            trace!(%peer, %connection, ?rtt, "pong");
            state.handle_round_trip(&peer, connection, rtt, now());
        }
        // A peer that does not speak ping is not dead.
        Err(ping::Failure::Unsupported) => {
            debug!(%peer, %connection, "does not speak ping");
        }
        Err(error @ (ping::Failure::Timeout | ping::Failure::Broken(_))) => {
            debug!(%peer, %connection, %error, missed, "a ping was not answered");
            state.handle_missed_pings(peer, connection, missed);
        }
    }
}
