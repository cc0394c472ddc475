//! Admission: the list, tokens, and rules that change.

use p2pnode_protocol::join::{self, Token, TokenId};

use super::*;
use crate::core::{admission::Refused, denied::Denied};

const HOUR: Duration = Duration::from_secs(3600);

fn tokens(allow: &[PeerId]) -> Settings {
    Settings {
        access: Access {
            allow: allow.to_vec(),
            tokens: true,
            ..Access::default()
        },
        ..Settings::default()
    }
}

/// A token of `relay` for `peer` that lives for an hour.
fn token(relay: &Relay, peer: &PeerId) -> String {
    let expires = relay.now.wall + HOUR;
    Token::sign(&relay.key, TokenId::new(1), peer, expires).unwrap()
}

#[test]
fn a_list_refuses_others_when_their_handshake_is_over() {
    let [friend, stranger] = peers();
    let mut relay = Relay::new(Settings {
        access: Access {
            allow: vec![friend],
            ..Access::default()
        },
        ..Settings::default()
    });
    let from = host(1);
    let refused = Err(Denied::NotAdmitted(Refused::NotAllowed));
    assert_eq!(
        relay
            .state
            .handle_authenticated(&friend, Some(&from), relay.now),
        Ok(())
    );
    assert_eq!(
        relay
            .state
            .handle_authenticated(&stranger, Some(&from), relay.now),
        refused
    );
    assert_eq!(
        relay.state.handle_authenticated(&stranger, None, relay.now),
        refused
    );
}

#[test]
fn who_has_presented_no_token_gets_nothing_and_is_let_go_after_five_seconds() {
    let mut relay = Relay::new(tokens(&[]));
    let [member, stranger] = peers();
    relay.connect(1, member, 1);
    relay.connect(2, stranger, 2);
    let token = token(&relay, &member);
    let answer = relay.state.handle_join(member, Some(&token), relay.now);
    assert!(matches!(answer, join::Answer::Admitted(_)), "{answer:?}");
    assert_eq!(
        relay.reserve(2, stranger),
        Err(Refusal::NotAdmitted(Refused::NoToken))
    );
    relay.reserve(1, member).unwrap();
    assert_eq!(
        relay.circuit(2, stranger, member),
        Err(Refusal::NotAdmitted(Refused::NoToken))
    );
    assert_eq!(
        relay.state.admits(&stranger, relay.now.wall),
        Err(Refused::NoToken)
    );
    relay.actions();
    relay.pass(Duration::from_secs(4));
    assert_eq!(relay.actions(), []);
    relay.pass(Duration::from_secs(1));
    assert_eq!(relay.actions(), [Action::Close(id(2))]);
}

#[test]
fn the_end_of_a_token_ends_what_its_peer_has() {
    let mut relay = Relay::new(tokens(&[]));
    let [peer] = peers();
    relay.connect(1, peer, 1);
    let token = token(&relay, &peer);
    relay.state.handle_join(peer, Some(&token), relay.now);
    relay.reserve(1, peer).unwrap();
    relay.pass(HOUR - Duration::from_secs(1));
    relay.actions();
    relay.events();
    relay.pass(Duration::from_secs(1));
    assert_eq!(relay.actions(), [Action::Disconnect(peer)]);
    let refused = Refused::Expired;
    assert!(
        matches!(relay.events()[..], [Event::AdmissionEnded { refused: why, .. }] if why == refused)
    );
}

#[test]
fn a_wall_clock_that_jumps_ends_tokens_within_a_second() {
    let mut relay = Relay::new(tokens(&[]));
    let [peer] = peers();
    relay.connect(1, peer, 1);
    let token = token(&relay, &peer);
    relay.state.handle_join(peer, Some(&token), relay.now);
    relay.pass(Duration::from_secs(10));
    relay.actions();
    relay.now.wall += 24 * HOUR;
    relay.pass(Duration::from_secs(1));
    assert_eq!(relay.actions(), [Action::Disconnect(peer)]);
}

#[test]
fn other_rules_let_go_of_those_whom_they_do_not_admit_and_of_nobody_else() {
    let mut relay = Relay::new(Settings::default());
    let (kept, dropped) = (relay.member(1, 1), relay.member(2, 2));
    relay.actions();
    relay.events();
    let list = |allow: &[PeerId]| Access {
        allow: allow.to_vec(),
        ..Access::default()
    };
    relay.state.handle_access(&list(&[kept]), relay.now);
    assert_eq!(relay.actions(), [Action::Disconnect(dropped)]);
    let events = relay.events();
    assert!(
        matches!(
            &events[..],
            [
                Event::AdmissionEnded { .. },
                Event::AccessChanged { opens: false, disconnected: 1, difference, .. }
            ] if difference.allowed == 1
        ),
        "{events:?}"
    );
    relay.close(2, dropped);
    relay.state.handle_access(&list(&[]), relay.now);
    assert!(relay.events().iter().any(|event| matches!(
        event,
        Event::AccessChanged {
            opens: true,
            disconnected: 0,
            ..
        }
    )));
}

#[test]
fn an_open_relay_has_nothing_to_look_after() {
    let mut relay = Relay::new(Settings::default());
    let [peer] = peers();
    relay.connect(1, peer, 1);
    assert_eq!(relay.state.poll_timeout(), None);
    let totals = relay.state.access_totals(relay.now.wall);
    assert!(totals.open && totals.waiting == 0 && totals.by_token == 0);
}
