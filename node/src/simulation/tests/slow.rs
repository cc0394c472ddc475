//! Paths that are slow, lose, or have queues: none of that is an end.

use std::time::Duration;

use super::{pair, seconds};
use crate::{
    core::dialer::{Request, Until},
    simulation::{World, nat::Nat},
};

/// A relay, and two nodes that are connected: relayed by their NATs, or direct.
fn connected(seed: u64, nat: Nat) -> (World, usize, [usize; 2]) {
    let (mut world, relay, [a, b]) = pair(seed, nat, nat);
    let dial = world.dial(a, b);
    world.outcome(dial);
    world.run(seconds(30));
    (world, relay, [a, b])
}

/// Runs for this time, in which the node keeps its reservation and its connections.
fn keeps(world: &mut World, time: Duration, relay: usize, [a, b]: [usize; 2]) {
    let (ends, peer) = (world.connections(a, b), world.peer(relay));
    let legs = world.ends_of(a, Some(peer));
    world.run(time);
    assert!(world.holds(a, relay), "it has lost its reservation");
    assert_eq!(world.connections(a, b), ends);
    assert_eq!(world.ends_of(a, Some(peer)), legs, "it has lost a leg");
}

#[test]
fn a_round_trip_of_three_seconds_keeps_a_node_ready_and_its_paths_up() {
    for nat in [Nat::Symmetric, Nat::PortRestricted] {
        let (mut world, relay, nodes) = connected(1, nat);
        for millis in [600, 1000, 1490] {
            world.set_delay(nodes[0], Duration::from_millis(millis));
            keeps(&mut world, seconds(60), relay, nodes);
        }
    }
}

#[test]
fn a_round_trip_that_jumps_at_once_and_back_costs_no_reservation_and_no_path() {
    for (seed, millis) in [(6, 1300), (7, 1490), (8, 2500), (9, 3300)] {
        for nat in [Nat::Symmetric, Nat::PortRestricted] {
            let (mut world, relay, nodes) = connected(seed, nat);
            for _ in 0..3 {
                world.set_delay(nodes[0], Duration::from_millis(millis));
                keeps(&mut world, seconds(60), relay, nodes);
                world.set_delay(nodes[0], Duration::from_millis(10));
                keeps(&mut world, seconds(60), relay, nodes);
            }
        }
    }
}

/// A dial that pings for minutes.
fn pinging(world: &mut World, [a, b]: [usize; 2]) {
    let peer = world.peer(b);
    let request = Request {
        peer,
        addrs: Vec::new(),
        until: Until::Direct,
        timeout: seconds(60),
        pings: 300,
    };
    world.dial_as(a, request);
}

#[test]
fn a_round_trip_that_jumps_while_a_dial_pings_costs_no_path() {
    for (seed, millis) in [(10, 1490), (11, 2500)] {
        for nat in [Nat::Symmetric, Nat::PortRestricted] {
            let (mut world, relay, nodes) = connected(seed, nat);
            pinging(&mut world, nodes);
            world.run(seconds(5));
            for millis in [millis, 10] {
                world.set_delay(nodes[0], Duration::from_millis(millis));
                keeps(&mut world, seconds(40), relay, nodes);
            }
        }
    }
}

#[test]
fn a_path_that_is_cut_while_a_dial_pings_is_relayed_within_five_seconds() {
    for seed in 12..16 {
        let (mut world, _, [a, b]) = connected(seed, Nat::PortRestricted);
        pinging(&mut world, [a, b]);
        world.run(seconds(5));
        world.network().cut(a, b, true);
        let took = world.until(seconds(20), "it is back over the relay", |world| {
            world.connections(a, b).1 > 0 && world.connections(b, a).1 > 0
        });
        assert!(took <= seconds(5), "{took:?}");
        world.network().cut(a, b, false);
        world.until_direct(60, a, b);
    }
}

#[test]
fn a_node_that_begins_with_a_round_trip_of_three_seconds_is_ready_and_stays_so() {
    let mut world = World::new(2);
    let relay = world.relay(relay_node::core::Settings::default());
    world.set_delay(relay, Duration::from_millis(1490));
    let setup = crate::simulation::scenario::NodeSetup::behind(Nat::PortRestricted, &[relay]);
    let nodes = [setup.clone(), setup].map(|setup| world.node(setup));
    world.until(seconds(60), "it is reserved", |world| {
        world.holds(nodes[0], relay)
    });
    world.run(seconds(20));
    keeps(&mut world, seconds(300), relay, nodes);
}

#[test]
fn a_queue_that_grows_to_six_seconds_and_drains_costs_no_connection() {
    let (mut world, relay, nodes) = connected(3, Nat::PortRestricted);
    // 20 s of growth, a minute of standing, and 20 s of draining.
    let (up, full) = ((0..20).map(|n| 300 * n), std::iter::repeat_n(5950, 60));
    let down = (0..20).rev().map(|n| 300 * n);
    for queue in up.chain(full).chain(down) {
        world.set_delay(nodes[0], Duration::from_millis(10 + queue));
        keeps(&mut world, seconds(1), relay, nodes);
    }
}

#[test]
fn a_quarter_of_the_packets_lost_and_much_jitter_cost_no_connection() {
    let (mut world, relay, nodes) = connected(4, Nat::PortRestricted);
    world.network().loss = 0.25;
    world.network().jitter = Duration::from_millis(400);
    keeps(&mut world, seconds(600), relay, nodes);
}

#[test]
fn a_path_with_usual_round_trips_that_is_cut_is_relayed_within_five_seconds_also_after_a_queue() {
    for queue in [0, 3] {
        let (mut world, relay, [a, b]) = connected(5, Nat::PortRestricted);
        for part in 1..=6 {
            world.set_delay(a, Duration::from_millis(20) + seconds(queue) * part / 12);
            world.run(seconds(5));
        }
        world.set_delay(a, Duration::from_millis(20));
        // What a queue has taught is forgotten within half a minute.
        world.run(seconds(30));
        assert!(world.holds(a, relay) && world.are_direct(a, b));
        world.network().cut(a, b, true);
        let took = world.until(seconds(20), "it is back over the relay", |world| {
            world.connections(a, b).1 > 0 && world.connections(b, a).1 > 0
        });
        assert!(took <= seconds(5), "{took:?}");
    }
}
