//! Peers that are lost, and those that have gone.

use super::*;

/// A node that has dialed a peer over its relay, and whose dial is over. Returns the circuit.
fn reached() -> (Node, PeerId, ConnectionId, RelayAddr) {
    let (known, peer) = (relay(1), PeerId::random());
    let (mut node, _) = Node::with_relays(Settings {
        punches: false,
        ..settings(std::slice::from_ref(&known))
    });
    let circuit = node.dial_relayed(peer);
    node.ping_best(peer);
    node.pass(Duration::from_secs(2));
    assert_eq!(node.results().len(), 1);
    node.actions();
    (node, peer, circuit, known)
}

fn redials(node: &mut Node, peer: PeerId) -> usize {
    let dials = node.dials().into_iter();
    dials
        .filter(
            |(_, _, purpose)| matches!(purpose, Purpose::Reconnect { peer: of, .. } if *of == peer),
        )
        .count()
}

#[test]
fn a_peer_that_a_dial_has_reached_is_dialed_again_when_its_last_connection_breaks() {
    let (mut node, peer, circuit, known) = reached();
    let second = node.accepted(peer, "/ip4/192.0.2.7/tcp/40000");
    node.closed(circuit, peer, Ended::Broken);
    assert_eq!(redials(&mut node, peer), 0, "another one is open");
    node.closed(second, peer, Ended::Broken);
    let (_, addresses, purpose) = node.dials().remove(0);
    let relay = Some(known.peer);
    assert_eq!(purpose, Purpose::Reconnect { peer, relay });
    assert_eq!(addresses, [circuit_addr(&known, peer)]);
}

#[test]
fn a_peer_that_closes_a_direct_path_that_answers_is_left_alone_and_then_dialed() {
    let (mut node, peer, circuit, _) = reached();
    let direct = node.accepted(peer, "/ip4/192.0.2.7/tcp/40000");
    node.closed(circuit, peer, Ended::Ours);
    node.pass(Duration::from_secs(9));
    node.ping(peer, direct, false);
    node.closed(direct, peer, Ended::Theirs);
    node.pass(Duration::from_secs(14));
    assert_eq!(redials(&mut node, peer), 0);
    node.pass(Duration::from_secs(17));
    assert!(redials(&mut node, peer) > 0);
}

#[test]
fn a_peer_that_closes_a_direct_path_that_has_been_silent_is_lost_and_dialed_again() {
    let (mut node, peer, circuit, _) = reached();
    let direct = node.accepted(peer, "/ip4/192.0.2.7/tcp/40000");
    node.closed(circuit, peer, Ended::Ours);
    node.pass(Duration::from_secs(9));
    node.closed(direct, peer, Ended::Theirs);
    assert_eq!(redials(&mut node, peer), 1);
}

#[test]
fn the_end_of_a_circuit_looks_like_that_of_its_relay_and_the_peer_is_dialed_again() {
    let (mut node, peer, circuit, _) = reached();
    node.closed(circuit, peer, Ended::Theirs);
    assert_eq!(redials(&mut node, peer), 1);
}

#[test]
fn what_this_node_closes_it_does_not_dial_again_unless_it_did_not_answer() {
    let (mut node, peer, circuit, _) = reached();
    node.closed(circuit, peer, Ended::Ours);
    assert_eq!(redials(&mut node, peer), 0);

    let (mut node, peer, circuit, _) = reached();
    for missed in 1..=2 {
        let event = ping::Event {
            peer,
            connection: circuit,
            result: Err(ping::Failure::Timeout),
            missed,
            asked: false,
        };
        node.state.handle_ping(event, node.now);
    }
    assert!(node.actions().contains(&Action::Close(circuit)));
    node.events();
    node.closed(circuit, peer, Ended::Ours);
    assert_eq!(redials(&mut node, peer), 1);
    let reasons: Vec<_> = node.events().into_iter().filter_map(why).collect();
    assert_eq!(reasons, ["no answer to pings"]);
}

/// Why a connection ended, if that is what the node reports.
fn why(event: Event) -> Option<String> {
    if let Event::Node(event::Event::Disconnected { reason, .. }) = event {
        Some(reason)
    } else {
        None
    }
}

#[test]
fn a_peer_that_no_dial_has_reached_is_not_dialed_when_it_goes() {
    let (mut node, _) = Node::with_relays(settings(&[relay(1)]));
    let peer = PeerId::random();
    let accepted = node.accepted(peer, "/ip4/192.0.2.7/tcp/40000");
    node.closed(accepted, peer, Ended::Broken);
    node.pass(Duration::from_secs(9));
    assert_eq!(redials(&mut node, peer), 0);
}

#[test]
fn a_dial_of_a_lost_peer_takes_over() {
    let (mut node, peer, circuit, _) = reached();
    node.closed(circuit, peer, Ended::Broken);
    assert_eq!(redials(&mut node, peer), 1);
    node.state.handle_dial(request(peer), node.now);
    node.pass(Duration::from_secs(9));
    assert_eq!(redials(&mut node, peer), 0);
}

#[test]
fn a_peer_that_is_forgotten_is_not_dialed_again() {
    let (mut node, peer, circuit, _) = reached();
    node.closed(circuit, peer, Ended::Broken);
    assert_eq!(redials(&mut node, peer), 1);
    assert_eq!(node.state.lost().count(), 1);
    assert!(node.state.handle_forget(peer));
    assert!(!node.state.handle_forget(peer), "it is not wanted");
    node.pass(Duration::from_secs(600));
    assert_eq!(
        (redials(&mut node, peer), node.state.lost().count()),
        (0, 0)
    );
}
