#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod circuits;
mod introductions;
mod local;
mod losses;
mod pings;
mod records;

use super::*;
use crate::core::{
    event::{NotDirect, Outcome, Reached},
    peers::{Hop, How},
};

fn path(kind: PathKind, relay: Option<PeerId>) -> Path {
    Path {
        kind,
        relay,
        how: How::Dialed,
        hops: vec![Hop::default()],
    }
}

fn request(until: Until, pings: u32) -> Request {
    Request {
        peer: PeerId::random(),
        addrs: Vec::new(),
        until,
        timeout: Duration::from_secs(30),
        pings,
    }
}

/// The next thing that a dial does at `now`.
fn poll(dialer: &mut Dialer, now: Instant) -> Option<Action> {
    dialer.poll_action().or_else(|| {
        dialer.handle_timeout(now);
        dialer.poll_action()
    })
}

/// What a dial does where no relay knows a record.
fn drain(dialer: &mut Dialer, now: Instant) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some(action) = poll(dialer, now) {
        if action == Action::LookUp {
            dialer.handle_looked_up(now);
        } else if !matches!(action, Action::Introduce(_)) {
            actions.push(action);
        }
    }
    actions
}

fn result(actions: &[Action]) -> Option<&Outcome> {
    actions.iter().find_map(|action| match action {
        Action::Report(Event::Result(outcome)) => Some(outcome),
        Action::Report(_)
        | Action::DialDirect(_)
        | Action::DialCircuit(_)
        | Action::DialFound { .. }
        | Action::Search
        | Action::DialLocal(_)
        | Action::Introduce(_)
        | Action::LookUp
        | Action::MatchFamilies
        | Action::Ping => None,
    })
}

#[test]
fn a_dial_goes_over_the_relay_and_ends_direct_after_a_ping_on_the_direct_path() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    assert!(matches!(
        drain(&mut dialer, now)[..],
        [Action::Report(Event::Dialing { .. })]
    ));
    dialer.handle_relay_ready(relay, now);
    assert_eq!(drain(&mut dialer, now), [Action::DialCircuit(relay)]);
    dialer.handle_relay_ready(relay, now);
    assert_eq!(drain(&mut dialer, now), [], "a circuit is dialed once");

    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed.clone(), now);
    dialer.handle_ping(Duration::from_millis(9), relayed, now);
    let actions = drain(&mut dialer, now);
    assert!(
        matches!(actions[..], [Action::Report(Event::Connected { .. })]),
        "a ping on the relayed path is not the end: {actions:?}"
    );

    let later = now + Duration::from_millis(151);
    let direct = path(PathKind::Direct, None);
    dialer.handle_connected(direct.clone(), direct.clone(), later);
    assert!(result(&drain(&mut dialer, later)).is_none());
    dialer.handle_ping(Duration::from_millis(5), direct, later);
    let actions = drain(&mut dialer, later);
    let outcome = result(&actions).unwrap();
    assert_eq!(
        (outcome.outcome, outcome.time_to_direct),
        (Reached::Direct, Some(Duration::from_millis(151)))
    );
    assert_eq!(outcome.reason, None);
    assert!(dialer.is_finished());
}

#[test]
fn a_punch_that_was_given_up_ends_relayed_with_its_reason() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 0), [relay], true, now);
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_relay_ready(relay, now);
    dialer.handle_connected(relayed.clone(), relayed, now);
    dialer.handle_gave_up(Reason::SymmetricBoth);
    dialer.handle_ping(
        Duration::from_millis(9),
        path(PathKind::Relayed, Some(relay)),
        now,
    );
    let actions = drain(&mut dialer, now);
    let outcome = result(&actions).unwrap();
    assert_eq!(
        (outcome.outcome, &outcome.reason),
        (
            Reached::Relayed,
            &Some(NotDirect::Punch(Reason::SymmetricBoth))
        )
    );
}

#[test]
fn a_peer_that_never_begins_dcutr_differs_from_a_slow_one() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 0), [relay], true, now);
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed, now);
    assert!(result(&drain(&mut dialer, now)).is_none());
    let at = dialer.poll_timeout().unwrap();
    assert_eq!(at - now, HANDSHAKE_WAIT);
    assert!(result(&drain(&mut dialer, at)).is_none());
    dialer.handle_ping(
        Duration::from_millis(9),
        path(PathKind::Relayed, Some(relay)),
        at,
    );
    let actions = drain(&mut dialer, at);
    assert_eq!(
        result(&actions).unwrap().reason,
        Some(NotDirect::Punch(Reason::RemoteSilent))
    );
    // A peer that does not even list the protocol.
    let mut dialer = Dialer::new(request(Until::Direct, 0), [relay], true, now);
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed.clone(), now);
    dialer.handle_silence_means(Reason::RemoteUnsupported);
    drain(&mut dialer, at);
    dialer.handle_ping(Duration::from_millis(9), relayed, at);
    assert_eq!(
        result(&drain(&mut dialer, at)).unwrap().reason,
        Some(NotDirect::Punch(Reason::RemoteUnsupported))
    );
}

