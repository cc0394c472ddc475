use std::{net::Ipv4Addr, time::Duration};

use p2pnode_transports::Transport;
use proptest::prelude::*;

use super::sim::{Nat, Network, Node, Word, World};
use crate::punch::{
    machine::{Event, Timing},
    record::{Outcome, Reason, Record, Role},
};

pub(super) const NATS: [Nat; 3] = [Nat::FullCone, Nat::PortRestricted, Nat::Symmetric];

pub(super) fn records(node: &Node) -> Vec<&Record> {
    node.events
        .iter()
        .filter_map(|(_, e)| {
            if let Event::Attempt(record) = e {
                Some(record.as_ref())
            } else {
                None
            }
        })
        .collect()
}

pub(super) fn gave_up(node: &Node) -> Vec<(Duration, Reason, Option<Duration>)> {
    let reason = |(at, event): &(Duration, Event)| match event {
        Event::GaveUp {
            reason, retry_in, ..
        } => Some((*at, *reason, *retry_in)),
        Event::Attempt(_)
        | Event::Direct { .. }
        | Event::Unvouched { .. }
        | Event::Listed { .. } => None,
    };
    node.events.iter().filter_map(reason).collect()
}

/// Runs until so many series of the initiator have failed. The next series is at least 20 s away then.
fn run_until_given_up(world: &mut World, times: usize) {
    while gave_up(&world.nodes[1]).len() < times {
        world.run_until(world.elapsed() + Duration::from_secs(1));
    }
}

pub(super) fn became_direct(node: &Node) -> Option<Duration> {
    node.events
        .iter()
        .find(|(_, e)| matches!(e, Event::Direct { .. }))
        .map(|(at, _)| *at)
}

pub(super) fn possible(a: Nat, b: Nat) -> bool {
    !matches!(
        (a, b),
        (Nat::Symmetric, Nat::Symmetric | Nat::PortRestricted)
            | (Nat::PortRestricted, Nat::Symmetric)
    )
}

pub(super) fn assert_one_direct(world: &World) {
    assert_eq!(
        world.nodes[0].direct, world.nodes[1].direct,
        "the sides disagree"
    );
    assert_eq!(world.nodes[0].direct.len(), 1);
    assert!(
        world.nodes.iter().all(|node| node.circuits.is_empty()),
        "a circuit is left"
    );
}

#[test]
fn every_pair_of_nats_that_can_be_punched_is_direct_at_the_first_attempt_with_one_connection() {
    for a in NATS {
        for b in NATS {
            let mut world = World::new(Network::new(a, b));
            world.circuit(0, Duration::ZERO);
            world.run_until(Duration::from_secs(9));
            if possible(a, b) {
                assert_one_direct(&world);
                for node in &world.nodes {
                    assert_eq!(records(node).len(), 1, "{a:?} {b:?}");
                    assert!(
                        became_direct(node).unwrap() < Duration::from_millis(300),
                        "{a:?} {b:?}"
                    );
                }
            } else {
                assert!(world.shared().is_empty(), "{a:?} {b:?}");
            }
        }
    }
}

#[test]
fn a_pair_that_cannot_be_punched_rests_on_the_ladder_after_three_attempts() {
    let mut world = World::new(Network::new(Nat::Symmetric, Nat::PortRestricted));
    world.circuit(0, Duration::ZERO);
    run_until_given_up(&mut world, 6);
    let initiator = &world.nodes[1];
    let pauses: Vec<u64> = gave_up(initiator)
        .iter()
        .map(|(_, _, pause)| pause.unwrap().as_secs())
        .collect();
    assert!((24..36).contains(&pauses[0]), "{pauses:?}");
    assert!((96..144).contains(&pauses[1]), "{pauses:?}");
    assert!(
        pauses[2..].iter().all(|p| (480..720).contains(p)),
        "{pauses:?}"
    );
    let attempts = records(initiator).len();
    assert_eq!(attempts, 3 * pauses.len());
    assert_eq!(initiator.dial_count, attempts);
    assert!(
        gave_up(&world.nodes[0])
            .iter()
            .all(|(_, reason, _)| *reason == Reason::Timeout)
    );
    assert_eq!(world.nodes[0].circuits.len(), 1, "the circuit stays");
}

#[test]
fn a_series_goes_from_quic_to_tcp_to_everything_on_both_sides() {
    let mut world = World::new(Network::new(Nat::Symmetric, Nat::Symmetric));
    world.circuit(0, Duration::ZERO);
    world.run_until(Duration::from_secs(35));
    for node in &world.nodes {
        let transports: Vec<Vec<Transport>> = node
            .dialed_kinds
            .iter()
            .map(|k| k.iter().copied().collect())
            .collect();
        assert_eq!(
            transports[..3],
            [
                vec![Transport::Quic],
                vec![Transport::Tcp],
                vec![Transport::Quic, Transport::Tcp]
            ]
        );
    }
}

