//! Connections that are open: messages and pings over them, and how they end.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::ping::{self, Pace, Patience};
use relay_node::core::CircuitId;

use super::{Program, World, relay, relay::both, scenario::Setup};
use crate::{
    core::liveness::{Ended, Link},
    punch::address::Candidate,
};

/// After this time a transport gives up a connection whose other end is silent.
const IDLE: Duration = Duration::from_secs(10);

/// A message that finds its way cut is sent again after this time.
const RETRY: Duration = Duration::from_millis(300);

/// What comes before the handshake is over waits for its end.
const SOON: Duration = Duration::from_millis(2);

/// How a relay pings.
const RELAY_PACE: Pace = Pace {
    interval: Duration::from_secs(15),
    timeout: Duration::from_secs(10),
};

/// One end of a connection.
pub(super) struct End {
    pub(super) host: usize,
    pub(super) peer: PeerId,
    pub(super) far_host: usize,
    pub(super) far: ConnectionId,
    pub(super) route: Route,
    pub(super) dialed: bool,
    pub(super) pings: Pings,
}

/// How it goes there.
#[derive(Clone)]
pub(super) enum Route {
    Direct {
        local: Candidate,
        remote: Candidate,
    },
    Circuit {
        relay: usize,
        circuit: CircuitId,
        /// The leg, and the relay's address on it.
        via: ConnectionId,
        leg: Multiaddr,
    },
}

#[derive(Default)]
pub(super) struct Pings {
    /// Grows with each ping.
    turn: u64,
    /// The last one that was answered, or that an earlier one's late answer made needless.
    answered: u64,
    is_under_way: bool,
    is_asked: bool,
    missed: u32,
    patience: Patience,
}

impl End {
    pub(super) fn is_direct(&self) -> bool {
        matches!(self.route, Route::Direct { .. })
    }
}

impl World {
    /// The handshake of one end is over.
    pub(super) fn open(&mut self, id: ConnectionId, end: End) {
        if self.opening.remove(&id).is_none() {
            return;
        }
        let host = end.host;
        if let Setup::Node(setup) = &self.hosts[host].setup
            && !end.dialed
        {
            let allowed = self.allowed(setup);
            let wait = if allowed.is_some_and(|allowed| !allowed.contains(&end.peer)) {
                Some(Duration::ZERO)
            } else {
                setup.hangs_up
            };
            match wait {
                Some(Duration::ZERO) => return self.turn_away(host, &end),
                Some(wait) => self.after(wait, move |world| world.close(id)),
                None => {}
            }
        }
        let (name, kind) = (
            self.name_of(&end.peer),
            if end.is_direct() { "direct" } else { "circuit" },
        );
        let how = if end.dialed { "dialed" } else { "accepted" };
        self.note(host, &format!("{kind} connection {id} to {name}, {how}"));
        let observed = match &end.route {
            Route::Direct { remote, .. } => Some(remote.to_multiaddr()),
            Route::Circuit { .. } => None,
        };
        self.ends.insert(id, end);
        match &self.hosts[host].program {
            Program::Off => {}
            Program::Node(_) => self.node_established(host, id),
            Program::Relay(_) => self.relay_established(host, id),
        }
        self.send(id, move |world, at| world.identified(at, observed));
        self.after(Duration::ZERO, move |world| world.ping(id, 0));
    }

    /// A node does not admit the peer that has authenticated itself: the connection closes at once.
    fn turn_away(&mut self, host: usize, end: &End) {
        let name = self.name_of(&end.peer);
        self.note(host, &format!("turns {name} away"));
        let (far, delay) = (
            end.far,
            self.hosts[host].delay + self.hosts[end.far_host].delay,
        );
        self.after(delay, move |world| world.lose(far, Ended::Theirs));
        if let Route::Circuit { relay, circuit, .. } = end.route {
            self.after(delay, move |world| world.circuit_ended(relay, circuit));
        }
    }

