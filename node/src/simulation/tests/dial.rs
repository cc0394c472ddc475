use crate::{
    core::event::{FoundBy, Reached},
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

#[test]
fn two_nodes_of_one_relay_become_direct_and_the_circuit_goes() {
    let mut world = World::new(1);
    let relay = world.relay(Default::default());
    let a = world.node(NodeSetup::behind(Nat::PortRestricted, &[relay]));
    let b = world.node(NodeSetup::behind(Nat::PortRestricted, &[relay]));
    world.until_reserved();
    let dial = world.dial(a, b);
    let outcome = world.outcome(dial);
    assert_eq!(outcome.outcome, Reached::Direct);
    assert_eq!(outcome.found_by, Some(FoundBy::Relay));
    world.run(std::time::Duration::from_secs(10));
    assert!(world.are_direct(a, b));
}
