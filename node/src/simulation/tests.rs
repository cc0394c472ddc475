//! Whole scenarios, by subject.

mod admission;
mod crowd;
mod dial;
mod directory;
mod family;
mod loss;
mod outage;
mod outcomes;
mod preference;
mod property;
mod punch;
mod reasons;
mod refusal;
mod reservation;
mod shared_key;
mod slow;

use std::time::Duration;

use relay_node::core::Settings;

use super::{World, nat::Nat, scenario::NodeSetup};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// More of them than each run has time for: SIMULATION_SEEDS=5000.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let seeds = std::env::var("SIMULATION_SEEDS").map(|seeds| seeds.parse().unwrap());
    0..seeds.unwrap_or(usual)
}

/// A relay, and two nodes behind these NATs that hold reservations on it.
fn pair(seed: u64, a: Nat, b: Nat) -> (World, usize, [usize; 2]) {
    let mut world = World::new(seed);
    let relay = world.relay(Settings::default());
    let nodes = [a, b].map(|nat| world.node(NodeSetup::behind(nat, &[relay])));
    world.until_reserved();
    (world, relay, nodes)
}

/// Such a pair whose first node has dialed the second, ten seconds later.
fn met(seed: u64, a: Nat, b: Nat) -> (World, usize, [usize; 2]) {
    let (mut world, relay, [a, b]) = pair(seed, a, b);
    let dial = world.dial(a, b);
    world.outcome(dial);
    world.run(seconds(10));
    (world, relay, [a, b])
}

impl World {
    /// Waits until these two are direct, at most so many seconds; returns how long it took.
    #[track_caller]
    fn until_direct(&mut self, limit: u64, a: usize, b: usize) -> Duration {
        self.until(seconds(limit), "it is direct", |world| {
            world.are_direct(a, b)
        })
    }
}
