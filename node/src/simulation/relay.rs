//! A relay: its state, and what it asks for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::ConnectionId,
};
use p2pnode_protocol::{
    directory::{Offer, Registration, TTL},
    hop::{self, HopReply},
    introduction::{self, IntroductionReply},
    join::JoinReply,
};
use relay_node::core::{Action, CircuitId, Delivery, Now, RelayState, Stored};

use super::{
    World,
    connection::Route,
    exchange::{Answer, Question},
    network::Network,
};
use crate::{core::liveness::Ended, punch::address::Candidate};

/// How long a copy of a record may take.
const COPY: Duration = Duration::from_secs(10);

/// A relay that runs.
pub(super) struct SimRelay {
    pub(super) state: RelayState,
    pub(super) carried: Vec<(CircuitId, Carried)>,
    /// What lookups are answered with.
    pub(super) records: BTreeMap<PeerId, (Vec<u8>, Instant)>,
    /// How many circuits it was asked for.
    pub(super) asked: usize,
    drains: bool,
}

/// A circuit that is open.
pub(super) struct Carried {
    /// Its ends: of the peer that dialed it, and of the one that was dialed.
    pub(super) ends: [ConnectionId; 2],
}

impl SimRelay {
    pub(super) fn new(state: RelayState) -> Self {
        Self {
            state,
            carried: Vec::new(),
            records: BTreeMap::new(),
            asked: 0,
            drains: false,
        }
    }

    /// Whether a peer may ask for anything but to be admitted.
    pub(super) fn serves(&self, peer: &PeerId, now: Now) -> bool {
        self.state.admits(peer, now.wall).is_ok()
    }

    /// A peer has identified itself. Who punches takes introductions.
    pub(super) fn identified(&mut self, peer: PeerId, connection: ConnectionId, punches: bool) {
        let protocols = [introduction::PROTOCOL];
        let protocols = &protocols[..usize::from(punches)];
        self.state.handle_identified(&peer, connection, protocols);
    }
}

/// Both clocks.
pub(super) fn both(network: &Network) -> Now {
    Now {
        instant: network.now,
        wall: network.wall(),
    }
}

impl World {
    /// Whether the program of a host is a relay that refuses this connection.
    pub(super) fn relay_refuses(
        &mut self,
        host: usize,
        peer: PeerId,
        id: ConnectionId,
        from: Candidate,
    ) -> bool {
        let (now, remote) = (both(&self.network), from.to_multiaddr());
        let Some(relay) = self.hosts[host].relay() else {
            return false;
        };
        let state = &mut relay.state;
        let admitted = state
            .handle_incoming(id, &remote, || None, now)
            .and_then(|_| state.handle_authenticated(&peer, Some(&remote), now));
        if admitted.is_err() {
            state.handle_incoming_failed(id);
        }
        admitted.is_err()
    }

    pub(super) fn relay_established(&mut self, host: usize, id: ConnectionId) {
        let now = both(&self.network);
        let end = &self.ends[&id];
        let Route::Direct { local, remote } = &end.route else {
            return;
        };
        let (peer, remote) = (end.peer, remote.to_multiaddr());
        let endpoint = match end.dialed {
            true => dialer(remote),
            false => ConnectedPoint::Listener {
                local_addr: local.to_multiaddr(),
                send_back_addr: remote,
            },
        };
        let relay = self.hosts[host].relay().unwrap();
        relay.state.handle_established(peer, id, &endpoint, now);
        if relay.drains {
            self.announce_drain(id);
        }
    }

    pub(super) fn relay_dial_failed(&mut self, host: usize, relay: PeerId, reason: String) {
        let (now, jitter) = (both(&self.network), self.network.rng.f64());
        if let Some(own) = self.hosts[host].relay() {
            own.state.handle_dial_failed(relay, reason, now, jitter);
        }
    }

    pub(super) fn settle_relay(&mut self, host: usize) {
        while let Some(relay) = self.hosts[host].relay() {
            while relay.state.poll_event().is_some() {}
            let Some(action) = relay.state.poll_action() else {
                break;
            };
            self.relay_action(host, action);
        }
        self.hosts[host].is_touched = false;
    }

