//! Relays that admit this node, or do not.

use p2pnode_protocol::join::{Refusal, Token, TokenId};

use super::*;
use crate::core::tokens::Tokens;

/// A node whose relay is connected and has not answered yet, with a dial whose circuit that relay has refused.
fn refused_early() -> (Node, (ConnectionId, PeerId), PeerId) {
    let (known, peer) = (relay(1), PeerId::random());
    let mut node = Node::new(settings(&[known]));
    let leg = node.connect_legs().remove(0);
    node.state.handle_dial(request(peer), node.now);
    let (id, _, purpose) = node.dials().remove(0);
    assert!(matches!(purpose, Purpose::Circuit { .. }));
    let refused = failure(CircuitFailure::Refused, "no permission");
    node.state.handle_dial_failed(id, refused, node.now);
    end_lookups(&mut node);
    assert_eq!(node.results(), [], "the relay may be about to say why");
    (node, leg, peer)
}

/// No relay knows a record.
fn end_lookups(node: &mut Node) {
    let lookups: Vec<QueryId> = node.state.lookups.keys().copied().collect();
    for query in lookups {
        node.state.handle_lookup_ended(query, node.now);
    }
}

/// No relay introduces.
fn end_introductions(node: &mut Node, relay: PeerId, peer: PeerId, leg: ConnectionId) {
    let request = crate::core::introductions::IntroductionRequest { peer, relay };
    let reply = p2pnode_protocol::introduction::IntroductionReply::NoAnswer;
    node.state
        .handle_introduction_reply(request, leg, reply, node.now);
}

#[test]
fn a_circuit_that_is_refused_before_its_relay_refuses_the_node_fails_for_that_reason() {
    let (mut node, (leg, relay), peer) = refused_early();
    end_introductions(&mut node, relay, peer, leg);
    node.join_reply((leg, relay), JoinReply::Refused(Refusal::NoToken));
    let reason = node.results()[0].reason.clone().unwrap().to_string();
    assert!(reason.contains("refused us: no token"), "{reason}");
    assert!(node.actions().contains(&Action::Close(leg)));
}

#[test]
fn a_circuit_that_is_refused_before_its_relay_admits_the_node_fails_for_its_own_reason() {
    let (mut node, (leg, relay), peer) = refused_early();
    end_introductions(&mut node, relay, peer, leg);
    node.join_reply((leg, relay), JoinReply::Admitted);
    let reason = node.results()[0].reason.clone().unwrap().to_string();
    assert_eq!(reason, "no permission");
}

#[test]
fn a_withheld_refusal_ends_also_where_the_relay_does_not_take_a_new_token() {
    let (mut node, (leg, relay), peer) = refused_early();
    end_introductions(&mut node, relay, peer, leg);
    let (reply, wall) = (JoinReply::Refused(Refusal::Expired), SystemTime::UNIX_EPOCH);
    node.state
        .handle_join_reply(relay, leg, true, reply, node.now, wall);
    assert_eq!(node.results().len(), 1);
    assert!(!node.actions().contains(&Action::Close(leg)));
}

#[test]
fn a_new_token_is_presented_on_the_leg_that_is_up() {
    let key = libp2p::identity::Keypair::generate_ed25519();
    let known = RelayAddr {
        peer: key.public().to_peer_id(),
        ..relay(1)
    };
    let configured = settings(std::slice::from_ref(&known));
    let local = configured.local;
    let read = |text: &str| Tokens::new(text, std::path::Path::new("/etc/tokens"), local).unwrap();
    let mut node = Node::new(Settings {
        tokens: Some(read("")),
        ..configured
    });
    let (leg, _) = node.connect_legs().remove(0);
    let join = |token: Option<&String>, again| {
        Action::Join(JoinRequest {
            relay: known.peer,
            connection: leg,
            token: token.cloned(),
            again,
        })
    };
    assert!(node.actions().contains(&join(None, false)));
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
    let token = Token::sign(&key, TokenId::new(1), &local, expires).unwrap();
    node.state.handle_tokens(read(&token), node.now);
    assert!(node.actions().contains(&join(Some(&token), true)));
    node.state.handle_tokens(read(&token), node.now);
    assert_eq!(node.actions(), [], "it is the same");
}
