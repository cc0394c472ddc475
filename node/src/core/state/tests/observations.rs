//! Which observation of a mapping is believed.

use super::*;

const OBSERVED: &str = "/ip4/198.51.100.9/udp/7/quic-v1";

fn observed(node: &mut Node, connection: ConnectionId, by: PeerId) -> bool {
    node.actions();
    let addr = OBSERVED.parse().unwrap();
    node.state.handle_identified(connection, by, addr, node.now);
    let is_observation =
        |action: &Action| matches!(action, Action::Observe(seen) if seen.connection == connection);
    node.actions().iter().any(is_observation)
}

#[test]
fn a_configured_relay_is_believed_about_a_connection_that_left_from_the_punch_port() {
    let known = relay(1);
    let mut node = Node::new(settings(std::slice::from_ref(&known)));
    let (leg, relay) = node.connect_legs()[0];
    assert!(observed(&mut node, leg, relay));
    node.closed(leg, relay, Ended::Broken);
    assert!(node.actions().contains(&Action::ForgetObservation(leg)));
}

#[test]
fn no_other_peer_is_believed() {
    let (mut node, peer) = (Node::new(settings(&[])), PeerId::random());
    let address = "/ip4/192.0.2.7/udp/443/quic-v1".parse().unwrap();
    let id = node.next_id();
    node.state.handle_dialing(id, Purpose::Direct(peer));
    node.dialed(id, peer, &address);
    assert!(!observed(&mut node, id, peer));
}

#[test]
fn a_relay_is_not_believed_about_another_port_nor_about_a_connection_that_it_has_made() {
    let known = relay(1);
    let mut node = Node::new(settings(std::slice::from_ref(&known)));
    let accepted = node.accepted(known.peer, "/ip4/203.0.113.1/tcp/50001");
    assert!(!observed(&mut node, accepted, known.peer));
    // The punch port was taken, and the leg left from the next port.
    let id = node.next_id();
    let local = Some("10.0.0.1:40001".parse().unwrap());
    node.established(id, known.peer, &known.addr, local);
    assert!(!observed(&mut node, id, known.peer));
}
