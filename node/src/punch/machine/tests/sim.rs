//! A world of two nodes, each behind a NAT, with circuits between them. Nothing sleeps: time jumps to the next event.

mod act;
mod happen;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use libp2p::{PeerId, identity, swarm::ConnectionId};
use p2pnode_protocol::dcutr::Addresses;
use p2pnode_transports::Transport;

use crate::punch::{
    address::Candidate,
    candidates::{Observation, Policy},
    machine::{DialId, Event, Machine, Side, Timing},
    record::Role,
};

pub(super) use crate::simulation::nat::Nat;

/// Properties of the network.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) nats: [Nat; 2],
    pub(super) transports: [Vec<Transport>; 2],
    /// Transports that a firewall between the two drops.
    pub(super) blocked: Vec<Transport>,
    /// One way, between the two and over the relay.
    pub(super) direct: Duration,
    pub(super) relayed: Duration,
    /// Added to each packet, from none to this: packets overtake each other.
    pub(super) jitter: Duration,
    /// Of a hundred packets, how many are lost.
    pub(super) loss: u64,
    /// When each node learns its addresses, after the start.
    pub(super) observed_after: [Duration; 2],
    /// Whether each node knows the round trip time of the circuit, as our nodes do. Other implementations neither know the time
    /// nor return one that they receive.
    pub(super) knows_rtt: [bool; 2],
    pub(super) seed: u64,
}

impl Network {
    pub(super) fn new(a: Nat, b: Nat) -> Self {
        Self {
            nats: [a, b],
            transports: [
                vec![Transport::Quic, Transport::Tcp],
                vec![Transport::Quic, Transport::Tcp],
            ],
            blocked: Vec::new(),
            direct: Duration::from_millis(20),
            relayed: Duration::from_millis(30),
            jitter: Duration::ZERO,
            loss: 0,
            observed_after: [Duration::ZERO; 2],
            knows_rtt: [true; 2],
            seed: 1,
        }
    }
}

/// What becomes of the introduction that a relay sends to one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    After(Duration),
    Lost,
}

pub(super) struct Node {
    pub(super) id: PeerId,
    pub(super) machine: Machine,
    pub(super) events: Vec<(Duration, Event)>,
    /// Connections as this node sees them.
    pub(super) direct: BTreeSet<usize>,
    pub(super) circuits: BTreeSet<usize>,
    /// Circuits whose handshake this node answers.
    answering: BTreeSet<usize>,
    dials: BTreeMap<DialId, Vec<Candidate>>,
    /// To whom this node's NAT has seen packets go.
    sent_to: BTreeSet<SocketAddr>,
    pub(super) dial_count: usize,
    pub(super) dialed_at: Vec<Duration>,
    pub(super) dialed_kinds: Vec<BTreeSet<Transport>>,
    pub(super) dialed_roles: Vec<Role>,
}

pub(super) struct World {
    pub(super) nodes: [Node; 2],
    pub(super) network: Network,
    relay: PeerId,
    start: Instant,
    now: Instant,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    serial: u64,
    next_connection: usize,
    rng: u64,
    /// When CONNECT was sent over a circuit.
    connects: BTreeMap<usize, Instant>,
    /// Both saw it direct at once.
    pub(super) was_direct: bool,
    /// Set by a test that cuts connections itself.
    pub(super) may_be_cut: bool,
}

#[derive(Debug, Clone)]
enum Happening {
    Observe(usize),
    Introduced {
        node: usize,
        asked: bool,
    },
    Circuit {
        dialer: usize,
    },
    CircuitAt {
        node: usize,
        circuit: usize,
        side: Side,
    },
    Connect {
        to: usize,
        circuit: usize,
        addrs: Addresses,
    },
    Answer {
        to: usize,
        circuit: usize,
        addrs: Addresses,
    },
    Sync {
        to: usize,
        circuit: usize,
    },
    Dropped {
        to: usize,
        circuit: usize,
        role: Role,
    },
    Packet {
        from: usize,
        dial: DialId,
        to: Candidate,
    },
    DialTimeout {
        from: usize,
        dial: DialId,
    },
    Accept {
        at: usize,
        dial: DialId,
        from: Candidate,
        to: Candidate,
    },
    DirectAt {
        node: usize,
        connection: usize,
        dialed: bool,
        remote: Candidate,
    },
    ClosedAt {
        node: usize,
        connection: usize,
    },
}

impl World {
    pub(super) fn new(network: Network) -> Self {
        Self::with_timing(network, &Timing::default())
    }

    pub(super) fn with_timing(network: Network, timing: &Timing) -> Self {
        let start = Instant::now();
        let node = |index: usize| {
            let secret = [index as u8 + 1 + (network.seed % 97) as u8; 32];
            let id = identity::Keypair::ed25519_from_bytes(secret)
                .unwrap()
                .public()
                .to_peer_id();
            let policy = Policy {
                transports: network.transports[index].clone(),
                ..Policy::open()
            };
            Node {
                id,
                machine: Machine::new(id, true, policy, timing.clone(), network.seed),
                events: Vec::new(),
                direct: BTreeSet::new(),
                circuits: BTreeSet::new(),
                answering: BTreeSet::new(),
                dials: BTreeMap::new(),
                sent_to: BTreeSet::new(),
                dial_count: 0,
                dialed_at: Vec::new(),
                dialed_kinds: Vec::new(),
                dialed_roles: Vec::new(),
            }
        };
        let mut world = Self {
            nodes: [node(0), node(1)],
            rng: network.seed,
            network,
            relay: PeerId::random(),
            start,
            now: start,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            serial: 0,
            next_connection: 100,
            connects: BTreeMap::new(),
            was_direct: false,
            may_be_cut: false,
        };
        for index in 0..2 {
            world.at(
                world.network.observed_after[index],
                Happening::Observe(index),
            );
        }
        world
    }