#[test]
fn when_every_way_has_failed_the_dial_ends_at_once_and_names_each_failure() {
    let (a, b, now) = (PeerId::random(), PeerId::random(), Instant::now());
    let mut with_addrs = request(Until::Direct, 1);
    with_addrs.addrs = vec!["/ip4/198.51.100.7/tcp/443".parse().unwrap()];
    let mut dialer = Dialer::new(with_addrs, [a, b], true, now);
    drain(&mut dialer, now);
    dialer.handle_direct_failed("198.51.100.7:443 refused".to_owned());
    dialer.handle_relay_unreachable(a, Fault::Address, "another peer is there", now);
    assert!(
        result(&drain(&mut dialer, now)).is_none(),
        "the other relay may still answer"
    );
    dialer.handle_relay_ready(b, now);
    drain(&mut dialer, now);
    dialer.handle_circuit_failed(
        b,
        CircuitFailure::Refused,
        "the relay is full".to_owned(),
        now,
    );
    let actions = drain(&mut dialer, now);
    let outcome = result(&actions).unwrap();
    assert_eq!(outcome.outcome, Reached::Unreachable);
    let reason = outcome.reason.as_ref().unwrap().to_string();
    for part in [
        "198.51.100.7:443 refused",
        "another peer is there",
        "the relay is full",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn a_dial_that_is_content_with_any_connection_ends_relayed_without_a_reason() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Connected, 0), [relay], true, now);
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed.clone(), now);
    dialer.handle_ping(Duration::from_millis(9), relayed, now);
    let actions = drain(&mut dialer, now);
    let outcome = result(&actions).unwrap();
    assert_eq!(
        (outcome.outcome, &outcome.reason),
        (Reached::Relayed, &None)
    );
}

#[test]
fn a_dial_that_ends_relayed_waits_for_the_far_hop_and_not_for_long() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let relayed = path(PathKind::Relayed, Some(relay));
    let connected = || {
        let mut dialer = Dialer::new(request(Until::Connected, 0), [relay], true, now);
        dialer.handle_connected(relayed.clone(), relayed.clone(), now);
        dialer.await_far_hop(now);
        dialer.handle_ping(Duration::from_millis(9), relayed.clone(), now);
        assert!(result(&drain(&mut dialer, now)).is_none());
        dialer
    };
    let mut reported = relayed.clone();
    reported.hops.push(Hop {
        transport: Some(p2pnode_transports::Transport::Quic),
        ..Hop::default()
    });
    let mut dialer = connected();
    dialer.handle_far_hop(Some(reported.clone()));
    let actions = drain(&mut dialer, now);
    assert_eq!(result(&actions).unwrap().path.as_ref(), Some(&reported));

    let mut dialer = connected();
    let until = dialer.poll_timeout().unwrap();
    assert_eq!(until - now, FAR_HOP_WAIT);
    let actions = drain(&mut dialer, until);
    assert_eq!(result(&actions).unwrap().path.as_ref(), Some(&relayed));

    let mut dialer = connected();
    let direct = path(PathKind::Direct, None);
    dialer.handle_connected(direct.clone(), direct, now);
    assert!(
        result(&drain(&mut dialer, now)).is_some(),
        "a direct path has no far hop"
    );
}

fn unreachable(dialer: &mut Dialer, now: Instant) -> Option<String> {
    let actions = drain(dialer, now);
    let reason = result(&actions)?.reason.as_ref().map(ToString::to_string);
    Some(reason.unwrap_or_default())
}

#[test]
fn a_dial_waits_for_a_relay_that_may_answer_and_not_for_a_fault_that_stays() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let later = now + Duration::from_secs(4);
    let dial = || Dialer::new(request(Until::Direct, 0), [relay], true, now);
    for (fault, reason) in [
        (Fault::Local, "port range 45000-45000 exhausted"),
        (Fault::Address, "another peer"),
    ] {
        let mut dialer = dial();
        dialer.handle_relay_unreachable(relay, fault, reason, later);
        let said = unreachable(&mut dialer, later).unwrap();
        let is_local = said == reason;
        assert_eq!(is_local, fault == Fault::Local, "{said}");
        assert_eq!(said.matches(reason).count(), 1, "{said}");
    }
    let mut dialer = dial();
    for _ in 0..3 {
        dialer.handle_relay_unreachable(relay, Fault::Remote, "no answer in time", later);
    }
    let reported = drain(&mut dialer, later);
    let reported = reported.iter().filter_map(|action| {
        if let Action::Report(Event::RelayUnreachable { t, .. }) = action {
            return Some(*t);
        }
        None
    });
    // On the clock of the dial, and once.
    assert_eq!(reported.collect::<Vec<_>>(), [later - now]);
    let end = now + Duration::from_secs(30);
    let said = unreachable(&mut dialer, end).unwrap();
    assert!(
        said.contains("is unreachable: no answer in time") && !said.contains("timeout"),
        "{said}"
    );
    // It is back in time.
    let mut dialer = dial();
    dialer.handle_relay_unreachable(relay, Fault::Remote, "no answer in time", later);
    dialer.handle_relay_ready(relay, later);
    assert!(drain(&mut dialer, later).contains(&Action::DialCircuit(relay)));
}

#[test]
fn a_relay_that_answers_that_the_peer_is_absent_is_not_called_silent() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut brief = request(Until::Direct, 0);
    brief.timeout = Duration::from_secs(2);
    let mut dialer = Dialer::new(brief, [relay], true, now);
    dialer.handle_relay_ready(relay, now);
    let reason = "the peer holds no reservation on this relay".to_owned();
    dialer.handle_circuit_failed(relay, CircuitFailure::Absent, reason, now);
    let said = unreachable(&mut dialer, now + Duration::from_secs(2)).unwrap();
    assert!(!said.contains("timeout"), "{said}");
}

#[test]
fn a_silent_relay_ends_the_dial_at_its_timeout() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    drain(&mut dialer, now);
    let deadline = dialer.poll_timeout().unwrap();
    let actions = drain(&mut dialer, deadline);
    let outcome = result(&actions).unwrap();
    assert_eq!(outcome.outcome, Reached::Unreachable);
    let reason = outcome.reason.as_ref().unwrap().to_string();
    assert!(reason.contains("within 30 s"), "{reason}");
}
