//! Peers that do not admit a dialer, and peers that close what they accept.

use std::time::Duration;

use libp2p::PeerId;
use p2pnode_transports::Family;
use relay_node::core::Settings;

use super::seconds;
use crate::{
    core::{
        dialer::Until,
        event::{Event, NotDirect, Outcome, Reached},
    },
    simulation::{World, nat::Nat, scenario::NodeSetup, view::TIMEOUT},
};

/// Two relays, and two nodes on both, of which the second does not admit the first, or closes what it accepts after a while.
fn pair(seed: u64, allows: bool, hangs_up: Option<Duration>) -> (World, [usize; 2], [usize; 2]) {
    let mut world = World::new(seed);
    let relays = world.relays(&Settings::default());
    let a = world.node(NodeSetup::behind(Nat::PortRestricted, &relays));
    let b = world.node(NodeSetup {
        allowed: (!allows).then(Vec::new),
        hangs_up,
        ..NodeSetup::behind(Nat::PortRestricted, &relays)
    });
    world.until_reserved();
    (world, relays, [a, b])
}

fn circuits(world: &World, relays: [usize; 2]) -> usize {
    let asked = relays.map(|relay| world.relay_of(relay).unwrap().asked);
    asked.iter().sum()
}

fn reason(outcome: &Outcome) -> &str {
    assert_eq!(outcome.outcome, Reached::Unreachable, "{outcome:?}");
    match &outcome.reason {
        Some(NotDirect::Unreachable(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_that_does_not_admit_the_dialer_is_reported_as_that_at_once() {
    for until in [Until::Direct, Until::Connected] {
        let (mut world, relays, [a, b]) = pair(1, false, None);
        let peer = world.peer(b);
        let dial = world.dial_with(a, peer, &[], until);
        let outcome = world.outcome(dial);
        assert!(reason(&outcome).starts_with("refused: the peer closed 2 connections"));
        assert!(outcome.t < seconds(1), "{outcome:?}");
        world.run(seconds(120));
        assert!(
            circuits(&world, relays) <= 4,
            "{}",
            circuits(&world, relays)
        );
    }
}

#[test]
fn a_peer_that_does_not_admit_the_dialer_at_a_given_address_is_reported_as_that() {
    let mut world = World::new(2);
    let a = world.node(NodeSetup::behind(Nat::PortRestricted, &[]));
    let b = world.node(NodeSetup {
        allowed: Some(vec![]),
        ..NodeSetup::behind(Nat::None, &[])
    });
    let (peer, address) = (world.peer(b), world.address(b, Family::Ip4));
    let dial = world.dial_with(a, peer, &[address], Until::Direct);
    let outcome = world.outcome(dial);
    assert!(reason(&outcome).starts_with("refused: "), "{outcome:?}");
    assert!(outcome.t < seconds(1), "{outcome:?}");
}

#[test]
fn a_peer_that_closes_what_it_accepts_ends_the_dial_within_its_time_after_few_circuits() {
    let (mut world, relays, [a, b]) = pair(3, true, Some(Duration::from_millis(400)));
    world.network().cut(a, b, true);
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert!(
        reason(&outcome).starts_with("closed by peer: 5 times"),
        "{outcome:?}"
    );
    assert!(outcome.t < TIMEOUT, "{outcome:?}");
    assert!(
        circuits(&world, relays) <= 10,
        "{}",
        circuits(&world, relays)
    );
}

#[test]
fn dials_in_a_row_ask_for_the_same_circuit_twelve_times_a_minute() {
    let (mut world, relays, [a, b]) = pair(4, false, None);
    let mut dials = 0;
    let start = world.wall();
    while world.wall() < start + seconds(120) {
        let dial = world.dial(a, b);
        reason(&world.outcome(dial));
        dials += 1;
    }
    assert!(dials > 4, "{dials} dials");
    let asked = circuits(&world, relays);
    assert!(asked <= 2 * 3 * 12, "{asked} circuits");
}

#[test]
fn no_dial_outlives_its_time_whatever_is_lost_meanwhile() {
    for seed in 0..20 {
        let (mut world, relays, [a, b]) = pair(seed, true, None);
        let dial = world.dial(a, b);
        let nobody = world.dial_with(a, PeerId::random(), &[], Until::Direct);
        for turn in 0..12 {
            world.run(Duration::from_millis(300 + seed * 97));
            let relay = relays[turn % 2];
            world.crash(relay);
            world.run(Duration::from_millis(200 + seed * 53));
            world.start_again(relay);
        }
        world.run(TIMEOUT);
        for dial in [dial, nobody] {
            assert!(world.outcome(dial).t <= TIMEOUT);
            let reports = world.reports(dial).unwrap();
            assert!(matches!(reports.last(), Some(Event::Result(_))));
        }
    }
}
