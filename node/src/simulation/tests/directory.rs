use std::time::Duration;

use relay_node::core::Settings;

use super::{pair, seconds};
use crate::{
    core::event::{FoundBy, Reached},
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

#[test]
fn a_node_is_announced_where_it_holds_its_reservation() {
    let (world, relay, [node, _]) = pair(1, Nat::PortRestricted, Nat::FullCone);
    let found = world.record(relay, node).unwrap().found();
    let relays: Vec<_> = found.relays.iter().map(|via| via.relay).collect();
    assert_eq!(relays, [world.peer(relay)]);
    assert!(found.direct.is_empty(), "{found:?}");
}

#[test]
fn the_other_relays_keep_a_copy() {
    let mut world = World::new(2);
    let [first, second] = world.relays(&Settings::default());
    let node = world.node(NodeSetup::behind(Nat::PortRestricted, &[first]));
    world.until_reserved();
    assert!(world.record(first, node).is_some());
    assert_eq!(world.record(first, node), world.record(second, node));
}

#[test]
fn a_node_that_leaves_withdraws_its_record() {
    let (mut world, relay, [node, other]) = pair(3, Nat::PortRestricted, Nat::FullCone);
    world.leave(node);
    world.run(seconds(1));
    assert!(
        world
            .record(relay, node)
            .is_none_or(|record| record.is_withdrawal())
    );
    let dial = world.dial(other, node);
    assert_eq!(world.outcome(dial).outcome, Reached::Unreachable);
}

#[test]
fn a_node_whose_relay_comes_late_is_announced_then() {
    let mut world = World::new(4);
    let relay = world.relay(Settings::default());
    world.crash(relay);
    let node = world.node(NodeSetup::behind(Nat::FullCone, &[relay]));
    world.run(seconds(100));
    assert!(!world.holds(node, relay));
    world.start(relay);
    world.until(seconds(20), "it is announced", |world| {
        world.record(relay, node).is_some()
    });
}

#[test]
fn a_record_does_not_expire_while_its_node_runs() {
    let (mut world, relay, [node, _]) = pair(5, Nat::FullCone, Nat::FullCone);
    for _ in 0..8 {
        world.run(seconds(600));
        assert!(world.record(relay, node).is_some());
    }
}

#[test]
fn a_public_node_is_found_by_its_record_and_dialed_directly() {
    let mut world = World::new(6);
    let [near, far] = world.relays(&Settings::default());
    let a = world.node(NodeSetup::behind(Nat::Symmetric, &[near]));
    let b = world.node(NodeSetup::behind(Nat::None, &[far]));
    world.until_reserved();
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!(
        (outcome.outcome, outcome.found_by),
        (Reached::Direct, Some(FoundBy::Registered))
    );
}

#[test]
fn a_reservation_that_comes_while_the_record_is_on_its_way_is_announced_everywhere() {
    for further in 0..60 {
        let mut world = World::new(7);
        let [near, far] = [(); 2].map(|()| world.relay(Settings::default()));
        world.set_delay(far, Duration::from_millis(10 + 2 * further));
        let node = world.node(NodeSetup {
            reservations: 2,
            ..NodeSetup::behind(Nat::PortRestricted, &[near, far])
        });
        world.until_reserved();
        for relay in [near, far] {
            let found = world.record(relay, node).unwrap().found();
            assert_eq!(found.relays.len(), 2, "{further}: {found:?}");
        }
    }
}