    /// The far end of a connection has identified itself and, if that is direct, reports the address at which it sees this one.
    fn identified(&mut self, at: ConnectionId, observed: Option<Multiaddr>) {
        let Some(end) = self.ends.get(&at) else {
            return;
        };
        let (host, peer, now) = (end.host, end.peer, self.network.now);
        let far = &self.hosts[end.far_host].setup;
        let punches = matches!(far, Setup::Node(setup) if setup.punches);
        let prefers = match far {
            Setup::Node(setup) => setup.family.preferred(),
            Setup::Relay(_) => None,
        };
        if let Some(node) = self.hosts[host].node() {
            node.machine.handle_preference(peer, prefers, now);
            node.state.handle_protocols(at, punches);
            if let Some(observed) = observed {
                node.state.handle_identified(at, peer, observed, now);
            }
        } else if let Some(relay) = self.hosts[host].relay() {
            relay.identified(peer, at, punches);
        }
    }

    /// How long a packet takes to the far end, if the way there is not cut.
    pub(super) fn path(&self, id: ConnectionId) -> Option<Duration> {
        let end = self.ends.get(&id)?;
        let between = |a: usize, b: usize| {
            let delay = self.hosts[a].delay + self.hosts[b].delay;
            (!self.network.is_cut(a, b)).then_some(delay)
        };
        match end.route {
            Route::Direct { remote, .. } => {
                between(end.host, end.far_host)?;
                Some(self.one_way(end.host, end.far_host, remote.family()))
            }
            Route::Circuit {
                relay,
                circuit,
                via,
                ..
            } => {
                let is_carried = self.ends.contains_key(&via) && self.carries(relay, circuit);
                let legs = (between(end.host, relay)?, between(relay, end.far_host)?);
                is_carried.then_some(legs.0 + legs.1)
            }
        }
    }

    /// Sends a message; `deliver` happens at the far end, unless that ends before.
    pub(super) fn send(
        &mut self,
        from: ConnectionId,
        deliver: impl FnOnce(&mut Self, ConnectionId) + 'static,
    ) {
        let Some(far) = self.ends.get(&from).map(|end| end.far) else {
            return;
        };
        match self.path(from) {
            Some(base) => {
                let delay = self.network.stream(base);
                self.after(delay, move |world| world.deliver(far, deliver));
            }
            None => self.after(RETRY, move |world| world.send(from, deliver)),
        }
    }

    fn deliver(
        &mut self,
        at: ConnectionId,
        deliver: impl FnOnce(&mut Self, ConnectionId) + 'static,
    ) {
        if self.ends.contains_key(&at) {
            deliver(self, at);
        } else if self.opening.contains_key(&at) || self.attempts.contains_key(&at) {
            self.after(SOON, move |world| world.deliver(at, deliver));
        }
    }

    /// A host closes its end.
    pub(super) fn close(&mut self, id: ConnectionId) {
        let path = self.path(id).filter(|_| !self.network.loses());
        let Some(end) = self.ends.remove(&id) else {
            return;
        };
        let far = end.far;
        match path {
            Some(base) => {
                let delay = self.network.spread(base);
                self.after(delay, move |world| world.lose(far, Ended::Theirs));
            }
            None => self.after(IDLE, move |world| world.lose(far, Ended::Broken)),
        }
        self.closed(id, &end, Ended::Ours);
    }

    /// One end learns that there is no other any more.
    pub(super) fn lose(&mut self, id: ConnectionId, ended: Ended) {
        if let Some((host, is_dialed)) = self.opening.remove(&id) {
            if is_dialed {
                self.circuit_failed(host, id);
            }
        } else if self.attempts.contains_key(&id) {
            self.after(SOON, move |world| world.lose(id, ended));
        } else if let Some(end) = self.ends.remove(&id) {
            self.closed(id, &end, ended);
        }
    }

    fn closed(&mut self, id: ConnectionId, end: &End, ended: Ended) {
        let (host, name) = (end.host, self.name_of(&end.peer));
        self.note(
            host,
            &format!("connection {id} to {name} has ended: {ended:?}"),
        );
        let over = |other: &End| matches!(other.route, Route::Circuit { via, .. } if via == id);
        let circuits = self.ends.iter().filter(|(_, other)| over(other));
        let circuits: Vec<ConnectionId> = circuits.map(|(id, _)| *id).collect();
        for circuit in circuits {
            self.lose(circuit, Ended::Broken);
        }
        // The order is the network's and not the node's.
        let answers_first = self.network.rng.bool();
        if answers_first {
            self.end_exchanges(id);
        }
        match &self.hosts[host].program {
            Program::Off => {}
            Program::Node(_) => self.node_closed(id, end, ended),
            Program::Relay(_) => {
                let (now, jitter) = (relay::both(&self.network), self.network.rng.f64());
                if let Some(relay) = self.hosts[host].relay() {
                    relay.state.handle_closed(end.peer, id, now, jitter);
                }
            }
        }
        self.end_exchanges(id);
        if let Route::Circuit { relay, circuit, .. } = end.route
            && !self.network.is_cut(host, relay)
        {
            let delay = self.hosts[host].delay + self.hosts[relay].delay;
            self.after(delay, move |world| world.circuit_ended(relay, circuit));
        }
    }

