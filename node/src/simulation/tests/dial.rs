use libp2p::PeerId;
use p2pnode_transports::Family;
use relay_node::core::Settings;

use super::{pair, seconds};
use crate::{
    core::{
        dialer::Until,
        event::{Event, FoundBy, NotDirect, Reached},
    },
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

#[test]
fn two_nodes_of_one_relay_become_direct_and_the_circuit_goes() {
    let (mut world, _, [a, b]) = pair(1, Nat::PortRestricted, Nat::PortRestricted);
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.outcome, Reached::Direct);
    assert_eq!(outcome.found_by, Some(FoundBy::Relay));
    world.run(seconds(10));
    assert!(world.are_direct(a, b));
}

#[test]
fn a_peer_on_a_foreign_relay_is_found_by_its_record() {
    let mut world = World::new(2);
    let [near, far] = world.relays(&Settings::default());
    let a = world.node(NodeSetup::behind(Nat::PortRestricted, &[near]));
    let b = world.node(NodeSetup::behind(Nat::FullCone, &[far]));
    world.until_reserved();
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.outcome, Reached::Direct);
    assert_eq!(outcome.found_by, Some(FoundBy::Registered));
}

#[test]
fn a_dial_of_nobody_ends_unreachable_before_its_time_and_says_why() {
    let (mut world, _, [a, _]) = pair(3, Nat::PortRestricted, Nat::PortRestricted);
    let dial = world.dial_with(a, PeerId::random(), &[], Until::Direct);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.outcome, Reached::Unreachable);
    assert!(outcome.t < super::super::view::TIMEOUT, "{outcome:?}");
    let Some(NotDirect::Unreachable(reason)) = outcome.reason else {
        panic!("{outcome:?}");
    };
    assert!(reason.contains("Absent"), "{reason}");
}

#[test]
fn a_peer_on_a_relay_that_nobody_knows_is_unreachable() {
    let mut world = World::new(4);
    let [near, far] = [(); 2].map(|()| world.relay(Settings::default()));
    let a = world.node(NodeSetup::behind(Nat::PortRestricted, &[near]));
    let b = world.node(NodeSetup::behind(Nat::PortRestricted, &[far]));
    world.until_reserved();
    let dial = world.dial(a, b);
    assert_eq!(world.outcome(dial).outcome, Reached::Unreachable);
}

#[test]
fn a_given_address_is_dialed_without_any_relay() {
    let mut world = World::new(5);
    let a = world.node(NodeSetup::behind(Nat::PortRestricted, &[]));
    let b = world.node(NodeSetup::behind(Nat::None, &[]));
    let (peer, address) = (world.peer(b), world.address(b, Family::Ip4));
    let dial = world.dial_with(a, peer, &[address], Until::Direct);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.outcome, Reached::Direct);
    assert_eq!(outcome.found_by, Some(FoundBy::Static));
}

#[test]
fn another_peer_at_the_given_address_is_named() {
    let mut world = World::new(6);
    let a = world.node(NodeSetup::behind(Nat::PortRestricted, &[]));
    let b = world.node(NodeSetup::behind(Nat::None, &[]));
    let address = world.address(b, Family::Ip4);
    let dial = world.dial_with(a, PeerId::random(), &[address], Until::Direct);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.outcome, Reached::Unreachable);
    assert!(format!("{outcome:?}").contains(&world.peer(b).to_string()));
}

#[test]
fn both_sides_that_dial_at_once_share_one_direct_connection() {
    for seed in 0..20 {
        let (mut world, _, [a, b]) = pair(seed, Nat::PortRestricted, Nat::FullCone);
        world.network().jitter = std::time::Duration::from_millis(30);
        let dials = [world.dial(a, b), world.dial(b, a)];
        for dial in dials {
            assert_eq!(world.outcome(dial).outcome, Reached::Direct);
        }
        world.run(seconds(15));
        assert!(world.are_direct(a, b), "seed {seed}");
        for dial in dials {
            assert_eq!(world.results(dial).unwrap().len(), 1);
        }
    }
}

#[test]
fn a_dial_of_a_connected_peer_ends_at_once() {
    let (mut world, _, [a, b]) = pair(7, Nat::PortRestricted, Nat::FullCone);
    let first = world.dial(a, b);
    world.outcome(first);
    let again = world.dial(a, b);
    let outcome = world.outcome(again);
    assert_eq!(outcome.found_by, Some(FoundBy::Open));
    assert!(outcome.t < seconds(1), "{outcome:?}");
    let reports = world.reports(again).unwrap();
    assert!(matches!(reports.last(), Some(Event::Result(_))));
}
