//! What a test sees: how dials end, what is connected, and what must hold at any time.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use p2pnode_protocol::directory::Registration;
use p2pnode_transports::Family;

use super::{Program, World, connection::Route, node::SimNode, relay::SimRelay, scenario::Dialed};
use crate::{
    core::{
        dialer::{Request, Until},
        event::{Event, Outcome},
    },
    punch::Record,
};

/// The longest that a pair keeps two direct connections. It is the punch machine's limit of 3 s and the time until the other side
/// sees the close.
const SURPLUS: Duration = Duration::from_secs(4);

/// How long dials of tests try.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

impl World {
    /// A node dials another host, until it is direct.
    pub(super) fn dial(&mut self, from: usize, to: usize) -> usize {
        let peer = self.hosts[to].peer;
        self.dial_with(from, peer, &[], Until::Direct)
    }

    pub(super) fn dial_with(
        &mut self,
        from: usize,
        peer: PeerId,
        addrs: &[Multiaddr],
        until: Until,
    ) -> usize {
        self.dial_as(
            from,
            Request {
                peer,
                addrs: addrs.to_vec(),
                until,
                timeout: TIMEOUT,
                pings: 1,
            },
        )
    }

    pub(super) fn dial_as(&mut self, from: usize, request: Request) -> usize {
        let name = self.name_of(&request.peer);
        self.note(from, &format!("is to dial {name}"));
        let (now, runs) = (self.network.now, self.hosts[from].runs);
        let id = self.hosts[from]
            .node()
            .unwrap()
            .state
            .handle_dial(request, now);
        self.dials.push(Dialed {
            host: from,
            runs,
            id,
        });
        self.settle();
        self.dials.len() - 1
    }

    /// What a dial has reported, unless its node has ended meanwhile.
    pub(super) fn reports(&self, dial: usize) -> Option<Vec<&Event>> {
        let Dialed { host, runs, id } = &self.dials[dial];
        let host = &self.hosts[*host];
        match &host.program {
            Program::Node(node) if host.runs == *runs => {
                let reports = node.reports.iter().filter(|(dial, _)| dial == id);
                Some(reports.map(|(_, event)| event).collect())
            }
            Program::Node(_) | Program::Off | Program::Relay(_) => None,
        }
    }

    /// The results of a dial: there must be one in the end.
    pub(super) fn results(&self, dial: usize) -> Option<Vec<&Outcome>> {
        let reports = self.reports(dial)?.into_iter();
        let results = reports.filter_map(|event| {
            if let Event::Result(outcome) = event {
                return Some(outcome);
            }
            None
        });
        Some(results.collect())
    }

    /// Lets a dial end.
    pub(super) fn outcome(&mut self, dial: usize) -> Outcome {
        self.until(TIMEOUT * 3, "the dial ends", |world| {
            world
                .results(dial)
                .is_some_and(|results| !results.is_empty())
        });
        self.results(dial).unwrap()[0].clone()
    }

    pub(super) fn run(&mut self, time: Duration) {
        self.run_to(self.network.now + time);
    }

