//! Circuits: from the dial over a relay to the end.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};
use relay_node::core::{CircuitId, Refusal};

use super::{
    World,
    connection::{End, Pings, Route},
    exchange::{Answer, Question},
    relay::{self, Carried},
};
use crate::{
    core::{
        dialer::{CircuitFailure, Fault},
        liveness::Ended,
        state::DialFailure,
    },
    punch::address::Candidate,
};

/// How long a relay, and a node that asks it, waits for the destination.
const STOP: Duration = Duration::from_secs(10);

impl World {
    /// A node dials a peer over a relay.
    pub(super) fn dial_circuit(
        &mut self,
        host: usize,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
    ) {
        let leg: Multiaddr = address
            .iter()
            .take_while(|part| !matches!(part, Protocol::P2p(_)))
            .collect();
        let relay = address.iter().find_map(|part| {
            if let Protocol::P2p(relay) = part {
                return Some(relay);
            }
            None
        });
        let family = Candidate::parse(&leg).map(|leg| leg.family());
        let mut ends = self.ends.iter();
        let via = ends.find(|(_, end)| {
            let of_family = match &end.route {
                Route::Direct { remote, .. } => Some(remote.family()) == family,
                Route::Circuit { .. } => false,
            };
            end.host == host && Some(end.peer) == relay && of_family
        });
        self.opening.insert(id, (host, true));
        let Some(via) = via.map(|(via, _)| *via) else {
            return self.after(Duration::ZERO, move |world| world.lose(id, Ended::Broken));
        };
        self.ask(
            via,
            STOP * 2,
            move |world, question| world.serve_circuit(question, peer, id),
            move |world, answer| {
                let failure = match answer {
                    Some(Answer::Circuit(Ok(_))) => return,
                    Some(Answer::Circuit(Err(failure))) => failure,
                    _ => CircuitFailure::Broken,
                };
                if world.opening.remove(&id).is_some() {
                    world.circuit_failed_as(host, id, failure);
                }
            },
        );
    }

    /// The circuit of a dial is gone before it was used.
    pub(super) fn circuit_failed(&mut self, host: usize, id: ConnectionId) {
        self.circuit_failed_as(host, id, CircuitFailure::Broken);
    }

    fn circuit_failed_as(&mut self, host: usize, id: ConnectionId, circuit: CircuitFailure) {
        self.note(host, &format!("circuit {id} has failed: {circuit:?}"));
        let now = self.network.now;
        if let Some(node) = self.hosts[host].node() {
            let failure = DialFailure {
                reason: format!("the circuit is {circuit:?}"),
                answered_by: None,
                circuit,
                fault: Fault::Remote,
            };
            node.state.handle_dial_failed(id, failure, now);
        }
    }

    /// A relay is asked for a circuit.
    fn serve_circuit(&mut self, question: Question, to: PeerId, dialer: ConnectionId) {
        let now = relay::both(&self.network);
        let Some(end) = self.ends.get(&question.at) else {
            return;
        };
        let (host, source) = (end.host, end.peer);
        let refuse = |why| Answer::Circuit(Err(why));
        let Some(relay) = self.hosts[host].relay() else {
            return;
        };
        relay.asked += 1;
        if !relay.serves(&source, now) {
            return self.answer(question, refuse(CircuitFailure::Refused));
        }
        let route = relay
            .state
            .handle_circuit_request(source, question.at, to, now);
        let route = match route {
            Ok(route) => route,
            Err(Refusal::Gone) => return,
            Err(Refusal::NoReservation) => {
                return self.answer(question, refuse(CircuitFailure::Absent));
            }
            Err(_) => return self.answer(question, refuse(CircuitFailure::Refused)),
        };
        self.ask(
            route.to,
            STOP,
            move |world, question| {
                let takes = world.takes_circuits(question.at);
                world.answer(question, Answer::Taken(takes));
            },
            move |world, answer| {
                let is_taken = matches!(answer, Some(Answer::Taken(true)));
                world.join_circuit(host, question, route.id, route.to, dialer, is_taken);
            },
        );
    }

