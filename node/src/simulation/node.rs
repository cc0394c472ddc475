//! A node: its state, and what it asks for.

use std::time::{Duration, Instant, SystemTime};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_protocol::{
    hop::HopReply,
    introduction::{self, IntroductionReply},
    join::JoinReply,
};
use p2pnode_transports::Sockets;

use super::{
    World,
    connection::{End, Route},
    exchange::Answer,
    punch::Punches,
    relay::dialer,
    reservation::Reservation,
};
use crate::{
    core::{
        event,
        liveness::Ended,
        state::{Action, Closed, DialId, Established, Event, JoinRequest, NodeState},
    },
    punch::{Record, address::Candidate, machine::Machine, vouch::Vouch},
};

/// How long a stream waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node that runs.
pub(super) struct SimNode {
    pub(super) state: NodeState,
    pub(super) machine: Machine,
    /// Names this run to relays.
    instance: u64,
    pub(super) punches: Punches,
    /// Asked for, and granted.
    pub(super) reservations: Vec<Reservation>,
    pub(super) events: Vec<event::Event>,
    pub(super) reports: Vec<(DialId, event::Event)>,
    pub(super) attempts: Vec<Record>,
}

impl SimNode {
    pub(super) fn new(state: NodeState, machine: Machine, instance: u64) -> Self {
        Self {
            state,
            machine,
            instance,
            punches: Punches::default(),
            reservations: Vec::new(),
            events: Vec::new(),
            reports: Vec::new(),
            attempts: Vec::new(),
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let timeouts = [self.machine.poll_timeout(), self.state.poll_timeout()];
        timeouts.into_iter().flatten().min()
    }
}

impl World {
    /// The ends of a host's connections, to a peer or to all, oldest first.
    pub(super) fn ends_of(&self, host: usize, peer: Option<PeerId>) -> Vec<ConnectionId> {
        let is_of = |end: &End| end.host == host && peer.is_none_or(|peer| peer == end.peer);
        let ends = self.ends.iter().filter(|(_, end)| is_of(end));
        ends.map(|(id, _)| *id).collect()
    }

    pub(super) fn node_established(&mut self, host: usize, id: ConnectionId) {
        self.punch_established(host, id);
        let now = self.network.now;
        let end = &self.ends[&id];
        let peer = end.peer;
        let (endpoint, sockets) = match &end.route {
            Route::Direct { local, remote } => {
                let sockets = Sockets {
                    transport: local.transport,
                    local: local.socket,
                    remote: remote.socket,
                };
                let endpoint = match end.dialed {
                    true => dialer(remote.to_multiaddr()),
                    false => ConnectedPoint::Listener {
                        local_addr: local.to_multiaddr(),
                        send_back_addr: remote.to_multiaddr(),
                    },
                };
                (endpoint, Some(sockets))
            }
            Route::Circuit { relay, leg, .. } => {
                let relay = Protocol::P2p(self.hosts[*relay].peer);
                let circuit = leg.clone().with(relay).with(Protocol::P2pCircuit);
                let to = Protocol::P2p(peer);
                let endpoint = match end.dialed {
                    true => dialer(circuit.with(to)),
                    false => ConnectedPoint::Listener {
                        local_addr: circuit,
                        send_back_addr: Multiaddr::empty().with(to),
                    },
                };
                (endpoint, None)
            }
        };
        let established = Established {
            connection: id,
            peer,
            endpoint,
            sockets,
        };
        if let Some(node) = self.hosts[host].node() {
            node.state.handle_established(established, now);
        }
    }

    pub(super) fn node_closed(&mut self, id: ConnectionId, end: &End, ended: Ended) {
        let now = self.network.now;
        let listeners_first = self.network.rng.bool();
        if listeners_first {
            self.end_reservations(end.host, id);
        }
        if let Some(node) = self.hosts[end.host].node() {
            node.punches.forget(id);
            node.machine.handle_closed(end.peer, id, now);
            let closed = Closed {
                connection: id,
                peer: end.peer,
                ended,
                reason: format!("{ended:?}"),
            };
            node.state.handle_closed(closed, now);
        }
        self.end_reservations(end.host, id);
    }

    pub(super) fn settle_node(&mut self, host: usize) {
        loop {
            let now = self.network.now;
            let Some(node) = self.hosts[host].node() else {
                return;
            };
            if let Some(action) = node.machine.poll_action() {
                self.punch_action(host, action);
            } else if let Some(event) = node.machine.poll_event() {
                node.state.handle_punch(event, now);
            } else if let Some(event) = node.state.poll_event() {
                match event {
                    Event::Node(event) => node.events.push(event),
                    Event::Dial { dial, event } => node.reports.push((dial, event)),
                    Event::Punch(record) => node.attempts.push(*record),
                    Event::Searched(_) => {}
                    Event::OutOfRange => panic!("a dial left from outside the range"),
                    Event::Wanted(_)
                    | Event::Unwanted(_)
                    | Event::BestPath { .. }
                    | Event::Admitted(_)
                    | Event::NoPath { .. } => {}
                }
            } else if let Some(action) = node.state.poll_action() {
                self.node_action(host, action);
            } else {
                break;
            }
        }
        self.hosts[host].is_touched = false;
    }

