use std::time::Duration;

use p2pnode_transports::{Family, FamilyPolicy};
use relay_node::core::Settings;

use super::seconds;
use crate::{
    core::event::{Outcome, Reached},
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

const BOTH: [Family; 2] = [Family::Ip4, Family::Ip6];

fn families(outcome: &Outcome) -> Vec<Option<Family>> {
    let path = outcome.path.as_ref().unwrap();
    path.hops.iter().map(|hop| hop.family).collect()
}

pub(super) fn dual(relay: usize, nat: Nat) -> NodeSetup {
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

/// Both sides list both families, of which one is slower.
fn races(
    seed: u64,
    policies: [FamilyPolicy; 2],
    slow: Family,
    by: u64,
    introductions: bool,
) -> (World, [usize; 2], usize) {
    let mut world = World::new(seed);
    let relay = world.relay(Settings::default());
    let peers = policies.map(|family| {
        world.node(NodeSetup {
            family,
            introductions,
            ..dual(relay, Nat::FullCone)
        })
    });
    world.until_reserved();
    let slow = (slow, Duration::from_millis(by));
    world.network().slow.extend([slow]);
    let dial = world.dial(peers[0], peers[1]);
    (world, peers, dial)
}

#[test]
fn the_dialers_preference_then_the_listeners_decides_which_direct_connection_lives() {
    use FamilyPolicy::{Auto, PreferIp4, PreferIp6};
    let cases = [
        ([PreferIp4, Auto], Family::Ip4),
        ([PreferIp6, Auto], Family::Ip6),
        ([Auto, PreferIp4], Family::Ip4),
        ([Auto, PreferIp6], Family::Ip6),
        ([PreferIp4, PreferIp6], Family::Ip4),
        ([PreferIp6, PreferIp4], Family::Ip6),
    ];
    let mut seed = 10;
    for (policies, expected) in cases {
        for slow in Family::ALL {
            for (by, introductions) in [(1, true), (1, false), (150, true), (150, false)] {
                // The peer ids go by the order of the hosts, and one side closes the surplus: either side dials.
                seed += 1;
                let case = format!("{policies:?}, {slow} slow by {by}, {introductions}");
                let (mut world, [a, b], dial) = races(seed, policies, slow, by, introductions);
                let outcome = world.outcome(dial);
                assert_eq!(outcome.outcome, Reached::Direct, "{case}");
                let id = world.until(seconds(20), &case, |world| world.are_direct(a, b));
                assert!(id <= seconds(10), "{case}: {id:?}");
                world.run(seconds(30));
                assert!(world.are_direct(a, b), "{case}: it flaps");
                assert_eq!(world.direct_families(a, b), [expected], "{case}");
                assert_eq!(world.direct_families(b, a), [expected], "{case}");
                if policies[0] != Auto && by == 1 {
                    assert_eq!(families(&outcome), [Some(expected)], "{case}");
                }
            }
        }
    }
}

#[test]
fn a_circuit_goes_over_the_leg_of_the_preferred_family_if_that_is_a_moment_later() {
    use FamilyPolicy::{PreferIp4, PreferIp6};
    // A moment is longer where the relay is further away.
    for (family, slow, delay, by) in [
        (PreferIp6, Family::Ip6, 10, 5),
        (PreferIp4, Family::Ip4, 10, 5),
        (PreferIp6, Family::Ip6, 300, 250),
        (PreferIp4, Family::Ip4, 300, 250),
    ] {
        let mut world = World::new(5);
        let relay = world.relay(Settings::default());
        let b = world.node(dual(relay, Nat::FullCone));
        world.until_reserved();
        let slow = (slow, Duration::from_millis(by));
        world.network().slow.extend([slow]);
        let a = world.node(NodeSetup {
            family,
            punches: false,
            introductions: false,
            ..dual(relay, Nat::FullCone)
        });
        world.set_delay(a, Duration::from_millis(delay));
        let dial = world.dial(a, b);
        let outcome = world.outcome(dial);
        assert_eq!(outcome.outcome, Reached::Relayed);
        assert_eq!(families(&outcome), [Some(slow.0); 2]);
    }
}

#[test]
fn a_node_that_prefers_a_family_it_lacks_waits_for_nothing() {
    let mut world = World::new(6);
    let relay = world.relay(Settings::default());
    let [a, b] = [(); 2].map(|()| {
        world.node(NodeSetup {
            family: FamilyPolicy::PreferIp6,
            ..NodeSetup::behind(Nat::FullCone, &[relay])
        })
    });
    world.until_reserved();
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!(families(&outcome), [Some(Family::Ip4)]);
    let after = outcome.t - outcome.time_to_direct.unwrap();
    assert!(after < Duration::from_millis(250), "{after:?}");
}