    /// Runs until a condition holds, at most for this time, and returns how long that took.
    pub(super) fn until(
        &mut self,
        limit: Duration,
        what: &str,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Duration {
        let start = self.network.now;
        while !holds(self) {
            assert!(self.step(start + limit), "not within {limit:?}: {what}");
        }
        self.network.now - start
    }

    /// Lets every node reserve where it is to.
    pub(super) fn until_reserved(&mut self) {
        self.until(
            Duration::from_secs(20),
            "every node is reserved and registered",
            |world| {
                world.running_nodes().all(|(_, node)| {
                    let relays = node.state.relays();
                    relays.held() >= relays.wanted().min(relays.relays().count())
                })
            },
        );
        self.run(Duration::from_secs(3));
    }

    pub(super) fn running_nodes(&self) -> impl Iterator<Item = (usize, &SimNode)> {
        let hosts = self.hosts.iter().enumerate();
        hosts.filter_map(|(host, of)| match &of.program {
            Program::Node(node) => Some((host, &**node)),
            Program::Off | Program::Relay(_) => None,
        })
    }

    pub(super) fn node_of(&self, host: usize) -> &SimNode {
        match &self.hosts[host].program {
            Program::Node(node) => node,
            Program::Off | Program::Relay(_) => panic!("no node runs there"),
        }
    }

    pub(super) fn relay_of(&self, host: usize) -> Option<&SimRelay> {
        match &self.hosts[host].program {
            Program::Relay(relay) => Some(relay),
            Program::Off | Program::Node(_) => None,
        }
    }

    pub(super) fn is_up(&self, host: usize) -> bool {
        !matches!(self.hosts[host].program, Program::Off)
    }

    /// How many dials were begun.
    pub(super) fn dials(&self) -> usize {
        self.dials.len()
    }

    pub(super) fn peer(&self, host: usize) -> PeerId {
        self.hosts[host].peer
    }

    /// Whether a relay holds a reservation of a node, as that sees it.
    pub(super) fn holds(&self, node: usize, relay: usize) -> bool {
        let node = self.node_of(node);
        node.state.relays().holds(&self.hosts[relay].peer)
    }

    /// What a relay answers who looks a node up.
    pub(super) fn record(&self, relay: usize, node: usize) -> Option<Registration> {
        let peer = self.hosts[node].peer;
        let (value, expires) = self.relay_of(relay)?.records.get(&peer)?;
        let is_valid = *expires > self.network.now;
        is_valid.then(|| Registration::read(&peer.to_bytes(), value).unwrap())
    }

    /// How many direct connections and how many circuits a host has to another one.
    pub(super) fn connections(&self, host: usize, to: usize) -> (usize, usize) {
        let ends = self.ends_of(host, Some(self.hosts[to].peer));
        let direct = ends.iter().filter(|id| self.ends[id].is_direct()).count();
        (direct, ends.len() - direct)
    }

    /// The families of the direct connections from a host to another one.
    pub(super) fn direct_families(&self, host: usize, to: usize) -> Vec<Family> {
        let ends = self.ends_of(host, Some(self.hosts[to].peer));
        let family = |id| match &self.ends[id].route {
            Route::Direct { remote, .. } => Some(remote.family()),
            Route::Circuit { .. } => None,
        };
        ends.iter().filter_map(family).collect()
    }

    /// A host closes its direct connections to another one.
    pub(super) fn close_direct(&mut self, host: usize, to: usize) {
        for id in self.ends_of(host, Some(self.hosts[to].peer)) {
            if self.ends[&id].is_direct() {
                self.close(id);
            }
        }
    }

    /// Whether both sides have the one direct connection and nothing else.
    pub(super) fn are_direct(&self, a: usize, b: usize) -> bool {
        self.connections(a, b) == (1, 0) && self.connections(b, a) == (1, 0)
    }

    pub(super) fn events(&self, host: usize) -> &[Event] {
        &self.node_of(host).events
    }

    pub(super) fn attempts(&self, host: usize) -> &[Record] {
        &self.node_of(host).attempts
    }

    /// What the program of a host remembers of what is over: nothing once all its connections are closed.
    pub(super) fn leftovers(&self, host: usize) -> Vec<String> {
        let node = self.node_of(host);
        let mut leftovers = node.state.leftovers();
        if !node.punches.is_empty() {
            leftovers.push("a punch".to_owned());
        }
        leftovers
    }

    /// Two direct connections of a pair that both sides hold live side by side for a short time only.
    pub(super) fn check_surplus(&mut self) {
        let now = self.network.now;
        let mut pairs: Vec<(usize, PeerId)> = Vec::new();
        for end in self.ends.values() {
            if end.is_direct() && end.dialed && self.ends.contains_key(&end.far) {
                let far = &self.hosts[end.far_host];
                if matches!(far.program, Program::Node(_)) {
                    let (a, b) = (end.host.min(end.far_host), end.host.max(end.far_host));
                    pairs.push((a, self.hosts[b].peer));
                }
            }
        }
        pairs.sort_unstable();
        let doubled: Vec<_> = pairs
            .windows(2)
            .filter(|two| two[0] == two[1])
            .map(|two| two[0])
            .collect();
        self.surplus.retain(|pair, _| doubled.contains(pair));
        for pair in doubled {
            let since: Instant = *self.surplus.entry(pair).or_insert(now);
            assert!(
                now - since <= SURPLUS,
                "{} keeps two direct connections",
                self.hosts[pair.0].name
            );
        }
    }
}