    fn relay_action(&mut self, host: usize, action: Action) {
        match action {
            Action::Dial { relay, addrs } => {
                let id = self.connection_id();
                let addrs = addrs.iter().filter_map(Candidate::parse).collect();
                self.begin_dial(host, id, relay, addrs);
            }
            Action::Close(connection) => self.close(connection),
            Action::Disconnect(peer) => {
                for id in self.ends_of(host, Some(peer)) {
                    self.close(id);
                }
            }
            Action::AbortCircuit(id) => self.end_circuit(host, id, Ended::Broken),
            Action::Introduce {
                peer,
                connection,
                notice,
            } => {
                let own = self.hosts[host].peer;
                self.note(host, "introduces two nodes");
                self.ask(
                    connection,
                    COPY,
                    move |world, question| {
                        let (now, at) = (world.network.now, world.ends[&question.at].host);
                        if let Some(node) = world.hosts[at].node() {
                            node.state.handle_introduction(own, notice, now);
                        }
                        world.answer(question, Answer::Taken(true));
                    },
                    move |world, answer| {
                        let delivery = Delivery::of(answer.is_some());
                        if let Some(relay) = world.hosts[host].relay() {
                            relay.state.handle_introduction_sent(peer, delivery);
                        }
                    },
                );
            }
            Action::ReportSharedKey {
                connection, notice, ..
            } => {
                let own = self.hosts[host].peer;
                self.note(host, "reports a shared key");
                self.send(connection, move |world, at| {
                    let (now, host) = (world.network.now, world.ends[&at].host);
                    if let Some(node) = world.hosts[host].node() {
                        node.state.handle_shared_key(own, at, notice.at, now);
                    }
                });
            }
            Action::StoreRecord(Stored {
                peer,
                value,
                expires,
            }) => {
                if let Some(relay) = self.hosts[host].relay() {
                    relay.records.insert(peer, (value, expires));
                }
            }
            Action::RemoveRecord(peer) => {
                if let Some(relay) = self.hosts[host].relay() {
                    relay.records.remove(&peer);
                }
            }
            Action::CopyRecord { relay, record } => self.copy_record(host, relay, record),
            Action::AnnounceDrain { .. } => {
                if let Some(relay) = self.hosts[host].relay() {
                    relay.drains = true;
                }
                for id in self.ends_of(host, None) {
                    self.announce_drain(id);
                }
            }
            Action::Stop => self.stop(host),
            // Connections on which nothing runs stay.
            Action::KeepAlive { .. }
            | Action::Probe { .. }
            | Action::Classify { .. }
            | Action::OfferHop(_)
            | Action::AddExternalAddress(_)
            | Action::RemoveExternalAddress(_) => {}
        }
    }

    fn announce_drain(&mut self, id: ConnectionId) {
        self.send(id, |world, at| {
            let (now, end) = (world.network.now, &world.ends[&at]);
            let (host, peer) = (end.host, end.peer);
            if let Some(node) = world.hosts[host].node() {
                node.state.handle_draining(peer, at, None, now);
            }
        });
    }

    fn copy_record(&mut self, host: usize, to: PeerId, record: Stored) {
        let over = self.ends_of(host, Some(to)).first().copied();
        let (source, of) = (self.hosts[host].peer, record.peer);
        let done = move |world: &mut Self, answer: Option<Answer>| {
            let (now, delivery) = (both(&world.network), Delivery::of(answer.is_some()));
            if let Some(relay) = world.hosts[host].relay() {
                relay.state.handle_record_copied(to, of, delivery, now);
            }
        };
        let Some(over) = over else {
            return self.after(Duration::ZERO, move |world| done(world, None));
        };
        let serve = move |world: &mut Self, question: Question| {
            let Stored {
                peer,
                value,
                expires,
            } = record;
            world.take_record(question, source, peer, value, expires);
        };
        self.ask(over, COPY, serve, done);
    }