#[test]
fn the_last_dial_of_a_responder_has_the_other_role_if_the_initiator_is_of_another_make() {
    for (knows_rtt, last) in [(true, Role::Responder), (false, Role::Initiator)] {
        let mut world = World::new(Network {
            knows_rtt: [true, knows_rtt],
            ..Network::new(Nat::Symmetric, Nat::Symmetric)
        });
        world.circuit(0, Duration::ZERO);
        world.run_until(Duration::from_secs(40));
        let roles = &world.nodes[0].dialed_roles[..3];
        assert_eq!(roles, [Role::Responder, Role::Responder, last]);
        assert_eq!(world.nodes[1].dialed_roles[..3], [Role::Initiator; 3]);
    }
}

#[test]
fn where_quic_is_blocked_the_second_attempt_is_direct_over_tcp() {
    let mut world = World::new(Network {
        blocked: vec![Transport::Quic],
        ..Network::new(Nat::PortRestricted, Nat::PortRestricted)
    });
    world.circuit(0, Duration::ZERO);
    world.run_until(Duration::from_secs(20));
    assert_one_direct(&world);
    assert_eq!(records(&world.nodes[1]).len(), 2);
}

#[test]
fn a_side_without_quic_is_punched_over_tcp_at_once() {
    let transports = [vec![Transport::Quic, Transport::Tcp], vec![Transport::Tcp]];
    let mut world = World::new(Network {
        transports,
        ..Network::new(Nat::PortRestricted, Nat::PortRestricted)
    });
    world.circuit(0, Duration::ZERO);
    world.run_until(Duration::from_secs(10));
    assert_one_direct(&world);
    assert_eq!(records(&world.nodes[0]).len(), 1);
}

#[test]
fn candidates_that_come_three_seconds_late_on_either_side_are_waited_for() {
    for late in [[3, 0], [0, 3], [3, 3]] {
        let observed_after = late.map(Duration::from_secs);
        let mut world = World::new(Network {
            observed_after,
            ..Network::new(Nat::PortRestricted, Nat::PortRestricted)
        });
        world.circuit(0, Duration::ZERO);
        world.run_until(Duration::from_secs(20));
        assert_one_direct(&world);
        assert!(
            became_direct(&world.nodes[0]).unwrap() < Duration::from_secs(7),
            "{late:?}"
        );
    }
}

#[test]
fn a_node_without_candidates_says_so_and_punches_when_one_appears() {
    for node in [0, 1] {
        let mut observed_after = [Duration::ZERO; 2];
        observed_after[node] = Duration::from_secs(50);
        let mut world = World::new(Network {
            observed_after,
            ..Network::new(Nat::PortRestricted, Nat::PortRestricted)
        });
        world.circuit(0, Duration::ZERO);
        world.run_until(Duration::from_secs(49));
        assert!(world.shared().is_empty());
        assert!(!gave_up(&world.nodes[1]).is_empty());
        world.run_until(Duration::from_secs(62));
        assert_one_direct(&world);
    }
}

#[test]
fn a_new_address_on_either_side_cuts_the_pause_short() {
    for node in [0, 1] {
        let mut world = World::new(Network::new(Nat::Symmetric, Nat::Symmetric));
        world.circuit(0, Duration::ZERO);
        run_until_given_up(&mut world, 3);
        world.network.nats = [Nat::FullCone; 2];
        let before = world.nodes[1].dial_count;
        world.change_address(node, Ipv4Addr::new(203, 0, 113, 9));
        world.run_until(world.elapsed() + Duration::from_secs(3));
        assert!(
            world.nodes[1].dial_count > before,
            "node {node} brings no attempt"
        );
        assert!(!world.shared().is_empty());
    }
}

#[test]
fn both_sides_dial_each_other_at_once_and_one_connection_lives() {
    let mut world = World::new(Network::new(Nat::PortRestricted, Nat::PortRestricted));
    world.circuit(0, Duration::ZERO);
    world.circuit(1, Duration::ZERO);
    world.run_until(Duration::from_secs(12));
    assert_one_direct(&world);
}

#[test]
fn a_direct_connection_that_is_lost_while_a_circuit_is_open_is_punched_again() {
    let timing = Timing {
        grace: Duration::from_secs(60),
        ..Timing::default()
    };
    let mut world = World::with_timing(
        Network::new(Nat::PortRestricted, Nat::PortRestricted),
        &timing,
    );
    world.circuit(0, Duration::ZERO);
    world.run_until(Duration::from_secs(10));
    world.cut_direct();
    world.run_until(Duration::from_secs(40));
    assert_eq!(world.shared().len(), 1);
}

