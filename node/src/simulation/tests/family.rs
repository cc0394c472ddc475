use p2pnode_transports::{Family, FamilyPolicy};
use relay_node::core::Settings;

use crate::{
    core::event::{Outcome, Reached},
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

const BOTH: [Family; 2] = [Family::Ip4, Family::Ip6];

fn families(outcome: &Outcome) -> Vec<Option<Family>> {
    let path = outcome.path.as_ref().unwrap();
    path.hops.iter().map(|hop| hop.family).collect()
}

fn dual(relay: usize, nat: Nat) -> NodeSetup {
    NodeSetup {
        ip6: Some(Nat::Firewall),
        relays: vec![(relay, BOTH.to_vec())],
        ..NodeSetup::behind(nat, &[])
    }
}

#[test]
fn a_circuit_that_bridges_families_is_made_again_in_that_of_its_far_hop() {
    for punches in [false, true] {
        let mut world = World::new(1);
        let relay = world.relay(Settings::default());
        let a = world.node(NodeSetup {
            family: FamilyPolicy::PreferIp4,
            punches,
            introductions: punches,
            ..dual(relay, Nat::Symmetric)
        });
        let b = world.node(NodeSetup {
            ip4: None,
            family: FamilyPolicy::OnlyIp6,
            punches,
            ..dual(relay, Nat::None)
        });
        world.until_reserved();
        // What is punched fails.
        world.network().cut(a, b, true);
        let dial = world.dial(a, b);
        let outcome = world.outcome(dial);
        assert_eq!(outcome.outcome, Reached::Relayed);
        assert_eq!(
            families(&outcome),
            [Some(Family::Ip6); 2],
            "punches: {punches}"
        );
    }
}

#[test]
fn the_family_that_is_preferred_carries_the_direct_path() {
    for (family, expected) in [
        (FamilyPolicy::PreferIp4, Family::Ip4),
        (FamilyPolicy::PreferIp6, Family::Ip6),
    ] {
        let mut world = World::new(2);
        let relay = world.relay(Settings::default());
        let [a, b] = [(); 2].map(|()| {
            world.node(NodeSetup {
                family,
                ..dual(relay, Nat::FullCone)
            })
        });
        world.until_reserved();
        let dial = world.dial(a, b);
        let outcome = world.outcome(dial);
        assert_eq!(outcome.outcome, Reached::Direct);
        assert_eq!(families(&outcome), [Some(expected)]);
    }
}

#[test]
fn a_pair_that_is_symmetric_in_one_family_is_direct_in_the_other() {
    let mut world = World::new(3);
    let relay = world.relay(Settings::default());
    let [a, b] = [(); 2].map(|()| world.node(dual(relay, Nat::Symmetric)));
    world.until_reserved();
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.outcome, Reached::Direct);
    assert_eq!(families(&outcome), [Some(Family::Ip6)]);
}

#[test]
fn a_circuit_to_a_peer_that_does_not_punch_is_made_again_in_the_family_of_its_far_hop() {
    let mut world = World::new(4);
    let relay = world.relay(Settings::default());
    let a = world.node(NodeSetup {
        family: FamilyPolicy::PreferIp4,
        ..dual(relay, Nat::FullCone)
    });
    let b = world.node(NodeSetup {
        ip4: None,
        family: FamilyPolicy::OnlyIp6,
        punches: false,
        ..dual(relay, Nat::None)
    });
    world.until_reserved();
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.outcome, Reached::Relayed);
    assert_eq!(families(&outcome), [Some(Family::Ip6); 2]);
}
