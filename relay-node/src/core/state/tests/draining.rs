//! A relay that was asked to end.

use p2pnode_protocol::introduction;

use super::*;
use crate::core::{admission::Refused, denial::DenialReason};

fn draining(timeout: Duration) -> Settings {
    Settings {
        drain_timeout: timeout,
        ..Settings::default()
    }
}

const TIMEOUT: Duration = Duration::from_secs(25);

/// So few peers need not be spread.
const ANNOUNCE: Action = Action::AnnounceDrain {
    over: Duration::ZERO,
};

#[test]
fn a_relay_that_drains_refuses_everything_that_is_new_and_what_is_open_goes_on() {
    let mut relay = Relay::new(draining(TIMEOUT));
    let (one, two) = (relay.member(1, 1), relay.member(2, 2));
    let open = relay.open(1, one, two);
    relay.actions();
    relay.events();
    relay.state.handle_shutdown(relay.now);
    assert_eq!(relay.actions(), [ANNOUNCE]);
    assert_eq!(relay.reserve(1, one), Err(Refusal::Draining), "a renewal");
    assert_eq!(relay.circuit(1, one, two), Err(Refusal::Draining));
    let request = introduction::Request {
        peer: two,
        addrs: Vec::new(),
        search: None,
    };
    assert_eq!(
        relay
            .state
            .handle_introduction_request(one, &request, relay.now),
        introduction::Answer::Refused(introduction::Refusal::Draining)
    );
    let denied = relay.events().into_iter().filter(|event| {
        matches!(
            event,
            Event::ReservationDenied {
                reason: DenialReason::Draining,
                ..
            } | Event::CircuitDenied {
                reason: DenialReason::Draining,
                ..
            } | Event::Introduced {
                outcome: Err(introduction::Refusal::Draining)
            }
        )
    });
    assert_eq!(denied.count(), 3);
    assert_eq!(relay.state.totals().circuits, 1, "it stays");
    relay.connect(3, PeerId::random(), 3);
    relay.pass(Duration::from_secs(20));
    assert_eq!(relay.actions(), [], "and has its time");
    relay.state.handle_circuit_ended(open, None, relay.now);
    assert_eq!(relay.actions(), [Action::Stop]);
}

#[test]
fn the_access_rules_refuse_before_the_drain_does() {
    let [stranger] = peers();
    let mut relay = Relay::new(Settings {
        access: Access {
            tokens: true,
            ..Access::default()
        },
        ..draining(TIMEOUT)
    });
    relay.connect(1, stranger, 1);
    relay.state.handle_shutdown(relay.now);
    assert_eq!(
        relay.reserve(1, stranger),
        Err(Refusal::NotAdmitted(Refused::NoToken))
    );
}

#[test]
fn a_circuit_that_was_being_made_when_the_drain_began_is_waited_for() {
    let mut relay = Relay::new(draining(TIMEOUT));
    let (one, two) = (relay.member(1, 1), relay.member(2, 2));
    let route = relay.circuit(1, one, two).unwrap();
    relay.state.handle_shutdown(relay.now);
    relay.pass(Duration::from_secs(1));
    assert!(
        relay
            .state
            .handle_circuit_ready(route.id, relay.now)
            .is_some()
    );
    relay.actions();
    relay.pass(TIMEOUT - Duration::from_secs(2));
    assert_eq!(relay.actions(), []);
    relay.pass(Duration::from_secs(1));
    assert_eq!(relay.actions(), [Action::Stop], "not beyond the timeout");
}

#[test]
fn peers_with_reservations_have_three_seconds_and_less_if_they_leave() {
    let mut relay = Relay::new(draining(TIMEOUT));
    let peer = relay.member(1, 1);
    relay.actions();
    relay.state.handle_shutdown(relay.now);
    let left = relay.state.drain_left(relay.now.instant);
    assert_eq!(left, Some(Duration::from_secs(3)));
    relay.pass(Duration::from_secs(1));
    assert_eq!(relay.actions(), [ANNOUNCE]);
    relay.close(1, peer);
    assert!(relay.actions().contains(&Action::Stop));
}

#[test]
fn a_relay_without_peers_stops_at_once_and_once() {
    let mut relay = Relay::new(draining(TIMEOUT));
    relay.state.handle_shutdown(relay.now);
    relay.state.handle_shutdown(relay.now);
    assert_eq!(relay.actions(), [ANNOUNCE, Action::Stop]);
    relay.pass(Duration::from_secs(60));
    assert_eq!(relay.actions(), []);
    assert!(relay.state.drains());
}
