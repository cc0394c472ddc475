//! Whole scenarios, by subject.

mod admission;
mod crowd;
mod dial;
mod directory;
mod family;
mod loss;
mod outage;
mod property;
mod punch;
mod refusal;
mod reservation;
mod slow;

use std::time::Duration;

use relay_node::core::Settings;

use super::{World, nat::Nat, scenario::NodeSetup};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A relay, and two nodes behind these NATs that hold reservations on it.
fn pair(seed: u64, a: Nat, b: Nat) -> (World, usize, [usize; 2]) {
    let mut world = World::new(seed);
    let relay = world.relay(Settings::default());
    let nodes = [a, b].map(|nat| world.node(NodeSetup::behind(nat, &[relay])));
    world.until_reserved();
    (world, relay, nodes)
}
