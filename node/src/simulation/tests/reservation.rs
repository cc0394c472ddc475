use relay_node::{config::Limits, core::Settings};

use super::{pair, seconds};
use crate::{
    core::event::{Event, Reached},
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

fn lost(world: &World, node: usize) -> usize {
    let lost = |event: &&Event| matches!(event, Event::ReservationLost { .. });
    world.events(node).iter().filter(lost).count()
}

fn draining() -> Settings {
    Settings {
        drain_timeout: seconds(30),
        ..Settings::default()
    }
}

#[test]
fn a_reservation_is_renewed_before_it_ends() {
    let mut world = World::new(1);
    let relay = world.relay(Settings {
        limits: Limits {
            reservation_duration: seconds(60),
            ..Limits::UNLIMITED
        },
        ..Settings::default()
    });
    let node = world.node(NodeSetup::behind(Nat::PortRestricted, &[relay]));
    world.until_reserved();
    world.run(seconds(600));
    assert!(world.holds(node, relay));
    assert_eq!(lost(&world, node), 0);
    assert_eq!(
        world.relay_of(relay).unwrap().state.totals().reservations,
        1
    );
}

#[test]
fn a_relay_that_comes_back_gets_reservation_and_record_again() {
    let (mut world, relay, [node, _]) = pair(2, Nat::PortRestricted, Nat::FullCone);
    world.crash(relay);
    world.run(seconds(12));
    assert_eq!(lost(&world, node), 1);
    world.start(relay);
    let took = world.until(seconds(10), "it is reserved again", |world| {
        world.holds(node, relay) && world.record(relay, node).is_some()
    });
    assert!(took < seconds(6), "{took:?}");
}

#[test]
fn when_the_preferred_relay_is_lost_the_next_one_gets_the_reservation() {
    let mut world = World::new(3);
    let [first, second] = world.relays(&Settings::default());
    let node = world.node(NodeSetup::behind(Nat::PortRestricted, &[first, second]));
    world.until_reserved();
    assert!(world.holds(node, first) && !world.holds(node, second));
    world.crash(first);
    world.until(seconds(10), "the second relay holds it", |world| {
        world.holds(node, second)
    });
}

#[test]
fn nodes_move_from_a_relay_that_drains_before_it_ends() {
    let mut world = World::new(4);
    let [first, second] = world.relays(&draining());
    let nodes = [(); 2].map(|()| world.node(NodeSetup::behind(Nat::Symmetric, &[first, second])));
    world.until_reserved();
    let dial = world.dial(nodes[0], nodes[1]);
    assert_eq!(world.outcome(dial).outcome, Reached::Relayed);
    world.shut_down(first);
    world.until(
        seconds(3),
        "both are reserved on the other relay",
        |world| nodes.iter().all(|node| world.holds(*node, second)),
    );
    assert!(
        world.relay_of(first).is_some(),
        "the circuit still runs over it"
    );
    world.until(seconds(31), "the drain ends", |world| {
        world.relay_of(first).is_none()
    });
    world.until(
        seconds(10),
        "the peer is back over the other relay",
        |world| world.connections(nodes[0], nodes[1]).1 > 0,
    );
}

#[test]
fn a_relay_without_circuits_ends_as_soon_as_its_peers_had_their_notice() {
    let mut world = World::new(5);
    let relay = world.relay(draining());
    let node = world.node(NodeSetup::behind(Nat::FullCone, &[relay]));
    world.until_reserved();
    world.shut_down(relay);
    world.until(seconds(4), "it has stopped", |world| {
        world.relay_of(relay).is_none()
    });
    world.run(seconds(1));
    assert!(!world.holds(node, relay));
}
