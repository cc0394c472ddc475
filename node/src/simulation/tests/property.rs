//! What holds whatever happens. At each step, the world itself checks that no direct peer is punched. It also checks that no pair
//! keeps two direct connections for longer than the bound. No program may be due again and again without advancing.

use std::{collections::BTreeSet, time::Duration};

use relay_node::core::Settings;

use super::{seconds, seeds};
use crate::simulation::{World, nat::Nat, scenario::NodeSetup, view::TIMEOUT};

const SEEDS: u64 = 80;

/// How long a relay that drains goes on.
const DRAIN: Duration = seconds(5);

const NATS: [Nat; 5] = [
    Nat::FullCone,
    Nat::AddressRestricted,
    Nat::PortRestricted,
    Nat::PortRewriting,
    Nat::Symmetric,
];

/// What is done to a world, at random.
struct Chaos {
    world: World,
    rng: fastrand::Rng,
    relays: [usize; 2],
    nodes: [usize; 3],
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0xc4a05);
        let mut world = World::new(seed);
        let relays = world.relays(&Settings {
            drain_timeout: DRAIN,
            ..Settings::default()
        });
        let nodes = [(); 3].map(|()| {
            let nat = NATS[rng.usize(..NATS.len())];
            let relays = match rng.u8(..3) {
                0 => vec![relays[0]],
                1 => vec![relays[1]],
                _ => relays.to_vec(),
            };
            world.node(NodeSetup {
                reservations: rng.usize(1..=2),
                introductions: rng.bool(),
                ..NodeSetup::behind(nat, &relays)
            })
        });
        world.network().jitter = Duration::from_millis(rng.u64(..60));
        world.network().loss = rng.f64() * 0.05;
        Self {
            world,
            rng,
            relays,
            nodes,
        }
    }

    fn two_nodes(&mut self) -> (usize, usize) {
        let (a, b) = (self.rng.usize(..3), self.rng.usize(1..3));
        (self.nodes[a], self.nodes[(a + b) % 3])
    }

    fn disturb(&mut self) {
        let (a, b) = self.two_nodes();
        let relay = self.relays[self.rng.usize(..2)];
        let world = &mut self.world;
        match self.rng.u8(..14) {
            0..=5 => {
                if world.is_up(a) {
                    world.dial(a, b);
                }
            }
            6 => world.crash(a),
            7 => world.crash(relay),
            8 => world.stop(a),
            9 => world.shut_down(relay),
            10 => world.network().cut(a, b, true),
            11 => world.network().cut(a, relay, true),
            12 => world.restart_nat(a),
            _ => {
                world.network().heal();
                for host in self.nodes.into_iter().chain(self.relays) {
                    world.start_again(host);
                }
            }
        }
        self.world.run(Duration::from_millis(self.rng.u64(..6000)));
    }

    /// Everything works from now on, for as long as the slowest retries take.
    fn calm(&mut self) {
        self.world.network().heal();
        // Relays that drain end first.
        self.world.run(DRAIN);
        for host in self.nodes.into_iter().chain(self.relays) {
            self.world.start_again(host);
        }
        self.world.run(TIMEOUT * 3);
    }

    fn check_dials(&self) {
        for dial in 0..self.world.dials() {
            if let Some(results) = self.world.results(dial) {
                let [result] = results[..] else {
                    panic!("dial {dial} has ended {} times", results.len());
                };
                assert!(result.t <= TIMEOUT, "dial {dial} took {:?}", result.t);
            }
        }
    }

    fn check_records(&self) {
        for node in self.nodes {
            let held: BTreeSet<usize> = self
                .relays
                .into_iter()
                .filter(|relay| self.world.holds(node, *relay))
                .collect();
            assert!(!held.is_empty(), "a node holds no reservation");
            let peers: BTreeSet<_> = held.iter().map(|relay| self.world.peer(*relay)).collect();
            for relay in held {
                let record = self.world.record(relay, node).expect("a record");
                let found = record.found().relays;
                let found: BTreeSet<_> = found.iter().map(|via| via.relay).collect();
                assert_eq!(found, peers, "what a relay has is old");
            }
        }
    }

    /// Nothing is left of what was, once all is closed and lost peers are forgotten.
    fn check_leftovers(&mut self) {
        for host in self.relays {
            self.world.crash(host);
        }
        self.world.crash(self.nodes[1]);
        self.world.crash(self.nodes[2]);
        self.world.run(seconds(340));
        self.world.forget_lost(self.nodes[0]);
        self.world.run(seconds(30));
        assert_eq!(self.world.leftovers(self.nodes[0]), Vec::<String>::new());
    }
}

#[test]
fn whatever_happens_every_dial_ends_every_record_is_current_and_nothing_is_left_over() {
    for seed in seeds(SEEDS) {
        let mut chaos = Chaos::new(seed);
        for _ in 0..14 {
            chaos.disturb();
        }
        chaos.calm();
        chaos.check_dials();
        chaos.check_records();
        chaos.check_leftovers();
    }
}
