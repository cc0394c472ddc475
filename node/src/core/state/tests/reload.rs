//! Access rules that change while the node runs.

use super::*;

#[test]
fn a_peer_that_is_no_longer_allowed_is_disconnected_and_another_is_not() {
    let (relay, friend, other) = (relay(1), PeerId::random(), PeerId::random());
    let mut node = Node::new(Settings {
        allowed: Some([friend, other, relay.peer].into()),
        introducers: BTreeSet::new(),
        ..settings(std::slice::from_ref(&relay))
    });
    node.accepted(friend, "/ip4/198.51.100.1/tcp/4001");
    let gone = node.accepted(other, "/ip4/198.51.100.2/tcp/4001");
    node.actions();
    let allowed = BTreeSet::from([friend, relay.peer]);
    node.state
        .handle_access(Some(allowed.clone()), BTreeSet::new());
    let actions = node.actions();
    let set = Action::SetAccess {
        allowed: Some(allowed.clone()),
        named: allowed,
    };
    assert_eq!(actions[..2], [set, Action::Close(gone)]);
    assert!(!node.state.is_allowed(&other) && node.state.is_allowed(&friend));
}

#[test]
fn a_node_that_closes_takes_no_introductions_and_connects_to_its_relays_again() {
    let relay = relay(1);
    let mut node = Node::new(settings(std::slice::from_ref(&relay)));
    let leg = node.dials().first().unwrap().0;
    node.dialed(leg, relay.peer, &relay.addr);
    let friend = PeerId::random();
    node.actions();
    let allowed = Some(BTreeSet::from([friend, relay.peer]));
    node.state.handle_access(allowed, BTreeSet::new());
    let actions = node.actions();
    assert!(actions.contains(&Action::Close(leg)), "{actions:?}");
    node.state.handle_access(None, BTreeSet::from([relay.peer]));
    let named = BTreeSet::from([relay.peer]);
    assert!(node.actions().contains(&Action::SetAccess {
        allowed: None,
        named
    }));
}
