//! Circuits that fail, and what follows.

use super::*;
use crate::core::dialer::CIRCUIT_WAIT;

#[test]
fn a_circuit_that_a_busy_relay_has_dropped_is_asked_for_again() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    dialer.handle_relay_ready(relay, now);
    assert!(drain(&mut dialer, now).contains(&Action::DialCircuit(relay)));
    let mut later = now;
    while later - now < CIRCUIT_WAIT {
        assert_eq!(drain(&mut dialer, later), []);
        later = dialer.poll_timeout().unwrap();
    }
    assert_eq!(later - now, CIRCUIT_WAIT);
    assert_eq!(drain(&mut dialer, later), [Action::DialCircuit(relay)]);
    dialer.handle_circuit_failed(relay, CircuitFailure::Broken, "too late".to_owned(), later);
    assert!(
        result(&drain(&mut dialer, later)).is_none(),
        "the second is still under way"
    );
    dialer.handle_circuit_failed(relay, CircuitFailure::Refused, "full".to_owned(), later);
    assert!(result(&drain(&mut dialer, later)).is_some());
}

/// Fails the circuit over `relay` whenever it is dialed, until that is over. When it was dialed, from the first on.
fn failing_circuits(failure: CircuitFailure) -> (Vec<Duration>, Outcome) {
    let (relay, start) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, start);
    let (mut now, mut dialed) = (start, Vec::new());
    loop {
        dialer.handle_relay_ready(relay, now);
        let actions = drain(&mut dialer, now);
        if let Some(outcome) = result(&actions) {
            return (dialed, outcome.clone());
        }
        if actions.contains(&Action::DialCircuit(relay)) {
            dialed.push(now - start);
            dialer.handle_circuit_failed(relay, failure, "not there".to_owned(), now);
            continue;
        }
        now = dialer.poll_timeout().unwrap();
    }
}

#[test]
fn a_peer_that_is_absent_from_its_relay_is_given_5_s_to_come_back() {
    let (dialed, outcome) = failing_circuits(CircuitFailure::Absent);
    let millis: Vec<_> = dialed.iter().map(Duration::as_millis).collect();
    assert_eq!(millis, [0, 250, 750, 1750, 3750, 5000]);
    assert_eq!(
        outcome.reason,
        Some(NotDirect::Unreachable("not there".to_owned())),
        "named once"
    );
}

#[test]
fn a_circuit_that_breaks_is_asked_for_until_the_time_of_the_dial_is_up() {
    let (dialed, outcome) = failing_circuits(CircuitFailure::Broken);
    assert_eq!(dialed.last(), Some(&Duration::from_millis(27_750)));
    assert!(
        outcome
            .reason
            .unwrap()
            .to_string()
            .starts_with("not there; gave up after 30 s")
    );
}

#[test]
fn a_relay_that_is_not_asked_for_a_while_is_not_called_silent() {
    let (relay, start) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, start);
    dialer.handle_relay_ready(relay, start);
    drain(&mut dialer, start);
    dialer.handle_circuit_paced(relay, start + Duration::from_secs(60));
    let end = start + Duration::from_secs(30);
    let outcome = result(&drain(&mut dialer, end)).unwrap().clone();
    let reason = outcome.reason.unwrap().to_string();
    assert!(
        reason.contains("was not asked again") && !reason.contains("no answer"),
        "{reason}"
    );
}

#[test]
fn a_circuit_that_is_refused_is_not_asked_for_again() {
    let (dialed, outcome) = failing_circuits(CircuitFailure::Refused);
    assert_eq!((dialed.len(), outcome.t), (1, Duration::ZERO));
}

#[test]
fn a_circuit_is_not_asked_for_again_while_the_relay_is_away() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    dialer.handle_relay_ready(relay, now);
    drain(&mut dialer, now);
    dialer.handle_circuit_failed(relay, CircuitFailure::Broken, "broken".to_owned(), now);
    let later = dialer.poll_timeout().unwrap();
    assert_eq!(drain(&mut dialer, later), []);
    assert!(dialer.poll_timeout().unwrap() > later, "it does not spin");
    dialer.handle_relay_ready(relay, later);
    assert_eq!(drain(&mut dialer, later), [Action::DialCircuit(relay)]);
}
