//! The other relays.

use super::*;

/// A relay that knows another one, and that one.
fn two() -> (Relay, PeerId) {
    let [other] = peers();
    let settings = Settings {
        relays: vec![(other, host(7))],
        ..Settings::default()
    };
    (Relay::new(settings), other)
}

fn dial(relay: PeerId) -> Action {
    Action::Dial {
        relay,
        addrs: vec![host(7)],
    }
}

#[test]
fn another_relay_is_dialed_at_the_start_kept_while_it_is_there_and_dialed_again_when_it_is_lost() {
    let (mut relay, other) = two();
    relay.pass(Duration::ZERO);
    assert_eq!(relay.actions(), [dial(other)]);
    relay.established(1, other, &dialed(&host(7)));
    let keep = |keep| Action::KeepAlive { peer: other, keep };
    assert_eq!(relay.actions(), [keep(Keep::Always)]);
    relay.pass(Duration::from_secs(60));
    assert_eq!(relay.actions(), []);
    relay.close(1, other);
    assert_eq!(relay.actions(), [keep(Keep::WhileUsed)]);
    relay.pass(Duration::from_secs(1));
    assert_eq!(relay.actions(), [dial(other)]);
}

#[test]
fn a_relay_that_cannot_be_reached_is_warned_of_once_and_dialed_every_fifteen_seconds_at_least() {
    let (mut relay, other) = two();
    let mut dials = 0;
    for _ in 0..600 {
        relay.pass(Duration::from_secs(1));
        for action in relay.actions() {
            assert_eq!(action, dial(other));
            dials += 1;
            let error = "no route".to_owned();
            relay
                .state
                .handle_dial_failed(other, error, relay.now, 0.999);
        }
    }
    assert!((40..100).contains(&dials), "{dials}");
    let failures: Vec<u32> = relay
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::PeerRelayUnreachable { failures, .. } => Some(failures),
            _ => None,
        })
        .collect();
    assert_eq!(failures, (1..=dials).collect::<Vec<u32>>());
}

#[test]
fn a_relay_that_has_dialed_us_is_not_dialed_and_its_reservation_does_not_decide_over_it() {
    let (mut relay, other) = two();
    relay.connect(1, other, 7);
    relay.pass(Duration::from_secs(60));
    let keep = Keep::Always;
    assert_eq!(relay.actions(), [Action::KeepAlive { peer: other, keep }]);
    relay.reserve(1, other).unwrap();
    relay.actions();
    relay.state.handle_reservation_undelivered(id(1), relay.now);
    assert_eq!(relay.actions(), [], "it is kept for what it is");
}

#[test]
fn a_relay_does_not_dial_itself() {
    let key = Keypair::generate_ed25519();
    let local = key.public().to_peer_id();
    let settings = Settings {
        relays: vec![(local, host(7))],
        ..Settings::default()
    };
    let now = Now {
        instant: Instant::now(),
        wall: UNIX_EPOCH,
    };
    let state = RelayState::new(local, &settings, now);
    assert_eq!(state.poll_timeout(), None);
}
