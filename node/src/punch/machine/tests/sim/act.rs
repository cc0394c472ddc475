//! What the nodes do.

use std::time::Duration;

use libp2p::{Multiaddr, swarm::ConnectionId};
use p2pnode_protocol::dcutr::Addresses;
use p2pnode_transports::Transport;

use super::{Happening, World};
use crate::punch::{
    address::Candidate,
    machine::{Action, DialId},
    record::Role,
};

const QUIC_PACKETS: [u64; 3] = [0, 1000, 3000];
const TCP_PACKETS: [u64; 4] = [0, 1000, 3000, 7000];

impl World {
    pub(super) fn carry_out(&mut self, node: usize) {
        while let Some(action) = self.nodes[node].machine.poll_action() {
            let other = 1 - node;
            let relayed = self.delay(self.network.relayed);
            match action {
                Action::Connect {
                    circuit,
                    addrs,
                    rtt,
                    ..
                } => {
                    let circuit = number(circuit);
                    self.connects.insert(circuit, self.now);
                    self.after(
                        relayed,
                        Happening::Connect {
                            to: other,
                            circuit,
                            addrs: self.message(node, addrs, rtt),
                        },
                    );
                }
                Action::Reply {
                    circuit,
                    addrs,
                    rtt,
                    ..
                } => {
                    self.after(
                        relayed,
                        Happening::Answer {
                            to: other,
                            circuit: number(circuit),
                            addrs: self.message(node, addrs, rtt),
                        },
                    );
                }
                Action::Drop { circuit, role, .. } => {
                    let circuit = number(circuit);
                    let theirs = match role {
                        Role::Initiator => Role::Responder,
                        Role::Responder => Role::Initiator,
                    };
                    if role == Role::Responder {
                        self.nodes[node].answering.remove(&circuit);
                    } else {
                        self.connects.remove(&circuit);
                    }
                    self.after(
                        relayed,
                        Happening::Dropped {
                            to: other,
                            circuit,
                            role: theirs,
                        },
                    );
                }
                Action::Dial {
                    dial, addrs, role, ..
                } => {
                    self.nodes[node].dialed_roles.push(role);
                    self.dial(node, dial, &addrs);
                }
                Action::Close { connection, .. } => {
                    let connection = number(connection);
                    self.after(Duration::ZERO, Happening::ClosedAt { node, connection });
                    // The last packet of a QUIC connection may be lost; then the other side's idle timeout ends it.
                    let idle = if self.random(100) < self.network.loss {
                        Duration::from_secs(10)
                    } else {
                        Duration::ZERO
                    };
                    let delay = self.delay(self.network.direct) + idle;
                    self.after(
                        delay,
                        Happening::ClosedAt {
                            node: other,
                            connection,
                        },
                    );
                }
                Action::KeepAlive { .. } | Action::Expect { .. } | Action::Forget { .. } => {}
            }
        }
        while let Some(event) = self.nodes[node].machine.poll_event() {
            self.nodes[node].events.push((self.now - self.start, event));
        }
    }

    /// A message between two nodes of which one may be another implementation: such a one neither sends nor reads our field.
    fn message(&self, node: usize, known: Vec<Multiaddr>, rtt: Option<Duration>) -> Addresses {
        let both = self.network.knows_rtt[node] && self.network.knows_rtt[1 - node];
        Addresses {
            rtt: rtt.filter(|_| both),
            ..known.into()
        }
    }

    fn dial(&mut self, node: usize, dial: DialId, addrs: &[Multiaddr]) {
        assert!(
            self.nodes[node].direct.is_empty(),
            "a direct peer is punched at {:?}",
            self.elapsed()
        );
        let candidates: Vec<_> = addrs.iter().map(|a| Candidate::parse(a).unwrap()).collect();
        self.nodes[node].dial_count += 1;
        let at = self.elapsed();
        self.nodes[node].dialed_at.push(at);
        self.nodes[node]
            .dialed_kinds
            .push(candidates.iter().map(|c| c.transport).collect());
        let mut timeout = Duration::from_secs(5);
        for candidate in &candidates {
            let packets = match candidate.transport {
                Transport::Quic => &QUIC_PACKETS[..],
                Transport::Tcp => {
                    timeout = Duration::from_secs(10);
                    &TCP_PACKETS[..]
                }
            };
            for millis in packets {
                self.after(
                    Duration::from_millis(*millis),
                    Happening::Packet {
                        from: node,
                        dial,
                        to: *candidate,
                    },
                );
            }
        }
        self.nodes[node].dials.insert(dial, candidates);
        self.after(timeout, Happening::DialTimeout { from: node, dial });
    }
}

fn number(id: ConnectionId) -> usize {
    id.to_string().parse().unwrap()
}