#[test]
fn a_circuit_that_dies_in_the_handshake_ends_the_attempt_and_the_next_circuit_gets_direct() {
    let mut world = World::new(Network::new(Nat::PortRestricted, Nat::PortRestricted));
    world.circuit(0, Duration::ZERO);
    world.run_until(Duration::from_millis(70));
    world.cut_circuits();
    world.circuit(0, Duration::from_secs(3));
    world.run_until(Duration::from_secs(20));
    assert_one_direct(&world);
    let lost = records(&world.nodes[1])[0];
    assert_eq!(lost.outcome, Outcome::Failed(Reason::CircuitLost));
}

/// Runs a punch and returns when each side dialed. The circuit is open after 30 ms, and each message takes as long.
fn dialed_at(knows_rtt: [bool; 2]) -> [Duration; 2] {
    let mut world = World::new(Network {
        knows_rtt,
        ..Network::new(Nat::PortRestricted, Nat::PortRestricted)
    });
    world.circuit(0, Duration::ZERO);
    world.run_until(Duration::from_secs(10));
    assert_one_direct(&world);
    let record = records(&world.nodes[1])[0];
    assert_eq!(record.role, Role::Initiator);
    assert_eq!(record.rtt, Some(Duration::from_millis(60)));
    world.nodes.each_ref().map(|node| node.dialed_at[0])
}

#[test]
fn the_dials_cross_when_the_answer_arrives_between_our_own_and_when_sync_arrives_with_another() {
    let answer = [Duration::from_millis(90); 2];
    let sync = [Duration::from_millis(120); 2];
    assert_eq!(dialed_at([true, true]), answer);
    assert_eq!(dialed_at([false, true]), sync);
    assert_eq!(dialed_at([true, false]), sync);
    assert_eq!(dialed_at([false, false]), sync);
}

fn network() -> impl Strategy<Value = Network> {
    let transports = || {
        prop::sample::select(vec![
            vec![Transport::Quic],
            vec![Transport::Tcp],
            vec![Transport::Quic, Transport::Tcp],
        ])
    };
    (
        [
            prop::sample::select(NATS.to_vec()),
            prop::sample::select(NATS.to_vec()),
        ],
        [transports(), transports()],
        (1..200_u64, 1..300_u64, 0..100_u64),
        0..20_u64,
        [0..5000_u64, 0..5000_u64],
        any::<[bool; 2]>(),
        any::<u64>(),
    )
        .prop_map(
            |(nats, transports, (direct, relayed, jitter), loss, late, knows_rtt, seed)| Network {
                nats,
                transports,
                direct: Duration::from_millis(direct),
                relayed: Duration::from_millis(relayed),
                jitter: Duration::from_millis(jitter),
                loss,
                observed_after: late.map(Duration::from_millis),
                knows_rtt,
                seed,
                ..Network::new(Nat::FullCone, Nat::FullCone)
            },
        )
}

/// What becomes of a relay's word to one side.
fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        Just(Word::Lost),
        (0..2000_u64).prop_map(|millis| Word::After(Duration::from_millis(millis))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// The world itself asserts that no direct peer is punched, and that of two sides that were direct none is left without
    /// a connection.
    #[test]
    fn the_sides_agree_on_one_connection_and_never_lose_the_last(
        network in network(),
        crossed in prop::option::of(0..3000_u64),
        introduced in prop::collection::vec((0..2_usize, 0..3000_u64, [word(), word()]), 0..3),
    ) {
        let [a, b] = network.nats;
        let common = network.transports[0].iter().any(|transport| network.transports[1].contains(transport));
        let mut world = World::new(network);
        world.circuit(0, Duration::ZERO);
        if let Some(after) = crossed {
            world.circuit(1, Duration::from_millis(after));
        }
        for (asker, after, words) in introduced {
            world.introduce(asker, Duration::from_millis(after), words);
        }
        world.run_until(Duration::from_secs(300));
        prop_assert_eq!(&world.nodes[0].direct, &world.nodes[1].direct);
        prop_assert!(world.nodes[0].direct.len() <= 1);
        if possible(a, b) && common {
            prop_assert_eq!(world.nodes[0].direct.len(), 1);
            prop_assert!(world.nodes.iter().all(|node| node.circuits.is_empty()));
        }
        for node in &world.nodes {
            prop_assert!(node.dial_count <= 40);
        }
    }
}