    /// The destination of a circuit has answered, or will not.
    fn join_circuit(
        &mut self,
        host: usize,
        question: Question,
        id: CircuitId,
        to: ConnectionId,
        dialer: ConnectionId,
        is_taken: bool,
    ) {
        let now = relay::both(&self.network);
        let is_waited_for = self.ends.contains_key(&question.at);
        let Some(relay) = self.hosts[host].relay() else {
            return;
        };
        if !is_taken {
            let why = "the destination did not take it".to_owned();
            relay.state.handle_circuit_not_taken(id, why, now);
            return self.answer(question, Answer::Circuit(Err(CircuitFailure::Broken)));
        }
        if !is_waited_for {
            relay.state.handle_circuit_undelivered(id, now);
            return;
        }
        if relay.state.handle_circuit_ready(id, now).is_none() {
            return;
        }
        let (source_leg, destination_leg) = (&self.ends[&question.at], &self.ends[&to]);
        let sides = [source_leg, destination_leg].map(|leg| (leg.far_host, leg.peer, leg.far));
        let far = self.connection_id();
        let ids = [dialer, far];
        self.hosts[host]
            .relay()
            .unwrap()
            .carried
            .push((id, Carried { ends: ids }));
        self.answer(question, Answer::Circuit(Ok(id)));
        self.opening.insert(far, (sides[1].0, false));
        let base = sides.map(|(side, _, _)| self.hosts[side].delay + self.hosts[host].delay);
        let between = base[0] + base[1];
        // The source learns of it, and exchanges keys with the destination.
        for (side, trips) in [(0, 3), (1, 4)] {
            let delay = self.network.stream(base[0] + between * trips);
            let (near, other) = (sides[side], sides[1 - side]);
            let own = ids[side];
            self.after(delay, move |world| {
                let Some(Route::Direct { remote, .. }) =
                    world.ends.get(&near.2).map(|leg| leg.route.clone())
                else {
                    return world.lose(own, Ended::Broken);
                };
                let end = End {
                    host: near.0,
                    peer: other.1,
                    far_host: other.0,
                    far: ids[1 - side],
                    route: Route::Circuit {
                        relay: host,
                        circuit: id,
                        via: near.2,
                        leg: remote.to_multiaddr(),
                    },
                    dialed: side == 0,
                    pings: Pings::default(),
                };
                if world.carries(host, id) {
                    world.open(own, end);
                } else {
                    world.lose(own, Ended::Broken);
                }
            });
        }
    }

    /// Whether a relay carries a circuit.
    pub(super) fn carries(&self, host: usize, id: CircuitId) -> bool {
        match &self.hosts[host].program {
            super::Program::Relay(relay) => relay.carried.iter().any(|(of, _)| *of == id),
            super::Program::Off | super::Program::Node(_) => false,
        }
    }

    /// One side of a circuit has ended it.
    pub(super) fn circuit_ended(&mut self, host: usize, id: CircuitId) {
        self.end_circuit(host, id, Ended::Theirs);
    }

    /// A relay carries a circuit no longer.
    pub(super) fn end_circuit(&mut self, host: usize, id: CircuitId, ended: Ended) {
        let now = relay::both(&self.network);
        let Some(relay) = self.hosts[host].relay() else {
            return;
        };
        let Some(at) = relay.carried.iter().position(|(of, _)| *of == id) else {
            return;
        };
        let (_, Carried { ends }) = relay.carried.remove(at);
        relay.state.handle_circuit_ended(id, None, now);
        for end in ends {
            let side = self.ends.get(&end).map(|end| end.host);
            let side = side.or_else(|| self.opening.get(&end).map(|(host, _)| *host));
            if let Some(side) = side.filter(|side| !self.network.is_cut(*side, host)) {
                let base = self.hosts[side].delay + self.hosts[host].delay;
                let delay = self.network.stream(base);
                self.after(delay, move |world| world.lose(end, ended));
            }
        }
    }
}