    /// A relay is given a record, by its peer or by another relay.
    fn take_record(
        &mut self,
        question: Question,
        source: PeerId,
        peer: PeerId,
        value: Vec<u8>,
        expires: Instant,
    ) {
        let (now, host) = (both(&self.network), self.ends[&question.at].host);
        let registration = Registration::read(&peer.to_bytes(), &value).unwrap();
        let Some(relay) = self.hosts[host].relay() else {
            return;
        };
        let serves = relay.serves(&source, now);
        if serves {
            let offer = Offer {
                source,
                registration,
                value,
                expires,
            };
            relay.state.handle_record(offer, now);
        }
        self.answer(question, Answer::Taken(serves));
    }

    /// A node registers a record of its own.
    pub(super) fn serve_registration(&mut self, question: Question, value: Vec<u8>) {
        let peer = self.ends[&question.at].peer;
        let expires = self.network.now + TTL;
        self.take_record(question, peer, peer, value, expires);
    }

    pub(super) fn serve_lookup(&mut self, question: Question, of: PeerId) {
        let (now, end) = (both(&self.network), &self.ends[&question.at]);
        let (host, peer) = (end.host, end.peer);
        let Some(relay) = self.hosts[host].relay() else {
            return;
        };
        let found = relay
            .records
            .get(&of)
            .filter(|(_, expires)| *expires > now.instant);
        let found = found.filter(|_| relay.serves(&peer, now));
        let found = found.map(|(value, _)| value.clone());
        self.answer(question, Answer::Record(found));
    }

    pub(super) fn serve_join(&mut self, question: Question, token: Option<&str>, instance: u64) {
        let (now, end) = (both(&self.network), &self.ends[&question.at]);
        let (host, peer) = (end.host, end.peer);
        let Some(relay) = self.hosts[host].relay() else {
            return;
        };
        relay.state.handle_instance(question.at, instance);
        let reply = match relay.state.handle_join(peer, token, now) {
            p2pnode_protocol::join::Answer::Admitted(_) => JoinReply::Admitted,
            p2pnode_protocol::join::Answer::Refused(why) => JoinReply::Refused(why),
        };
        self.answer(question, Answer::Join(reply));
    }

    pub(super) fn serve_reservation(&mut self, question: Question) {
        let (now, end) = (both(&self.network), &self.ends[&question.at]);
        let (host, peer) = (end.host, end.peer);
        let Some(relay) = self.hosts[host].relay() else {
            return;
        };
        let granted = if relay.serves(&peer, now) {
            let state = &mut relay.state;
            state
                .handle_reservation_request(peer, question.at, now)
                .ok()
        } else {
            None
        };
        self.answer(question, Answer::Reservation(granted));
    }

    pub(super) fn serve_hop(&mut self, question: Question, request: &hop::Request) {
        let (now, end) = (both(&self.network), &self.ends[&question.at]);
        let (host, peer) = (end.host, end.peer);
        let Some(relay) = self.hosts[host].relay() else {
            return;
        };
        if !relay.serves(&peer, now) {
            return self.answer(question, Answer::Hop(HopReply::NoAnswer));
        }
        let state = &mut relay.state;
        let reply = match state.handle_hop_request(peer, question.at, request, now) {
            hop::Answer::Leg(leg) => HopReply::Leg(leg),
            hop::Answer::Refused(why) => HopReply::Refused(why),
        };
        self.answer(question, Answer::Hop(reply));
    }

    pub(super) fn serve_introduction(
        &mut self,
        question: Question,
        request: &introduction::Request,
    ) {
        let (now, end) = (both(&self.network), &self.ends[&question.at]);
        let (host, peer) = (end.host, end.peer);
        let Some(relay) = self.hosts[host].relay() else {
            return;
        };
        if !relay.serves(&peer, now) {
            return self.answer(question, Answer::Introduction(IntroductionReply::NoAnswer));
        }
        let state = &mut relay.state;
        let reply = match state.handle_introduction_request(peer, request, now) {
            introduction::Answer::Introduced(meeting) => IntroductionReply::Introduced(meeting),
            introduction::Answer::Refused(why) => IntroductionReply::Refused(why),
        };
        self.answer(question, Answer::Introduction(reply));
    }
}

/// The end of a connection that was dialed.
pub(super) fn dialer(address: Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address,
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}