    fn node_action(&mut self, host: usize, action: Action) {
        let now = self.network.now;
        match action {
            Action::Dial {
                peer,
                addresses,
                purpose,
                ..
            } => {
                let id = self.connection_id();
                let name = self.name_of(&peer);
                self.note(host, &format!("dials {name} as {id}: {purpose:?}"));
                if let Some(node) = self.hosts[host].node() {
                    node.state.handle_dialing(id, purpose);
                }
                match addresses
                    .iter()
                    .find(|addr| p2pnode_protocol::addr::is_circuit(addr))
                {
                    Some(circuit) => self.dial_circuit(host, id, peer, circuit),
                    None => {
                        let addrs = addresses.iter().filter_map(Candidate::parse).collect();
                        self.begin_dial(host, id, peer, addrs);
                    }
                }
            }
            Action::Close(connection) => self.close(connection),
            Action::Reserve(relay) => self.reserve(host, &relay),
            Action::AskHop(circuit, request) => {
                self.ask(
                    circuit.via,
                    PATIENCE,
                    move |world, question| world.serve_hop(question, &request),
                    move |world, answer| {
                        let now = world.network.now;
                        let reply = match answer {
                            Some(Answer::Hop(reply)) => reply,
                            _ => HopReply::NoAnswer,
                        };
                        if let Some(node) = world.hosts[host].node() {
                            node.state.handle_hop_reply(circuit.connection, &reply, now);
                        }
                    },
                );
            }
            Action::Join(request) => self.present(host, request),
            Action::AskIntroduction {
                request,
                connection,
            } => {
                let node = self.hosts[host].node().unwrap();
                let wanted = introduction::Request {
                    peer: request.peer,
                    addrs: node.machine.unseen(),
                    search: None,
                };
                self.ask(
                    connection,
                    PATIENCE,
                    move |world, question| world.serve_introduction(question, &wanted),
                    move |world, answer| {
                        let (now, is_open) =
                            (world.network.now, world.ends.contains_key(&connection));
                        let reply = match answer {
                            Some(Answer::Introduction(reply)) => reply,
                            _ => IntroductionReply::NoAnswer,
                        };
                        if let Some(node) = world.hosts[host].node().filter(|_| is_open) {
                            node.state
                                .handle_introduction_reply(request, connection, reply, now);
                        }
                    },
                );
            }
            Action::LookUp { query, peer } => self.look_up(host, query, peer),
            Action::Register {
                query,
                relay,
                addrs,
            } => self.register(host, query, relay, &addrs),
            Action::Ping { connection, .. } => self.ping_now(connection),
            Action::Search(peer) => self.after(Duration::ZERO, move |world| {
                let now = world.network.now;
                if let Some(node) = world.hosts[host].node() {
                    node.state.handle_search_ended(peer, now);
                }
            }),
            // The searches themselves have a world of their own: no relay of this one sees ports.
            Action::SamplePorts(_) | Action::SampleNextPorts(..) => {
                self.after(Duration::ZERO, move |world| {
                    let now = world.network.now;
                    if let Some(node) = world.hosts[host].node() {
                        node.state.handle_port_sample(None, now);
                    }
                })
            }
            Action::StopPorts
            | Action::WatchPort(_)
            | Action::OfferSearch(..)
            | Action::SearchPorts(_)
            | Action::PunchFound(_) => {}
            Action::Punch(introduced) => {
                let node = self.hosts[host].node().unwrap();
                let start = node.machine.handle_introduced(&introduced, now);
                let (peer, asked) = (introduced.peer, introduced.asked);
                node.state.handle_introduced(peer, asked, start, now);
                let name = self.name_of(&peer);
                self.note(host, &format!("introduced to {name}: {start:?}"));
            }
            Action::Observe(observation) => {
                let node = self.hosts[host].node().unwrap();
                node.machine.handle_observed(&observation, now);
            }
            Action::ForgetObservation(connection) => {
                let node = self.hosts[host].node().unwrap();
                node.machine.handle_observation_lost(connection, now);
            }
            Action::Want(peer) => {
                if let Some(node) = self.hosts[host].node() {
                    node.machine.handle_wanted(peer, now);
                }
            }
            Action::Vouch {
                relay,
                peer,
                near,
                seen,
            } => {
                let node = self.hosts[host].node().unwrap();
                node.machine
                    .handle_vouched(relay, peer, Vouch::of_circuit(near, &seen), now);
            }
            Action::SetInterfaces {
                addresses,
                networks,
            } => {
                let node = self.hosts[host].node().unwrap();
                node.machine.handle_interfaces(&addresses, networks, now);
            }
            Action::SetMapped(addresses) => {
                let node = self.hosts[host].node().unwrap();
                node.machine.handle_mapped(&addresses, now);
            }
            // There is neither DNS nor a link, and every peer may connect.
            Action::EndSearch(_)
            | Action::SetAccess { .. }
            | Action::Allow(_)
            | Action::Disallow(_)
            | Action::Announce(_)
            | Action::Classify { .. } => {}
        }
    }

    fn present(&mut self, host: usize, request: JoinRequest) {
        let JoinRequest {
            relay,
            connection,
            token,
            again,
        } = request;
        let instance = self.hosts[host].node().unwrap().instance;
        self.ask(
            connection,
            PATIENCE,
            move |world, question| world.serve_join(question, token.as_deref(), instance),
            move |world, answer| {
                let (now, wall): (_, SystemTime) = (world.network.now, world.network.wall());
                let reply = match answer {
                    Some(Answer::Join(reply)) => reply,
                    _ => JoinReply::NoAnswer,
                };
                world.note(host, &format!("asked to be admitted: {reply:?}"));
                if let Some(node) = world.hosts[host].node() {
                    node.state
                        .handle_join_reply(relay, connection, again, reply, now, wall);
                }
            },
        );
    }
}
