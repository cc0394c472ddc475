use super::{met, pair, seconds};
use crate::{core::event::Reached, simulation::nat::Nat};

#[test]
fn a_peer_whose_direct_path_breaks_is_back_over_the_relay_and_punched_again() {
    let (mut world, _, [a, b]) = met(1, Nat::PortRestricted, Nat::PortRestricted);
    assert!(world.are_direct(a, b));
    world.network().cut(a, b, true);
    let took = world.until(seconds(20), "it is back over the relay", |world| {
        world.connections(a, b).1 > 0 && world.connections(b, a).1 > 0
    });
    assert!(took <= seconds(5), "{took:?}");
    world.network().heal();
    world.until_direct(60, a, b);
}

#[test]
fn after_a_cut_of_the_direct_path_the_pair_is_direct_in_a_small_part_of_that_time() {
    for (seed, cut, limit) in [(6, 40, 30), (7, 100, 35), (8, 370, 75), (9, 1200, 210)] {
        let (mut world, _, [a, b]) = met(seed, Nat::PortRestricted, Nat::PortRestricted);
        world.network().cut(a, b, true);
        world.run(seconds(cut));
        let punches = world.node_of(b).attempts.len();
        assert!(punches <= 4 + cut as usize / 8, "{punches} in {cut} s");
        world.network().heal();
        let took = world.until_direct(600, a, b);
        assert!(took <= seconds(limit), "{took:?} after {cut} s");
    }
}

#[test]
fn a_mapping_that_is_back_makes_a_pair_punch_at_once() {
    let (mut world, relay, [a, b]) = met(10, Nat::PortRestricted, Nat::PortRestricted);
    world.network().cut(a, b, true);
    world.run(seconds(600));
    // The whole link of one side is gone for a moment.
    world.isolate(b, true);
    world.run(seconds(6));
    world.network().heal();
    world.until(seconds(20), "it is reserved", |world| world.holds(b, relay));
    let took = world.until_direct(600, a, b);
    assert!(took <= seconds(30), "{took:?}");
}

#[test]
fn a_relayed_peer_is_back_when_its_relay_is() {
    let (mut world, relay, [a, b]) = pair(2, Nat::Symmetric, Nat::Symmetric);
    let dial = world.dial(a, b);
    assert_eq!(world.outcome(dial).outcome, Reached::Relayed);
    world.crash(relay);
    world.until(seconds(20), "the circuit is lost", |world| {
        world.connections(a, b) == (0, 0)
    });
    world.start(relay);
    world.until(seconds(15), "it is back", |world| {
        world.connections(a, b).1 > 0 && world.connections(b, a).1 > 0
    });
}

#[test]
fn a_direct_connection_outlives_its_relay() {
    let (mut world, relay, [a, b]) = met(3, Nat::PortRestricted, Nat::FullCone);
    world.crash(relay);
    world.run(seconds(60));
    assert!(world.are_direct(a, b));
}

#[test]
fn a_peer_that_restarts_is_direct_again() {
    let (mut world, _, [a, b]) = met(4, Nat::PortRestricted, Nat::PortRestricted);
    world.crash(b);
    world.run(seconds(8));
    world.start(b);
    world.until_direct(60, a, b);
}

#[test]
fn a_peer_that_was_killed_and_is_back_is_connected_again_within_a_second() {
    for seed in 20..30 {
        let (mut world, _, [a, b]) = pair(seed, Nat::PortRestricted, Nat::PortRestricted);
        let dial = world.dial(a, b);
        world.outcome(dial);
        world.run(seconds(10));
        world.restart(b);
        world.until(seconds(1), "it knows", |world| {
            world.connections(a, b) == (0, 0)
        });
        world.until(seconds(1), "it is back", |world| {
            world.connections(a, b) != (0, 0) && world.connections(b, a) != (0, 0)
        });
        world.until(seconds(60), "it is direct again", |world| {
            world.are_direct(a, b)
        });
    }
}

#[test]
fn a_nat_that_forgets_its_mappings_costs_nothing_lasting() {
    let (mut world, relay, [a, b]) = pair(5, Nat::PortRewriting, Nat::PortRestricted);
    world.restart_nat(a);
    world.run(seconds(20));
    assert!(world.holds(a, relay));
    let dial = world.dial(b, a);
    assert_ne!(world.outcome(dial).outcome, Reached::Unreachable);
}
