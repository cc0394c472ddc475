//! Introductions, on both sides.

use p2pnode_protocol::introduction::{Introduction, IntroductionReply, Notice, Refusal};

use super::*;
use crate::{
    core::introductions::IntroductionRequest,
    punch::{Introduced, IntroductionResponse},
};

fn introduction() -> Introduction {
    Introduction {
        addrs: vec!["/ip4/192.0.2.9/udp/7/quic-v1".parse().unwrap()],
        own_addrs: Vec::new(),
    }
}

/// A node that dials a peer and has asked its relay for an introduction on this leg.
fn asking() -> (Node, IntroductionRequest, ConnectionId) {
    let (known, peer) = (relay(1), PeerId::random());
    let (mut node, legs) = Node::with_relays(settings(std::slice::from_ref(&known)));
    node.state.handle_dial(request(peer), node.now);
    let actions = node.actions();
    let request = IntroductionRequest {
        peer,
        relay: known.peer,
    };
    let asked = actions.iter().position(|action| {
        *action
            == Action::AskIntroduction {
                request,
                connection: legs[0],
            }
    });
    let dialed = actions
        .iter()
        .position(|action| matches!(action, Action::Dial { .. }));
    assert!(asked.unwrap() < dialed.unwrap(), "before the circuit");
    (node, request, legs[0])
}

fn introduced(relay: PeerId, peer: PeerId, asked: bool) -> Action {
    Action::Punch(Introduced {
        relay,
        peer,
        asked,
        addrs: introduction().addrs,
        own_addrs: introduction().own_addrs,
    })
}

#[test]
fn a_peer_that_a_relay_introduces_is_punched_while_it_is_dialed() {
    let (mut node, request, leg) = asking();
    let reply = IntroductionReply::Introduced(introduction());
    node.state
        .handle_introduction_reply(request, leg, reply.clone(), node.now);
    assert!(
        node.actions()
            .contains(&introduced(request.relay, request.peer, true))
    );
    // The answer comes once.
    node.state
        .handle_introduction_reply(request, leg, reply, node.now);
    assert_eq!(node.actions(), []);
}

#[test]
fn a_peer_that_is_dialed_no_longer_is_not_punched() {
    let (mut node, request, leg) = asking();
    node.pass(Duration::from_secs(31));
    node.actions();
    let reply = IntroductionReply::Introduced(introduction());
    node.state
        .handle_introduction_reply(request, leg, reply, node.now);
    assert_eq!(node.actions(), []);
}

#[test]
fn a_dial_ends_when_its_introduction_does_and_there_is_nothing_else() {
    let (mut node, request, leg) = asking();
    let circuit = node.state.purposes.len();
    assert_eq!(
        circuit, 0,
        "the circuit's dial is not under way in this test"
    );
    let queries: Vec<QueryId> = node.state.lookups.keys().copied().collect();
    for query in queries {
        node.state.handle_lookup_ended(query, node.now);
    }
    let id = node.next_id();
    let (peer, relay) = (request.peer, request.relay);
    node.state
        .handle_dialing(id, Purpose::Circuit { peer, relay });
    let refused = failure(CircuitFailure::Refused, "full");
    node.state.handle_dial_failed(id, refused, node.now);
    assert_eq!(node.results(), [], "a punch may come of the introduction");
    node.closed(leg, relay, Ended::Broken);
    let reason = node.results()[0].reason.clone().unwrap();
    assert_eq!(reason.to_string(), "full");
}

#[test]
fn where_nothing_was_in_common_the_relay_is_asked_again_on_its_next_connection() {
    let (mut node, request, leg) = asking();
    let reply = IntroductionReply::Refused(Refusal::NothingInCommon);
    node.state
        .handle_introduction_reply(request, leg, reply, node.now);
    node.actions();
    node.closed(leg, request.relay, Ended::Broken);
    node.pass(Duration::from_secs(2));
    let legs = node.connect_legs();
    let connection = legs[0].0;
    let asked = Action::AskIntroduction {
        request,
        connection,
    };
    assert!(node.actions().contains(&asked));
}

#[test]
fn a_peer_that_asks_for_this_node_is_punched_if_it_may_connect() {
    let (known, friend) = (relay(1), PeerId::random());
    let (mut node, _) = Node::with_relays(Settings {
        allowed: Some(BTreeSet::from([known.peer, friend])),
        ..settings(std::slice::from_ref(&known))
    });
    let notice = |peer| Notice {
        peer,
        introduction: introduction(),
        search: None,
    };
    let stranger = notice(PeerId::random());
    node.state
        .handle_introduction(known.peer, stranger, node.now);
    assert_eq!(node.actions(), []);
    node.state
        .handle_introduction(known.peer, notice(friend), node.now);
    assert_eq!(node.actions(), [introduced(known.peer, friend, false)]);
    node.state
        .handle_introduced(friend, false, IntroductionResponse::Ignored, node.now);
    assert_eq!(node.events(), []);
    node.state
        .handle_introduced(friend, false, IntroductionResponse::Punches, node.now);
    assert_eq!(node.events(), [Event::Wanted(friend)]);
}

#[test]
fn a_relay_that_introduces_nobody_is_not_asked() {
    let (known, peer) = (relay(1), PeerId::random());
    let (mut node, _) = Node::with_relays(Settings {
        introducers: BTreeSet::new(),
        ..settings(&[known])
    });
    node.state.handle_dial(request(peer), node.now);
    let asks = |action: &Action| matches!(action, Action::AskIntroduction { .. });
    assert!(!node.actions().iter().any(asks));
}
