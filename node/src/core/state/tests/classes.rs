//! What each peer may make the node hold.

use p2pnode_transports::Class;

use super::*;

fn classes(node: &mut Node) -> Vec<(PeerId, Class)> {
    let actions = node.actions().into_iter();
    let classes = actions.filter_map(|action| {
        let Action::Classify { peer, class } = action else {
            return None;
        };
        Some((peer, class))
    });
    classes.collect()
}

#[test]
fn relays_and_named_peers_are_known_from_the_beginning() {
    let (relay, friend) = (relay(1), PeerId::random());
    let mut node = Node::new(Settings {
        allowed: Some([friend, relay.peer].into()),
        ..settings(std::slice::from_ref(&relay))
    });
    let mut known = classes(&mut node);
    known.sort();
    let mut expected = [(relay.peer, Class::Known), (friend, Class::Known)];
    expected.sort();
    assert_eq!(known, expected);
}

#[test]
fn a_peer_that_calls_is_a_stranger_and_one_that_is_dialed_is_known_while_it_is_wanted() {
    let mut node = Node::new(settings(&[]));
    let [caller, peer] = [(); 2].map(|()| PeerId::random());
    node.accepted(caller, "/ip4/198.51.100.1/tcp/4001");
    assert_eq!(classes(&mut node), []);
    let addr: Multiaddr = "/ip4/198.51.100.2/tcp/4001".parse().unwrap();
    let dial = Request {
        addrs: vec![addr.clone()],
        ..request(peer)
    };
    let id = node.state.handle_dial(dial, node.now);
    assert_eq!(classes(&mut node), [(peer, Class::Known)]);
    node.state.handle_dial_abandoned(id, node.now);
    assert_eq!(classes(&mut node), [(peer, Class::Stranger)]);
}

#[test]
fn a_relay_carries_as_long_as_a_circuit_goes_over_it() {
    let (relay, peer) = (relay(1), PeerId::random());
    let mut node = Node::new(settings(std::slice::from_ref(&relay)));
    let leg = node.dials().first().unwrap().0;
    node.dialed(leg, relay.peer, &relay.addr);
    assert_eq!(classes(&mut node), []);
    let circuit = node.next_id();
    node.dialed(circuit, peer, &circuit_addr(&relay, peer));
    assert_eq!(classes(&mut node), [(relay.peer, Class::Carrying)]);
    let closed = Closed {
        connection: circuit,
        peer,
        ended: Ended::Ours,
        reason: String::new(),
    };
    node.state.handle_closed(closed, node.now);
    assert_eq!(classes(&mut node), [(relay.peer, Class::Known)]);
}
