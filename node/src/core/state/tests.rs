//! Decisions of the whole state, one at a time, under virtual time and without a network. A test passes what happens to
//! `handle_*` and checks the actions that come out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod access;
mod addresses;
mod admission;
mod circuits;
mod classes;
mod dials;
mod introductions;
mod learned;
mod loss_causes;
mod lost;
mod observations;
mod path_causes;
mod reload;
mod searches;

use std::{collections::BTreeSet, net::SocketAddr, time::SystemTime};

use libp2p::{
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    multiaddr::Protocol,
};
use p2pnode_protocol::{Reach, addr::is_circuit, join::JoinReply, ping};
use p2pnode_transports::{Family, FamilyPolicy, Sockets, Transport, to_socket_addr};

use super::*;
use crate::{
    config::{RelayAddr, Rotate},
    core::{
        dialer::{CircuitFailure, Request, Until},
        liveness::Ended,
    },
};

/// The punch port of every transport and family.
const PUNCH_PORT: u16 = 40_000;

/// A node under test, and what it has asked for.
struct Node {
    state: NodeState,
    now: Instant,
    connections: usize,
}

fn relay(last: u8) -> RelayAddr {
    RelayAddr {
        peer: PeerId::random(),
        addr: format!("/ip4/203.0.113.{last}/udp/443/quic-v1")
            .parse()
            .unwrap(),
    }
}

fn settings(relays: &[RelayAddr]) -> Settings {
    Settings {
        searches: true,
        rotate: Rotate::Auto,
        local: PeerId::random(),
        is_throwaway: false,
        relays: relays.to_vec(),
        reservations: 0,
        family: FamilyPolicy::Auto,
        port_range: "40000-40050".parse().unwrap(),
        punches: true,
        introducers: relays.iter().map(|relay| relay.peer).collect(),
        allowed: None,
        sources: Sources::default(),
        tokens: None,
        seed: 7,
    }
}

fn request(peer: PeerId) -> Request {
    Request {
        peer,
        addrs: Vec::new(),
        until: Until::Direct,
        timeout: Duration::from_secs(30),
        pings: 0,
    }
}

fn failure(circuit: CircuitFailure, reason: &str) -> DialFailure {
    DialFailure {
        reason: reason.to_owned(),
        answered_by: None,
        circuit,
        fault: crate::core::dialer::Fault::Remote,
    }
}

fn circuit_addr(relay: &RelayAddr, peer: PeerId) -> Multiaddr {
    relay
        .addr
        .clone()
        .with(Protocol::P2p(relay.peer))
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(peer))
}