    /// Pings now, for a caller that asked.
    pub(super) fn ping_now(&mut self, id: ConnectionId) {
        if let Some(end) = self.ends.get_mut(&id) {
            end.pings.is_asked = true;
            if !end.pings.is_under_way {
                let turn = end.pings.turn;
                self.ping(id, turn);
            }
        }
    }

    /// Pings, unless that was done since its turn was decided.
    fn ping(&mut self, id: ConnectionId, turn: u64) {
        let path = self.path(id);
        let Some(pace) = self.pace(id) else {
            return;
        };
        let trip = path.map(|base| self.network.stream(base) + self.network.stream(base));
        let Some(end) = self.ends.get_mut(&id).filter(|end| end.pings.turn == turn) else {
            return;
        };
        end.pings.turn += 1;
        end.pings.is_under_way = true;
        let (timeout, turn) = (end.pings.patience.timeout(pace), end.pings.turn);
        let far = end.far;
        self.after(timeout, move |world| world.missed(id, turn, pace));
        if let Some(trip) = trip {
            self.after(trip, move |world| {
                let is_there = world.ends.contains_key(&far)
                    || world.opening.contains_key(&far)
                    || world.attempts.contains_key(&far);
                if is_there && world.path(id).is_some() {
                    world.ping_answered(id, turn, trip, pace);
                }
            });
        }
    }

    /// The answer to a ping has come, perhaps late.
    fn ping_answered(&mut self, id: ConnectionId, turn: u64, trip: Duration, pace: Pace) {
        if let Some(end) = self.ends.get_mut(&id)
            && turn > end.pings.answered
        {
            end.pings.answered = end.pings.turn;
            self.pinged(id, Some(trip), pace);
        }
    }

    fn missed(&mut self, id: ConnectionId, turn: u64, pace: Pace) {
        let pings = self.ends.get(&id).map(|end| &end.pings);
        if pings.is_some_and(|pings| turn > pings.answered) {
            self.pinged(id, None, pace);
        }
    }

    fn pace(&self, id: ConnectionId) -> Option<Pace> {
        let end = self.ends.get(&id)?;
        Some(match &self.hosts[end.host].program {
            Program::Node(_) if !end.is_direct() => Link::Circuit.pace(),
            Program::Node(_) => Link::Direct.pace(),
            Program::Off | Program::Relay(_) => RELAY_PACE,
        })
    }

    fn pinged(&mut self, connection: ConnectionId, rtt: Option<Duration>, pace: Pace) {
        let now = self.network.now;
        let Some(end) = self.ends.get_mut(&connection) else {
            return;
        };
        let (host, peer, pings) = (end.host, end.peer, &mut end.pings);
        pings.is_under_way = false;
        let asked = std::mem::take(&mut pings.is_asked);
        pings.missed = rtt.map_or(pings.missed + 1, |_| 0);
        if let Some(rtt) = rtt {
            pings.patience.handle_round_trip(rtt);
        }
        let (missed, turn) = (pings.missed, pings.turn);
        let pause = rtt.map_or(Duration::ZERO, |_| pace.interval);
        self.after(pause, move |world| world.ping(connection, turn));
        if let Some(node) = self.hosts[host].node() {
            let event = ping::Event {
                peer,
                connection,
                result: rtt.ok_or(ping::Failure::Timeout),
                missed,
                asked,
            };
            node.state.handle_ping(event, now);
        } else {
            let both = both(&self.network);
            let Some(relay) = self.hosts[host].relay() else {
                return;
            };
            match rtt {
                Some(rtt) => relay.state.handle_round_trip(&peer, connection, rtt, both),
                None => relay.state.handle_missed_pings(peer, connection, missed),
            }
        }
    }
}
