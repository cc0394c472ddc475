use relay_node::core::{Access, Settings};

use super::seconds;
use crate::{
    core::event::{Event, NotDirect, Reached},
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

fn with_tokens() -> Settings {
    Settings {
        access: Access {
            tokens: true,
            ..Access::default()
        },
        ..Settings::default()
    }
}

/// A relay that wants tokens, and two nodes with files of tokens of which only the second has one.
fn world(seed: u64) -> (World, usize, [usize; 2]) {
    let mut world = World::new(seed);
    let relay = world.relay(with_tokens());
    let nodes = [(); 2].map(|()| {
        world.node(NodeSetup {
            tokens: Some(String::new()),
            ..NodeSetup::behind(Nat::PortRestricted, &[relay])
        })
    });
    let token = world.token(relay, nodes[1], world.wall() + seconds(3600));
    world.give_tokens(nodes[1], &token);
    world.run(seconds(20));
    (world, relay, nodes)
}

#[test]
fn a_node_without_a_token_is_refused_and_says_so_once() {
    let (mut world, relay, [without, with]) = world(1);
    assert!(world.holds(with, relay) && !world.holds(without, relay));
    world.run(seconds(120));
    let refused = |event: &&Event| matches!(event, Event::RelayRefused { .. });
    assert_eq!(world.events(without).iter().filter(refused).count(), 1);
}

#[test]
fn a_token_that_is_given_later_is_taken_at_once() {
    let (mut world, relay, [node, with]) = world(2);
    let token = world.token(relay, node, world.wall() + seconds(3600));
    world.give_tokens(node, &token);
    let took = world.until(seconds(10), "it is reserved", |world| {
        world.holds(node, relay)
    });
    assert!(took < seconds(2), "{took:?}");
    let dial = world.dial(with, node);
    assert_eq!(world.outcome(dial).outcome, Reached::Direct);
}

#[test]
fn a_dial_over_a_relay_that_does_not_admit_the_node_ends_with_the_reason() {
    let (mut world, _, [without, with]) = world(3);
    let dial = world.dial(without, with);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.outcome, Reached::Unreachable);
    let Some(NotDirect::Unreachable(reason)) = outcome.reason else {
        panic!("{outcome:?}");
    };
    assert!(reason.contains("refused us"), "{reason}");
}

#[test]
fn a_node_that_is_no_longer_admitted_loses_reservation_and_record() {
    let (mut world, relay, [_, node]) = world(4);
    assert!(world.record(relay, node).is_some());
    let allow = vec![world.peer(relay)];
    world.set_access(
        relay,
        &Access {
            allow,
            ..Access::default()
        },
    );
    world.run(seconds(20));
    assert!(!world.holds(node, relay));
    assert!(world.record(relay, node).is_none());
}
