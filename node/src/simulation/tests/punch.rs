use p2pnode_transports::Transport;
use relay_node::core::Settings;

use super::{pair, seconds};
use crate::{
    core::{
        event::{Event, NotDirect, Reached},
        peers::PathKind,
    },
    punch::{AttemptEnd, By, Reason},
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

const NATS: [Nat; 7] = [
    Nat::None,
    Nat::Firewall,
    Nat::FullCone,
    Nat::AddressRestricted,
    Nat::PortRestricted,
    Nat::PortRewriting,
    Nat::Symmetric,
];

/// Whether one side's packets come from where the other side's NAT expects them, or that lets everybody in.
fn can_be_punched(a: Nat, b: Nat) -> bool {
    let by_port = |nat| {
        matches!(
            nat,
            Nat::Firewall | Nat::PortRestricted | Nat::PortRewriting
        )
    };
    match (a, b) {
        (Nat::Symmetric, Nat::Symmetric) => false,
        (Nat::Symmetric, other) | (other, Nat::Symmetric) => !by_port(other),
        _ => true,
    }
}

#[test]
fn introduced_nodes_are_direct_before_a_circuit_is_made() {
    let (mut world, _, [a, b]) = pair(1, Nat::PortRestricted, Nat::PortRewriting);
    let dial = world.dial(a, b);
    assert_eq!(world.outcome(dial).outcome, Reached::Direct);
    let mut reports = world.reports(dial).unwrap().into_iter();
    let first = reports.find_map(|event| {
        if let Event::Connected { path, .. } = event {
            return Some(path.kind);
        }
        None
    });
    assert_eq!(first, Some(PathKind::Direct));
    for node in [a, b] {
        let [attempt] = world.attempts(node) else {
            panic!("{:?}", world.attempts(node));
        };
        assert_eq!(
            (attempt.by(), attempt.outcome.ended()),
            (By::Introduction, AttemptEnd::Direct)
        );
    }
}

#[test]
fn nodes_that_nobody_introduces_are_punched_over_the_circuit() {
    let mut world = World::new(2);
    let relay = world.relay(Settings::default());
    let [a, b] = [(); 2].map(|()| {
        world.node(NodeSetup {
            introductions: false,
            ..NodeSetup::behind(Nat::PortRestricted, &[relay])
        })
    });
    world.until_reserved();
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!((outcome.outcome, outcome.attempts), (Reached::Direct, 1));
    assert!(
        world
            .attempts(a)
            .iter()
            .all(|attempt| attempt.by() == By::Dcutr)
    );
}

#[test]
fn a_punch_of_an_introduction_that_fails_is_followed_by_the_handshake_over_the_circuit() {
    let (mut world, _, [a, b]) = pair(3, Nat::PortRestricted, Nat::PortRestricted);
    world.network().cut(a, b, true);
    let dial = world.dial(a, b);
    world.run(seconds(6));
    world.network().heal();
    assert_eq!(world.outcome(dial).outcome, Reached::Direct);
    let attempts: Vec<_> = world
        .attempts(a)
        .iter()
        .map(|of| (of.by(), of.outcome.ended()))
        .collect();
    assert_eq!(attempts[0], (By::Introduction, AttemptEnd::Failed));
    assert_eq!(attempts.last(), Some(&(By::Dcutr, AttemptEnd::Direct)));
}

#[test]
fn a_symmetric_pair_stays_relayed_and_says_so() {
    let mut world = World::new(4);
    let relays: [usize; 2] = world.relays(&Settings::default());
    let [a, b] = [(); 2].map(|()| world.node(NodeSetup::behind(Nat::Symmetric, &relays)));
    world.until_reserved();
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.outcome, Reached::Relayed);
    assert_eq!(
        outcome.reason,
        Some(NotDirect::Punch(Reason::SymmetricBoth))
    );
    // A dial is a wish for a direct path: it is punched again, and the reason is the same.
    for (from, to) in [(a, b), (a, b), (b, a)] {
        let (before, dial) = (world.attempts(from).len(), world.dial(from, to));
        let outcome = world.outcome(dial);
        assert_eq!(
            outcome.reason,
            Some(NotDirect::Punch(Reason::SymmetricBoth)),
            "{outcome:?}"
        );
        assert!(outcome.attempts > 0, "{outcome:?}");
        assert!(world.attempts(from).len() > before);
        world.run(seconds(70));
    }
    world.run(seconds(200));
    assert_eq!(world.connections(a, b).0, 0);
    assert_ne!(world.connections(a, b).1, 0, "the circuit stays");
}

#[test]
fn a_dial_of_a_relayed_peer_punches_again_and_gets_through_if_the_way_is_free() {
    let (mut world, _, [a, b]) = pair(6, Nat::PortRestricted, Nat::PortRestricted);
    world.network().cut(a, b, true);
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.reason, Some(NotDirect::Punch(Reason::Timeout)));
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.reason, Some(NotDirect::Punch(Reason::Timeout)));
    assert!(outcome.attempts > 0, "{outcome:?}");
    world.network().heal();
    world.run(seconds(70));
    let dial = world.dial(a, b);
    assert_eq!(world.outcome(dial).outcome, Reached::Direct);
}