impl Node {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let mut node = Self {
            state: NodeState::new(settings, now),
            now,
            connections: 0,
        };
        let kinds = [Transport::Quic, Transport::Tcp];
        let families = [Family::Ip4, Family::Ip6];
        let ports = kinds
            .into_iter()
            .flat_map(|kind| families.map(|family| ((kind, family), PUNCH_PORT)));
        node.state.handle_punch_ports(ports.collect(), now);
        node
    }

    /// What is asked for since the last call.
    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.state.poll_action()).collect()
    }

    /// What is reported since the last call.
    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.state.poll_event()).collect()
    }

    /// The dials of the swarm that are asked for since the last call, each under way.
    fn dials(&mut self) -> Vec<(ConnectionId, Vec<Multiaddr>, Purpose)> {
        let mut dials = Vec::new();
        for action in self.actions() {
            if let Action::Dial {
                addresses, purpose, ..
            } = action
            {
                let id = self.next_id();
                self.state.handle_dialing(id, purpose);
                dials.push((id, addresses, purpose));
            }
        }
        dials
    }

    fn next_id(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId::new_unchecked(self.connections)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.state.handle_timeout(self.now);
    }

    /// A dial has made this connection.
    fn dialed(&mut self, connection: ConnectionId, peer: PeerId, address: &Multiaddr) {
        let remote = to_socket_addr(address).unwrap();
        let local = match remote {
            SocketAddr::V4(_) => SocketAddr::from(([10, 0, 0, 1], PUNCH_PORT)),
            SocketAddr::V6(_) => SocketAddr::new("fd00::1".parse().unwrap(), PUNCH_PORT),
        };
        let local = (!is_circuit(address)).then_some(local);
        self.established(connection, peer, address, local);
    }

    fn established(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        local: Option<SocketAddr>,
    ) {
        let sockets = local.map(|local| Sockets {
            transport: Transport::of(address).unwrap(),
            local,
            remote: to_socket_addr(address).unwrap(),
        });
        let established = Established {
            connection,
            peer,
            endpoint: ConnectedPoint::Dialer {
                address: address.clone(),
                role_override: Endpoint::Dialer,
                port_use: PortUse::Reuse,
            },
            sockets,
        };
        self.state.handle_established(established, self.now);
    }

    /// A peer has made a connection from this socket.
    fn accepted(&mut self, peer: PeerId, from: &str) -> ConnectionId {
        let connection = self.next_id();
        let remote: Multiaddr = from.parse().unwrap();
        let local: Multiaddr = format!("/ip4/10.0.0.1/tcp/{PUNCH_PORT}").parse().unwrap();
        let established = Established {
            connection,
            peer,
            sockets: Some(Sockets {
                transport: Transport::Tcp,
                local: to_socket_addr(&local).unwrap(),
                remote: to_socket_addr(&remote).unwrap(),
            }),
            endpoint: ConnectedPoint::Listener {
                local_addr: local,
                send_back_addr: remote,
            },
        };
        self.state.handle_established(established, self.now);
        connection
    }

    fn closed(&mut self, connection: ConnectionId, peer: PeerId, ended: Ended) {
        let closed = Closed {
            connection,
            peer,
            ended,
            reason: "closed".to_owned(),
        };
        self.state.handle_closed(closed, self.now);
    }

    /// Every requested leg to a relay comes up. The relay has not answered yet.
    fn connect_legs(&mut self) -> Vec<(ConnectionId, PeerId)> {
        let mut legs = Vec::new();
        let actions = self.actions();
        for action in actions {
            let Action::Dial {
                peer,
                addresses,
                purpose: purpose @ Purpose::Leg(_),
                reach: None,
            } = action
            else {
                continue;
            };
            let id = self.next_id();
            self.state.handle_dialing(id, purpose);
            self.dialed(id, peer, &addresses[0]);
            legs.push((id, peer));
        }
        legs
    }

    /// The relay of a leg identifies itself and admits this node.
    fn admit(&mut self, (leg, relay): (ConnectionId, PeerId)) {
        let observed = "/ip4/198.51.100.9/udp/7/quic-v1".parse().unwrap();
        self.state.handle_identified(leg, relay, observed, self.now);
        self.join_reply((leg, relay), JoinReply::Admitted);
    }

    fn join_reply(&mut self, (leg, relay): (ConnectionId, PeerId), reply: JoinReply) {
        let wall = SystemTime::UNIX_EPOCH;
        self.state
            .handle_join_reply(relay, leg, false, reply, self.now, wall);
    }

    /// A node with all its relays connected and admitting it. Returns the legs.
    fn with_relays(settings: Settings) -> (Self, Vec<ConnectionId>) {
        let mut node = Self::new(settings);
        let legs = node.connect_legs();
        for leg in &legs {
            node.admit(*leg);
        }
        node.actions();
        node.events();
        (node, legs.into_iter().map(|(leg, _)| leg).collect())
    }

    /// A dial that reaches its peer over the relay that it asks first. Returns the circuit.
    fn dial_relayed(&mut self, peer: PeerId) -> ConnectionId {
        self.state.handle_dial(request(peer), self.now);
        let (id, addresses, _) = self.dials().remove(0);
        self.dialed(id, peer, &addresses[0]);
        id
    }

    fn ping(&mut self, peer: PeerId, connection: ConnectionId, asked: bool) {
        let event = ping::Event {
            peer,
            connection,
            result: Ok(Duration::from_millis(9)),
            missed: 0,
            asked,
        };
        self.state.handle_ping(event, self.now);
    }

    /// The best connection of a peer answers the ping of a dial.
    fn ping_best(&mut self, peer: PeerId) {
        let best = self.state.peers().best(&peer).unwrap();
        self.ping(peer, best, true);
    }

    /// The results of dials among what is reported since the last call.
    fn results(&mut self) -> Vec<event::Outcome> {
        let mut results = Vec::new();
        for event in self.events() {
            if let Event::Dial {
                event: event::Event::Result(outcome),
                ..
            } = event
            {
                results.push(outcome);
            }
        }
        results
    }
}
