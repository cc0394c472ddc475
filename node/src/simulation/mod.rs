//! Whole nodes and relays under virtual time, over a simulated network.
//!
//! The simulator runs their states and punch machines, the NATs between them, and a network that delays, loses, reorders and is
//! cut. It opens no socket, and nothing sleeps.
//!
//! - `nat`: what NATs show and admit. The simulator of the punch machine uses it too.
//! - `network`: the clock, the queue of what is to happen, and how long packets take.
//! - `transport`: dials, from packets at NATs to connections.
//! - `connection`: what is open, messages and pings over it, and how it ends.
//! - `exchange`: a question on a stream and its answer.
//! - `node`, `reservation`, `directory`, `punch`, `circuit`, `relay`: drivers, which carry out what the states ask for.
//! - `scenario`, `view`: what a test sets up, and what it sees.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
#![allow(clippy::print_stderr, reason = "a test that fails prints its trace")]

mod circuit;
mod connection;
mod directory;
mod exchange;
pub(crate) mod nat;
mod network;
mod node;
mod punch;
mod relay;
mod reservation;
mod scenario;
mod tests;
mod transport;
mod view;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{PeerId, identity::Keypair, swarm::ConnectionId};
use p2pnode_transports::Family;

use connection::End;
use exchange::Exchange;
use nat::Site;
use network::Network;
use node::SimNode;
use relay::SimRelay;
use scenario::{Dialed, Setup};
use transport::Attempt;

/// How often a host may be woken at one instant before it counts as stuck.
const WAKES: u32 = 64;

/// All hosts, and what is between them.
pub(super) struct World {
    network: Network,
    hosts: Vec<Host>,
    /// The ends of connections that are open, each by the id that its host has for it.
    ends: BTreeMap<ConnectionId, End>,
    /// Ends whose handshake is under way, and whether their host has dialed them.
    opening: BTreeMap<ConnectionId, (usize, bool)>,
    /// Dials of which no address has connected yet.
    attempts: BTreeMap<ConnectionId, Attempt>,
    exchanges: BTreeMap<u64, Exchange>,
    numbers: usize,
    dials: Vec<Dialed>,
    /// Since when a host has two direct connections to a peer that both sides hold.
    surplus: BTreeMap<(usize, PeerId), Instant>,
}

/// A host and what runs on it.
struct Host {
    name: String,
    keypair: Keypair,
    peer: PeerId,
    /// One way to the middle of the network.
    delay: Duration,
    sites: BTreeMap<Family, Site>,
    /// The port that its program listens at and dials from.
    port: u16,
    /// Another port, from which it dials for now: the first was not free.
    dials_from: Option<u16>,
    setup: Setup,
    program: Program,
    /// How often its program was started.
    runs: u16,
    /// Whether something has happened to it since it was settled.
    is_touched: bool,
    wakes: (Instant, u32),
}

enum Program {
    Off,
    Node(Box<SimNode>),
    Relay(Box<SimRelay>),
}

impl Host {
    fn node(&mut self) -> Option<&mut SimNode> {
        self.is_touched = true;
        match &mut self.program {
            Program::Node(node) => Some(node),
            Program::Off | Program::Relay(_) => None,
        }
    }

    fn relay(&mut self) -> Option<&mut SimRelay> {
        self.is_touched = true;
        match &mut self.program {
            Program::Relay(relay) => Some(relay),
            Program::Off | Program::Node(_) => None,
        }
    }

    fn due(&self) -> Option<Instant> {
        match &self.program {
            Program::Off => None,
            Program::Node(node) => node.due(),
            Program::Relay(relay) => relay.state.poll_timeout(),
        }
    }
}

impl World {
    fn after(&mut self, delay: Duration, happening: impl FnOnce(&mut Self) + 'static) {
        self.network.after(delay, Box::new(happening));
    }

    fn note(&mut self, host: usize, what: &str) {
        let line = format!("{:6} {what}", self.hosts[host].name);
        self.network.note(&line);
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers as u64
    }

    fn connection_id(&mut self) -> ConnectionId {
        self.numbers += 1;
        ConnectionId::new_unchecked(self.numbers)
    }

    fn name_of(&self, peer: &PeerId) -> String {
        let host = self.hosts.iter().find(|host| host.peer == *peer);
        host.map_or_else(|| "nobody".to_owned(), |host| host.name.clone())
    }

    /// Has everything happen that is due until then.
    pub(super) fn run_to(&mut self, until: Instant) {
        while self.step(until) {}
        self.network.now = self.network.now.max(until);
    }

    /// The next thing happens, if it is due by then.
    fn step(&mut self, until: Instant) -> bool {
        self.settle();
        let wakes = self.hosts.iter().filter_map(Host::due);
        let next = wakes.chain(self.network.due()).min();
        let Some(next) = next.filter(|next| *next <= until) else {
            return false;
        };
        self.network.now = self.network.now.max(next);
        match self.network.pop() {
            Some(happening) => happening(self),
            None => self.wake(),
        }
        self.settle();
        self.check_surplus();
        true
    }

    /// Calls those whose time has come. One that is called again and again at one instant does not advance.
    fn wake(&mut self) {
        let now = self.network.now;
        for host in &mut self.hosts {
            if host.due().is_none_or(|due| due > now) {
                continue;
            }
            let (at, wakes) = &mut host.wakes;
            *wakes = if *at == now { *wakes + 1 } else { 0 };
            *at = now;
            assert!(*wakes < WAKES, "{} is due and does not advance", host.name);
            host.is_touched = true;
            match &mut host.program {
                Program::Off => {}
                Program::Node(node) => {
                    node.machine.handle_timeout(now);
                    node.state.handle_timeout(now);
                }
                Program::Relay(relay) => relay.state.handle_timeout(relay::both(&self.network)),
            }
        }
    }

    /// Carries out what the programs ask for, until they ask for nothing.
    fn settle(&mut self) {
        while let Some(host) = self.hosts.iter().position(|host| host.is_touched) {
            self.hosts[host].is_touched = false;
            match &self.hosts[host].program {
                Program::Off => {}
                Program::Node(_) => self.settle_node(host),
                Program::Relay(_) => self.settle_relay(host),
            }
        }
    }
}