#[test]
fn each_pair_of_nats_is_direct_if_it_can_be() {
    for a_nat in NATS {
        for b_nat in NATS {
            let (mut world, _, [a, b]) = pair(5, a_nat, b_nat);
            let dial = world.dial(a, b);
            let reached = world.outcome(dial).outcome;
            let expected = match can_be_punched(a_nat, b_nat) {
                true => Reached::Direct,
                false => Reached::Relayed,
            };
            assert_eq!(reached, expected, "{a_nat:?} and {b_nat:?}");
        }
    }
}

#[test]
fn a_peer_that_leaves_after_its_punch_leaves_no_failed_attempt() {
    for introductions in [true, false] {
        let mut world = World::new(21);
        let relay = world.relay(Settings::default());
        let [a, b] = [(); 2].map(|()| {
            world.node(NodeSetup {
                introductions,
                ..NodeSetup::behind(Nat::PortRestricted, &[relay])
            })
        });
        world.until_reserved();
        let dial = world.dial(a, b);
        assert_eq!(world.outcome(dial).outcome, Reached::Direct);
        world.until(seconds(5), "both circuits and direct paths", |world| {
            let (direct, relayed) = world.connections(b, a);
            direct > 0 && relayed > 0
        });
        // The direct connections first.
        world.close_direct(a, b);
        world.stop(a);
        world.run(seconds(20));
        let failed: Vec<_> = world
            .attempts(b)
            .iter()
            .filter(|attempt| attempt.outcome.ended() != AttemptEnd::Direct)
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}

#[test]
fn a_relay_that_sees_another_port_than_the_punch_port_is_not_asked_for_an_introduction() {
    let mut world = World::new(1);
    let relay = world.relay(Settings::default());
    let [a, b] = [(); 2].map(|()| world.node(NodeSetup::behind(Nat::PortRestricted, &[relay])));
    world.hosts[a].dials_from = Some(world.hosts[a].port + 1);
    world.until_reserved();
    world.hosts[a].dials_from = None;
    let dial = world.dial(a, b);
    assert_eq!(world.outcome(dial).outcome, Reached::Relayed);
    for node in [a, b] {
        let by: Vec<_> = world.attempts(node).iter().map(|at| at.by()).collect();
        assert!(
            !by.is_empty() && by.iter().all(|by| *by == By::Dcutr),
            "{by:?}"
        );
    }
}

#[test]
fn a_leg_that_has_another_port_gets_a_second_one_and_the_pair_is_introduced_again() {
    let mut world = World::new(1);
    let relay = world.relay(Settings::default());
    let [a, b] = [(); 2].map(|()| {
        world.node(NodeSetup {
            transports: vec![Transport::Tcp],
            ..NodeSetup::behind(Nat::PortRestricted, &[relay])
        })
    });
    let port = world.hosts[a].port;
    world.hosts[a].dials_from = Some(port + 1);
    world.until_reserved();
    // Meanwhile the device on the way remembers the earlier connection.
    world.run(seconds(300));
    world.hosts[a].dials_from = None;
    world.run(seconds(40));
    let dial = world.dial(a, b);
    assert_eq!(world.outcome(dial).outcome, Reached::Direct);
    for node in [a, b] {
        let by: Vec<_> = world.attempts(node).iter().map(|at| at.by()).collect();
        assert_eq!(by, [By::Introduction]);
    }
    let lost = world.events(a).iter();
    let lost = lost.filter(|event| matches!(event, Event::ReservationLost { .. }));
    assert_eq!(lost.count(), 0);
}

#[test]
fn a_mapped_side_makes_pairs_direct_that_cannot_be_punched_whichever_side_dials() {
    for transports in [vec![Transport::Quic], vec![Transport::Quic, Transport::Tcp]] {
        for (mapped, other) in [
            (Nat::PortRestricted, Nat::Symmetric),
            (Nat::Symmetric, Nat::PortRestricted),
            (Nat::Symmetric, Nat::Symmetric),
            (Nat::PortRewriting, Nat::Symmetric),
        ] {
            for [from, to] in [[0, 1], [1, 0]] {
                let mut world = World::new(7);
                let relay = world.relay(Settings::default());
                let nodes = [mapped, other].map(|nat| {
                    world.node(NodeSetup {
                        transports: transports.clone(),
                        ..NodeSetup::behind(nat, &[relay])
                    })
                });
                world.map(nodes[0], 41_000);
                world.until_reserved();
                let dial = world.dial(nodes[from], nodes[to]);
                let outcome = world.outcome(dial);
                let case = (&transports, mapped, other, from);
                assert_eq!(outcome.outcome, Reached::Direct, "{case:?}: {outcome:?}");
            }
        }
    }
}
