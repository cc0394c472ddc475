//! Outages of minutes, an hour and a day: a peer that was wanted is found again.

use super::{met, seconds};
use crate::{
    core::event::{Event, Pause},
    simulation::{World, nat::Nat},
};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A relay, and two nodes of which the first has dialed the second.
fn direct(seed: u64) -> (World, usize, [usize; 2]) {
    let (world, relay, [a, b]) = met(seed, Nat::PortRestricted, Nat::PortRestricted);
    assert!(world.are_direct(a, b));
    (world, relay, [a, b])
}

/// What the search of a node for its lost peers has reported.
fn pauses(world: &World, node: usize) -> Vec<Option<Pause>> {
    let events = world.node_of(node).events.iter();
    let pauses = events.filter_map(|event| {
        if let Event::SearchPaused { reason, .. } = event {
            return Some(Some(*reason));
        }
        matches!(event, Event::SearchResumed { .. }).then_some(None)
    });
    pauses.collect()
}

fn lost(world: &World, node: usize) -> usize {
    world.node_of(node).state.lost().count()
}

#[test]
fn after_an_outage_of_the_dialers_link_the_peer_is_direct_again_soon_after_the_relay_is() {
    for (seed, outage) in [(1, 370), (2, HOUR), (3, DAY)] {
        let (mut world, relay, [a, b]) = direct(seed);
        world.isolate(a, true);
        world.run(seconds(outage));
        assert_eq!(lost(&world, a), 1, "{outage} s");
        assert_eq!(pauses(&world, a), [Some(Pause::NoRelay)], "{outage} s");
        world.network().heal();
        let limit = seconds(20 + (outage / 7).min(300));
        world.until(limit, "the relay is back", |world| world.holds(a, relay));
        let took = world.until_direct(60, a, b);
        assert!(took <= seconds(20), "{took:?} after {outage} s");
        assert_eq!(pauses(&world, a), [Some(Pause::NoRelay), None]);
        assert_eq!(lost(&world, a), 0);
    }
}

#[test]
fn after_an_outage_of_the_relay_and_the_peer_it_is_direct_again_soon_after_they_are_back() {
    for (seed, outage) in [(4, 370), (5, HOUR), (6, DAY)] {
        let (mut world, relay, [a, b]) = direct(seed);
        world.crash(relay);
        world.crash(b);
        world.run(seconds(outage));
        assert_eq!(pauses(&world, a), [Some(Pause::NoRelay)], "{outage} s");
        world.start(relay);
        world.start(b);
        let limit = seconds(20 + (outage / 7).min(300));
        world.until(limit, "the relay is back", |world| {
            world.holds(a, relay) && world.holds(b, relay)
        });
        world.until_direct(90, a, b);
    }
}

#[test]
fn a_peer_that_was_cut_off_for_long_is_found_in_a_small_part_of_that_time_after_few_circuits() {
    for (seed, outage) in [(7, 370), (8, HOUR)] {
        let (mut world, relay, [a, b]) = direct(seed);
        let before = world.relay_of(relay).unwrap().asked;
        world.isolate(b, true);
        world.run(seconds(outage));
        let asked = world.relay_of(relay).unwrap().asked - before;
        assert!(asked <= 60 + outage as usize / 60, "{asked} in {outage} s");
        assert_eq!(pauses(&world, a), [Some(Pause::NoAnswer)], "{outage} s");
        world.network().heal();
        let limit = seconds(20 + (outage / 7).min(300));
        world.until(limit, "it holds its reservation", |world| {
            world.holds(b, relay)
        });
        world.until_direct(60 + outage / 8, a, b);
    }
}

#[test]
fn a_peer_that_leaves_is_found_again_when_it_returns() {
    let (mut world, _, [a, b]) = direct(9);
    world.leave(b);
    world.run(seconds(370));
    assert_eq!(lost(&world, a), 1);
    world.start(b);
    world.until_direct(110, a, b);
}

#[test]
fn a_dial_that_fails_in_an_outage_leaves_the_peer_wanted() {
    let (mut world, _, [a, b]) = direct(10);
    world.isolate(b, true);
    world.run(seconds(60));
    let dial = world.dial(a, b);
    world.outcome(dial);
    assert_eq!(lost(&world, a), 1);
    world.network().heal();
    world.until_direct(110, a, b);
}

#[test]
fn a_peer_that_turns_the_dialer_away_from_now_on_is_dialed_ever_less_often() {
    let (mut world, relay, [a, b]) = direct(11);
    world.crash(b);
    world.turn_all_away(b);
    world.start(b);
    world.run(seconds(300));
    let before = world.relay_of(relay).unwrap().asked;
    world.run(seconds(HOUR));
    let asked = world.relay_of(relay).unwrap().asked - before;
    assert!((6..=90).contains(&asked), "{asked} in an hour");
    assert_eq!(lost(&world, a), 1);
}
