use p2pnode_transports::Transport;

use super::{pair, seconds};
use crate::{
    core::event::Event,
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

/// How often another host with the key was reported, and how often that it is gone.
fn reports(world: &World, node: usize) -> (usize, usize) {
    let events = world.events(node);
    let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
    (
        count(|event| matches!(event, Event::KeyShared { .. })),
        count(|event| matches!(event, Event::KeyAlone { .. })),
    )
}

fn is_shared(world: &World, node: usize) -> bool {
    world.node_of(node).state.key_elsewhere().is_some()
}

fn shared(world: &World, relay: usize) -> usize {
    let relay = world.relay_of(relay).unwrap();
    relay.state.totals().shared_keys
}

/// Two hosts with one key behind two NATs, one over QUIC and one over TCP.
fn twins(seed: u64) -> (World, usize, [usize; 2]) {
    let (mut world, relay, [a, _]) = pair(seed, Nat::PortRestricted, Nat::FullCone);
    let b = world.node(NodeSetup {
        transports: vec![Transport::Tcp],
        ..NodeSetup::behind(Nat::Symmetric, &[relay])
    });
    world.copy_key(a, b);
    world.until_reserved();
    (world, relay, [a, b])
}

#[test]
fn both_hosts_of_one_key_and_the_relay_report_it_until_one_is_gone() {
    let (mut world, relay, nodes) = twins(1);
    world.until(seconds(90), "both know of the other", |world| {
        nodes.iter().all(|node| is_shared(world, *node))
    });
    assert_eq!(shared(&world, relay), 1);
    world.run(seconds(600));
    for node in nodes {
        assert_eq!(reports(&world, node), (1, 0), "{node}");
    }
    let [a, b] = nodes;
    world.crash(b);
    world.until(seconds(150), "the other is not seen any more", |world| {
        !is_shared(world, a) && shared(world, relay) == 0
    });
    assert_eq!(reports(&world, a), (1, 1));
}

#[test]
fn a_node_that_starts_again_or_changes_its_nat_is_one_host() {
    let (mut world, relay, [a, b]) = pair(2, Nat::PortRestricted, Nat::FullCone);
    for _ in 0..4 {
        world.restart(a);
        world.restart_nat(b);
        world.until_reserved();
        world.run(seconds(120));
        assert_eq!(shared(&world, relay), 0);
        assert!(!is_shared(&world, a) && !is_shared(&world, b));
    }
    assert_eq!(reports(&world, a), (0, 0));
    assert_eq!(reports(&world, b), (0, 0));
}