    /// A dials B through the relay, or the other way round, after a while.
    pub(super) fn circuit(&mut self, dialer: usize, after: Duration) {
        self.at(after, Happening::Circuit { dialer });
    }

    /// The relay introduces the asker and the other one, after a while; the asker's word comes first.
    pub(super) fn introduce(&mut self, asker: usize, after: Duration, words: [Word; 2]) {
        for (node, word) in [asker, 1 - asker].into_iter().zip(words) {
            if let Word::After(delay) = word {
                let asked = node == asker;
                self.at(after + delay, Happening::Introduced { node, asked });
            }
        }
    }

    /// Cuts every direct connection; both sides see it in their own time.
    pub(super) fn cut_direct(&mut self) {
        self.may_be_cut = true;
        for node in 0..2 {
            for connection in self.nodes[node].direct.clone() {
                self.after(
                    Duration::from_millis(1 + 700 * node as u64),
                    Happening::ClosedAt { node, connection },
                );
            }
        }
        self.was_direct = false;
    }

    /// Cuts every circuit.
    pub(super) fn cut_circuits(&mut self) {
        for node in 0..2 {
            for connection in self.nodes[node].circuits.clone() {
                self.after(
                    Duration::from_millis(1),
                    Happening::ClosedAt { node, connection },
                );
            }
        }
    }

    /// The NAT of a node gets another address, and the node learns of it.
    pub(super) fn change_address(&mut self, node: usize, address: Ipv4Addr) {
        for transport in self.network.transports[node].clone() {
            self.observe(node, transport, address);
        }
        self.carry_out(node);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Runs until that long after the start.
    pub(super) fn run_until(&mut self, until: Duration) {
        let until = self.start + until;
        loop {
            let queued = self.queue.peek().map(|Reverse((at, _))| *at);
            let timer = self
                .nodes
                .iter()
                .filter_map(|node| node.machine.poll_timeout())
                .min();
            let Some(next) = queued
                .into_iter()
                .chain(timer)
                .min()
                .filter(|at| *at <= until)
            else {
                break;
            };
            self.now = self.now.max(next);
            if queued == Some(next) {
                let Reverse((_, serial)) = self.queue.pop().unwrap();
                let happening = self.happenings.remove(&serial).unwrap();
                self.happen(happening);
            }
            for node in 0..2 {
                if self.nodes[node]
                    .machine
                    .poll_timeout()
                    .is_some_and(|at| at <= self.now)
                {
                    self.nodes[node].machine.handle_timeout(self.now);
                }
                self.carry_out(node);
            }
            self.check();
        }
        self.now = until;
    }

    /// The connections that both sides hold.
    pub(super) fn shared(&self) -> BTreeSet<usize> {
        self.nodes[0]
            .direct
            .intersection(&self.nodes[1].direct)
            .copied()
            .collect()
    }

    fn check(&mut self) {
        let shared = !self.shared().is_empty();
        self.was_direct |= shared;
        assert!(
            !self.was_direct || shared || self.may_be_cut,
            "no direct connection is left at {:?}: {:?} {:?}",
            self.elapsed(),
            self.nodes[0].events,
            self.nodes[1].events
        );
    }

    fn at(&mut self, after_start: Duration, happening: Happening) {
        self.push(self.start + after_start, happening);
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.push(self.now + delay, happening);
    }

    fn push(&mut self, at: Instant, happening: Happening) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial)));
        self.happenings.insert(self.serial, happening);
    }

    fn random(&mut self, below: u64) -> u64 {
        self.rng = self
            .rng
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.rng >> 33) % below
    }

    /// A delay with its jitter.
    fn delay(&mut self, base: Duration) -> Duration {
        let micros = self.network.jitter.as_micros() as u64;
        base + Duration::from_micros(if micros == 0 { 0 } else { self.random(micros) })
    }

    fn public_ip(node: usize) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, node as u8 + 1)
    }

    /// What the relay sees of a node.
    fn mapped(node: usize, transport: Transport) -> Candidate {
        let port = if transport == Transport::Quic {
            40000
        } else {
            41000
        };
        Candidate {
            transport,
            socket: (Self::public_ip(node), port).into(),
        }
    }

    /// From where a node's packets come at the other node.
    fn source(&self, node: usize, transport: Transport) -> SocketAddr {
        let mut socket = Self::mapped(node, transport).socket;
        if self.network.nats[node].maps_by_remote() {
            socket.set_port(socket.port() + 7);
        }
        socket
    }

    fn observe(&mut self, node: usize, transport: Transport, ip: Ipv4Addr) {
        let mut candidate = Self::mapped(node, transport);
        candidate.socket.set_ip(IpAddr::V4(ip));
        let observation = Observation {
            addr: candidate.to_multiaddr(),
            by: self.nodes[1 - node].id,
            connection: ConnectionId::new_unchecked(if transport == Transport::Quic {
                1
            } else {
                2
            }),
            transport,
            family: candidate.family(),
        };
        self.nodes[node]
            .machine
            .handle_observed(&observation, self.now);
    }
}
