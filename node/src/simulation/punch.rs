//! The punch machine of a node: its dials, and the handshake over circuits.

use std::{collections::BTreeMap, time::Duration};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::dcutr::Addresses;

use super::{World, connection::Route, transport::Failure};
use crate::punch::{
    CandidateOutcome, Role,
    address::Candidate,
    machine::{Action, DialId, Established, HandshakeError, Side},
};

/// Dials and handshakes of the machine that have not ended.
#[derive(Default)]
pub(super) struct Punches {
    /// What is dialed for the machine, one address each.
    dials: BTreeMap<ConnectionId, (PeerId, DialId)>,
    rounds: BTreeMap<DialId, Round>,
    /// Circuits over which CONNECT was sent, and when.
    asking: BTreeMap<ConnectionId, std::time::Instant>,
    /// Circuits over which CONNECT has come.
    answering: std::collections::BTreeSet<ConnectionId>,
}

#[derive(Default)]
struct Round {
    open: usize,
    is_connected: bool,
    outcomes: Vec<(Candidate, CandidateOutcome)>,
}

impl Punches {
    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.dials.is_empty() && self.rounds.is_empty()
    }

    pub(super) fn forget(&mut self, circuit: ConnectionId) {
        self.asking.remove(&circuit);
        self.answering.remove(&circuit);
    }
}

impl World {
    /// The machine is the first to learn of a connection, as a behaviour of the swarm.
    pub(super) fn punch_established(&mut self, host: usize, id: ConnectionId) {
        let now = self.network.now;
        let rtt = self.path(id).map(|base| base * 2);
        let end = &self.ends[&id];
        let (peer, dialed, route) = (end.peer, end.dialed, end.route.clone());
        let Some(node) = self.hosts[host].node() else {
            return;
        };
        match route {
            Route::Circuit { .. } => {
                let side = if dialed { Side::Dialer } else { Side::Listener };
                node.machine.handle_relayed(peer, id, side, rtt, now);
                // What the keys, identify and CONNECT take.
                node.machine.handle_received(peer, id, 2_000, now);
            }
            Route::Direct { remote, .. } => {
                if let Some((_, dial)) = node.punches.dials.remove(&id)
                    && let Some(round) = node.punches.rounds.get_mut(&dial)
                {
                    round.is_connected = true;
                    round.open -= 1;
                    if round.open == 0 {
                        node.punches.rounds.remove(&dial);
                    }
                }
                let established = Established {
                    connection: id,
                    dialed,
                    remote: Some(remote),
                };
                node.machine.handle_direct(peer, established, now);
            }
        }
    }

    pub(super) fn punch_dial_failed(
        &mut self,
        host: usize,
        id: ConnectionId,
        failures: &[(Candidate, Failure)],
    ) {
        let now = self.network.now;
        let Some(node) = self.hosts[host].node() else {
            return;
        };
        let Some((peer, dial)) = node.punches.dials.remove(&id) else {
            return;
        };
        let Some(round) = node.punches.rounds.get_mut(&dial) else {
            return;
        };
        let outcomes = failures.iter().map(|(at, why)| (*at, why.outcome()));
        round.outcomes.extend(outcomes);
        round.open -= 1;
        if round.open == 0 {
            let round = node.punches.rounds.remove(&dial).unwrap();
            if !round.is_connected {
                let outcomes = &round.outcomes;
                node.machine.handle_dial_failed(peer, dial, outcomes, now);
            }
        }
    }

