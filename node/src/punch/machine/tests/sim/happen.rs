//! What happens to the nodes: messages, packets, connections.

use libp2p::swarm::ConnectionId;

use super::{Happening, World};
use crate::punch::{
    address::Candidate,
    machine::{DialId, Established, HandshakeError, Introduced, Side},
    record::{CandidateOutcome, Role},
};

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Observe(node) => {
                for transport in self.network.transports[node].clone() {
                    self.observe(node, transport, Self::public_ip(node));
                }
            }
            Happening::Introduced { node, asked } => {
                let other = 1 - node;
                let of = |node: usize| {
                    let transports = self.network.transports[node].iter();
                    transports
                        .map(|transport| Self::mapped(node, *transport).to_multiaddr())
                        .collect()
                };
                let introduced = Introduced {
                    relay: self.relay,
                    peer: self.nodes[other].id,
                    asked,
                    addrs: of(other),
                    own_addrs: of(node),
                };
                self.nodes[node].machine.handle_introduced(&introduced, now);
            }
            Happening::Circuit { dialer } => {
                self.next_connection += 1;
                let circuit = self.next_connection;
                for (node, side) in [(dialer, Side::Dialer), (1 - dialer, Side::Listener)] {
                    let delay = self.delay(self.network.relayed);
                    self.after(
                        delay,
                        Happening::CircuitAt {
                            node,
                            circuit,
                            side,
                        },
                    );
                }
            }
            Happening::CircuitAt {
                node,
                circuit,
                side,
            } => {
                let peer = self.nodes[1 - node].id;
                self.nodes[node].circuits.insert(circuit);
                self.nodes[node].machine.handle_relayed(
                    peer,
                    ConnectionId::new_unchecked(circuit),
                    side,
                    self.network.knows_rtt[node].then_some(self.network.relayed * 2),
                    now,
                );
                let id = ConnectionId::new_unchecked(circuit);
                // Enough for every attempt of these tests.
                let machine = &mut self.nodes[node].machine;
                machine.handle_received(peer, id, 1_000_000, now);
            }
            Happening::Connect { to, circuit, addrs } => {
                let peer = self.nodes[1 - to].id;
                if !self.nodes[to].circuits.contains(&circuit)
                    || !self.nodes[to].answering.insert(circuit)
                {
                    self.after(
                        self.network.relayed,
                        Happening::Dropped {
                            to: 1 - to,
                            circuit,
                            role: Role::Initiator,
                        },
                    );
                    return;
                }
                let id = ConnectionId::new_unchecked(circuit);
                self.nodes[to].machine.handle_connect(peer, id, addrs, now);
            }
            Happening::Answer { to, circuit, addrs } => {
                let Some(sent) = self.connects.remove(&circuit) else {
                    return;
                };
                let peer = self.nodes[1 - to].id;
                let delay = self.delay(self.network.relayed);
                self.after(
                    delay,
                    Happening::Sync {
                        to: 1 - to,
                        circuit,
                    },
                );
                let id = ConnectionId::new_unchecked(circuit);
                self.nodes[to]
                    .machine
                    .handle_answer(peer, id, addrs, now - sent, now, now);
            }
            Happening::Sync { to, circuit } => {
                let peer = self.nodes[1 - to].id;
                if self.nodes[to].answering.remove(&circuit) {
                    self.nodes[to].machine.handle_sync(
                        peer,
                        ConnectionId::new_unchecked(circuit),
                        now,
                    );
                }
            }
            Happening::Dropped { to, circuit, role } => {
                let peer = self.nodes[1 - to].id;
                match role {
                    Role::Responder => drop(self.nodes[to].answering.remove(&circuit)),
                    Role::Initiator => drop(self.connects.remove(&circuit)),
                }
                let id = ConnectionId::new_unchecked(circuit);
                self.nodes[to].machine.handle_handshake_failed(
                    peer,
                    id,
                    role,
                    HandshakeError::Broken,
                    now,
                );
            }
            Happening::Packet { from, dial, to } => self.packet(from, dial, to),
            Happening::DialTimeout { from, dial } => {
                let peer = self.nodes[1 - from].id;
                if let Some(candidates) = self.nodes[from].dials.remove(&dial) {
                    let outcomes: Vec<_> = candidates
                        .into_iter()
                        .map(|c| (c, CandidateOutcome::Timeout))
                        .collect();
                    self.nodes[from]
                        .machine
                        .handle_dial_failed(peer, dial, &outcomes, now);
                }
            }
            Happening::Accept { at, dial, from, to } => self.accept(at, dial, from, to),
            Happening::DirectAt {
                node,
                connection,
                dialed,
                remote,
            } => {
                let peer = self.nodes[1 - node].id;
                self.nodes[node].direct.insert(connection);
                let connection = ConnectionId::new_unchecked(connection);
                let established = Established {
                    connection,
                    dialed,
                    remote: Some(remote),
                };
                self.nodes[node]
                    .machine
                    .handle_direct(peer, established, now);
            }
            Happening::ClosedAt { node, connection } => self.closed(node, connection),
        }
    }

    /// A dial sends a packet.
    fn packet(&mut self, from: usize, dial: DialId, to: Candidate) {
        if !self.nodes[from].dials.contains_key(&dial) {
            return;
        }
        self.nodes[from].sent_to.insert(to.socket);
        if self.random(100) < self.network.loss || self.network.blocked.contains(&to.transport) {
            return;
        }
        let delay = self.delay(self.network.direct);
        let source = Candidate {
            transport: to.transport,
            socket: self.source(from, to.transport),
        };
        self.after(
            delay,
            Happening::Accept {
                at: 1 - from,
                dial,
                from: source,
                to,
            },
        );
    }

    /// A packet arrives at a NAT.
    fn accept(&mut self, at: usize, dial: DialId, from: Candidate, to: Candidate) {
        let listens = self.network.transports[at].contains(&to.transport)
            && to == Self::mapped(at, to.transport);
        // Behind a symmetric NAT its packets to the other side had another port than the one that was observed.
        let nat = self.network.nats[at];
        let admitted =
            !nat.maps_by_remote() && nat.admits(from.socket, self.nodes[at].sent_to.iter());
        if !listens || !admitted {
            return;
        }
        self.next_connection += 1;
        let connection = self.next_connection;
        let dialer = 1 - at;
        let there = self.delay(self.network.direct * 2);
        let back = self.delay(self.network.direct);
        self.after(
            there,
            Happening::DirectAt {
                node: at,
                connection,
                dialed: false,
                remote: from,
            },
        );
        if self.nodes[dialer].dials.remove(&dial).is_some() {
            self.after(
                back,
                Happening::DirectAt {
                    node: dialer,
                    connection,
                    dialed: true,
                    remote: to,
                },
            );
        } else {
            // The dial was won by another address: this one is abandoned after it was accepted.
            let end = there + self.network.direct;
            self.after(
                end,
                Happening::ClosedAt {
                    node: at,
                    connection,
                },
            );
        }
    }

    fn closed(&mut self, node: usize, connection: usize) {
        let known = self.nodes[node].direct.remove(&connection)
            | self.nodes[node].circuits.remove(&connection);
        self.nodes[node].answering.remove(&connection);
        if known {
            let peer = self.nodes[1 - node].id;
            self.nodes[node].machine.handle_closed(
                peer,
                ConnectionId::new_unchecked(connection),
                self.now,
            );
        }
    }
}
