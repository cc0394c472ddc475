//! A dial that asks to be introduced.

use super::*;
use crate::punch::IntroductionResponse;
use crate::punch::{AttemptEnd, By, Role};

/// Everything that a dial does, up to the asking of the relay.
fn begin(dialer: &mut Dialer, now: Instant) -> Vec<Action> {
    std::iter::from_fn(|| poll(dialer, now))
        .filter(|action| !matches!(action, Action::Report(_) | Action::LookUp))
        .collect()
}

pub(super) fn punch(outcome: AttemptEnd, reason: Option<Reason>) -> Event {
    Event::Punch {
        t: Duration::ZERO,
        peer: PeerId::random(),
        attempt: 1,
        role: Role::Responder,
        by: By::Introduction,
        sent: Vec::new(),
        received: Vec::new(),
        outcome,
        reason,
    }
}

#[test]
fn the_introduction_is_asked_for_before_the_circuit_by_a_dial_that_wants_to_be_direct() {
    let (relay, now) = (PeerId::random(), Instant::now());
    for (until, punches, meets) in [
        (Until::Direct, true, true),
        (Until::Direct, false, false),
        (Until::Connected, true, false),
    ] {
        let mut dialer = Dialer::new(request(until, 0), [relay], punches, now);
        dialer.handle_relay_ready(relay, now);
        let meeting = meets.then_some(Action::Introduce(relay));
        let expected: Vec<_> = meeting
            .into_iter()
            .chain([Action::DialCircuit(relay)])
            .collect();
        assert_eq!(begin(&mut dialer, now), expected, "{until:?} {punches}");
        dialer.handle_relay_ready(relay, now);
        assert_eq!(begin(&mut dialer, now), [], "once");
    }
}

#[test]
fn a_dial_whose_circuit_is_refused_waits_for_the_introduction_and_its_punch() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let refused = |dialer: &mut Dialer| {
        let reason = "full".to_owned();
        dialer.handle_circuit_failed(relay, CircuitFailure::Refused, reason, now);
        drain(dialer, now)
    };
    let asked = || {
        let mut dialer = Dialer::new(request(Until::Direct, 0), [relay], true, now);
        dialer.handle_relay_ready(relay, now);
        begin(&mut dialer, now);
        dialer.handle_looked_up(now);
        dialer.await_introduction();
        dialer
    };

    let mut vain = asked();
    assert!(result(&refused(&mut vain)).is_none());
    vain.handle_introduction_reply(IntroductionResponse::Ignored);
    let actions = drain(&mut vain, now);
    assert_eq!(result(&actions).unwrap().outcome, Reached::Unreachable);

    let mut failed = asked();
    failed.handle_introduction_reply(IntroductionResponse::Punches);
    assert!(result(&refused(&mut failed)).is_none());
    failed.handle_introduced_attempt(punch(AttemptEnd::Failed, None));
    let actions = drain(&mut failed, now);
    let outcome = result(&actions).unwrap();
    assert_eq!(
        (outcome.outcome, outcome.attempts),
        (Reached::Unreachable, 1)
    );

    let mut direct = asked();
    refused(&mut direct);
    direct.handle_introduction_reply(IntroductionResponse::Punches);
    direct.handle_introduced_attempt(punch(AttemptEnd::Direct, None));
    let path = Path {
        how: How::Punched,
        ..path(PathKind::Direct, None)
    };
    direct.handle_connected(path.clone(), path.clone(), now);
    drain(&mut direct, now);
    direct.handle_ping(Duration::from_millis(5), path, now);
    let actions = drain(&mut direct, now);
    let outcome = result(&actions).unwrap();
    assert_eq!((outcome.outcome, outcome.attempts), (Reached::Direct, 1));
    assert_eq!(outcome.found_by, Some(FoundBy::Relay));
}

#[test]
fn of_the_two_connections_of_a_punch_the_second_came_of_what_led_to_the_first() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    dialer.handle_relay_ready(relay, now);
    dialer.await_introduction();
    dialer.handle_introduction_reply(IntroductionResponse::Punches);
    let connected = |how| Path {
        how,
        ..path(PathKind::Direct, None)
    };
    let (first, second) = (connected(How::Accepted), connected(How::Punched));
    dialer.handle_connected(first.clone(), first, now);
    dialer.handle_introduced_attempt(punch(AttemptEnd::Direct, None));
    drain(&mut dialer, now);
    dialer.handle_disconnected(
        PathKind::Direct,
        Farewell::Closed,
        "closed by peer".into(),
        None,
        now,
    );
    dialer.handle_connected(second.clone(), second.clone(), now);
    drain(&mut dialer, now);
    dialer.handle_ping(Duration::from_millis(5), second, now);
    let actions = drain(&mut dialer, now);
    let outcome = result(&actions).unwrap();
    assert_eq!((outcome.outcome, outcome.attempts), (Reached::Direct, 1));
    assert_eq!(outcome.found_by, Some(FoundBy::Relay));
}

#[test]
fn the_handshake_is_waited_for_though_an_introduction_has_failed_before() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 0), [relay], true, now);
    dialer.handle_relay_ready(relay, now);
    dialer.handle_introduction_reply(IntroductionResponse::Punches);
    dialer.handle_introduced_attempt(punch(AttemptEnd::Failed, None));
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed.clone(), now);
    assert!(result(&drain(&mut dialer, now)).is_none());
    let silent = now + HANDSHAKE_WAIT;
    drain(&mut dialer, silent);
    dialer.handle_ping(Duration::from_millis(5), relayed, silent);
    let actions = drain(&mut dialer, silent);
    let outcome = result(&actions).unwrap();
    assert_eq!(outcome.outcome, Reached::Relayed);
    assert_eq!(outcome.reason, Some(NotDirect::Punch(Reason::RemoteSilent)));
}