    pub(super) fn punch_action(&mut self, host: usize, action: Action) {
        match action {
            Action::Connect {
                circuit,
                addrs,
                rtt,
                ..
            } => self.send_connect(host, circuit, addrs, rtt),
            Action::Reply {
                peer: _,
                circuit,
                addrs,
                rtt,
            } => {
                let addrs = addresses(addrs, rtt);
                self.send(circuit, move |world, at| world.answered(at, addrs));
            }
            Action::Drop { circuit, role, .. } => {
                let theirs = match role {
                    Role::Initiator => Role::Responder,
                    Role::Responder => Role::Initiator,
                };
                if let Some(node) = self.hosts[host].node() {
                    node.punches.forget(circuit);
                }
                self.send(circuit, move |world, at| {
                    world.handshake_failed(at, theirs, HandshakeError::Broken);
                });
            }
            Action::Dial {
                peer, dial, addrs, ..
            } => self.punch(host, peer, dial, &addrs),
            Action::Close { connection, .. } => self.close(connection),
            Action::Expect { .. } | Action::Forget { .. } | Action::KeepAlive { .. } => {}
        }
    }

    fn punch(&mut self, host: usize, peer: PeerId, dial: DialId, addrs: &[Multiaddr]) {
        let name = self.name_of(&peer);
        self.note(host, &format!("punches {name} at {addrs:?}"));
        let ends = self.ends_of(host, Some(peer));
        let direct = ends.iter().find(|id| self.ends[id].is_direct());
        assert_eq!(
            direct, None,
            "{} punches a direct peer",
            self.hosts[host].name
        );
        for addr in addrs {
            let id = self.connection_id();
            let node = self.hosts[host].node().unwrap();
            node.punches.dials.insert(id, (peer, dial));
            node.punches.rounds.entry(dial).or_default().open += 1;
            let candidate = Candidate::parse(addr).unwrap();
            self.begin_dial(host, id, peer, vec![candidate]);
        }
    }

    fn send_connect(
        &mut self,
        host: usize,
        circuit: ConnectionId,
        addrs: Vec<Multiaddr>,
        rtt: Option<Duration>,
    ) {
        let now = self.network.now;
        if let Some(node) = self.hosts[host].node() {
            node.punches.asking.insert(circuit, now);
        }
        let addrs = addresses(addrs, rtt);
        self.send(circuit, move |world, at| {
            let (now, end) = (world.network.now, &world.ends[&at]);
            let (host, peer) = (end.host, end.peer);
            let Some(node) = world.hosts[host].node() else {
                return;
            };
            if node.punches.answering.insert(at) {
                node.machine.handle_connect(peer, at, addrs, now);
            } else {
                world.send(at, |world, at| {
                    world.handshake_failed(at, Role::Initiator, HandshakeError::Broken);
                });
            }
        });
    }

    /// The answer to CONNECT has come, and SYNC goes.
    fn answered(&mut self, at: ConnectionId, addrs: Addresses) {
        let (now, end) = (self.network.now, &self.ends[&at]);
        let (host, peer) = (end.host, end.peer);
        let Some(node) = self.hosts[host].node() else {
            return;
        };
        let Some(sent) = node.punches.asking.remove(&at) else {
            return;
        };
        node.machine
            .handle_answer(peer, at, addrs, now - sent, now, now);
        self.send(at, |world, at| {
            let (now, end) = (world.network.now, &world.ends[&at]);
            let (host, peer) = (end.host, end.peer);
            if let Some(node) = world.hosts[host].node()
                && node.punches.answering.remove(&at)
            {
                node.machine.handle_sync(peer, at, now);
            }
        });
    }

    fn handshake_failed(&mut self, at: ConnectionId, role: Role, error: HandshakeError) {
        let (now, end) = (self.network.now, &self.ends[&at]);
        let (host, peer) = (end.host, end.peer);
        let Some(node) = self.hosts[host].node() else {
            return;
        };
        let is_known = match role {
            Role::Initiator => node.punches.asking.remove(&at).is_some(),
            Role::Responder => node.punches.answering.remove(&at),
        };
        if is_known {
            node.machine
                .handle_handshake_failed(peer, at, role, error, now);
        }
    }
}

fn addresses(known: Vec<Multiaddr>, rtt: Option<Duration>) -> Addresses {
    let mut addresses = Addresses::from(known);
    addresses.rtt = rtt;
    addresses
}
