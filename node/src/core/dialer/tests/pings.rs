//! When pings are sent, and what their answers are worth.

use super::{introductions::punch, *};
use crate::punch::AttemptEnd;

#[test]
fn pings_go_on_over_a_new_circuit_after_the_last_path_was_lost() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 2), [relay], true, now);
    let direct = path(PathKind::Direct, None);
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    dialer.handle_ping(Duration::from_millis(5), direct.clone(), now);
    dialer.handle_disconnected(
        PathKind::Direct,
        Farewell::Lost,
        "reset".to_owned(),
        None,
        now,
    );
    assert!(result(&drain(&mut dialer, now)).is_none());
    dialer.handle_relay_ready(relay, now);
    assert!(drain(&mut dialer, now).contains(&Action::DialCircuit(relay)));
}

/// A dial with a direct path, content, and its first ping sent.
fn pinging(pings: u32) -> (Dialer, Path, Instant) {
    let now = Instant::now();
    let mut dialer = Dialer::new(request(Until::Direct, pings), [], true, now);
    let direct = path(PathKind::Direct, None);
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    assert!(drain(&mut dialer, now).ends_with(&[Action::Ping]));
    (dialer, direct, now)
}

#[test]
fn a_dial_of_a_peer_that_is_direct_already_pings_at_once_and_ends_with_the_answer() {
    let (mut dialer, direct, now) = pinging(1);
    assert_eq!(drain(&mut dialer, now), [], "one ping at a time");
    let later = now + Duration::from_millis(5);
    dialer.handle_ping(Duration::from_millis(5), direct, later);
    let actions = drain(&mut dialer, later);
    assert!(matches!(
        actions[..],
        [
            Action::Report(Event::Ping { seq: 1, .. }),
            Action::Report(Event::Result(_))
        ]
    ));
}

#[test]
fn a_relayed_path_is_not_pinged_before_it_is_final() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 1), [relay], true, now);
    let relayed = path(PathKind::Relayed, Some(relay));
    dialer.handle_connected(relayed.clone(), relayed, now);
    assert!(!drain(&mut dialer, now).contains(&Action::Ping));
    dialer.handle_gave_up(Reason::SymmetricBoth);
    assert_eq!(drain(&mut dialer, now), [Action::Ping]);
}

#[test]
fn several_pings_go_one_per_second() {
    let (mut dialer, direct, mut now) = pinging(3);
    let start = now;
    for seq in 1..3 {
        let answered = now + Duration::from_millis(30);
        dialer.handle_ping(Duration::from_millis(30), direct.clone(), answered);
        let actions = drain(&mut dialer, answered);
        assert!(
            matches!(actions[..], [Action::Report(Event::Ping { seq: of, .. })] if of == seq),
            "{actions:?}"
        );
        now = dialer.poll_timeout().unwrap();
        assert_eq!(now - start, Duration::from_secs(seq.into()));
        assert_eq!(drain(&mut dialer, now), [Action::Ping]);
    }
    dialer.handle_ping(Duration::from_millis(30), direct, now);
    assert!(result(&drain(&mut dialer, now)).is_some());
}

#[test]
fn a_ping_that_says_nothing_of_the_path_in_use_is_sent_again_at_once() {
    let (mut dialer, _, now) = pinging(1);
    dialer.handle_ping_failed(PingFailure::Stale, Some(PathKind::Direct));
    assert_eq!(drain(&mut dialer, now), [Action::Ping]);
}

#[test]
fn a_ping_that_was_missed_is_not_counted_and_followed_by_another() {
    let (mut dialer, direct, now) = pinging(1);
    dialer.handle_ping_failed(PingFailure::Missed, Some(PathKind::Direct));
    let (seq, missed, kind) = (1, 1, PathKind::Direct);
    let no_path = false;
    let missed = Action::Report(Event::PingMissed {
        seq,
        missed,
        kind,
        no_path,
    });
    assert_eq!(drain(&mut dialer, now), [missed]);
    let later = dialer.poll_timeout().unwrap();
    assert_eq!(later - now, Duration::from_secs(1));
    assert_eq!(drain(&mut dialer, later), [Action::Ping]);
    dialer.handle_ping(Duration::from_millis(5), direct, later);
    assert!(result(&drain(&mut dialer, later)).is_some());
}

#[test]
fn a_ping_whose_stream_broke_is_followed_by_another_soon() {
    let (mut dialer, _, now) = pinging(1);
    dialer.handle_ping_failed(PingFailure::Broken, Some(PathKind::Direct));
    assert_eq!(drain(&mut dialer, now).len(), 1);
    let later = dialer.poll_timeout().unwrap();
    assert_eq!(later - now, Duration::from_millis(50));
    assert_eq!(drain(&mut dialer, later), [Action::Ping]);
}

#[test]
fn a_peer_without_ping_is_reached_all_the_same() {
    let (mut dialer, _, now) = pinging(3);
    dialer.handle_ping_failed(PingFailure::Unsupported, Some(PathKind::Direct));
    let actions = drain(&mut dialer, now);
    assert_eq!(result(&actions).unwrap().outcome, Reached::Direct);
}

#[test]
fn pings_that_have_begun_go_on_over_the_next_path_at_once_and_the_result_waits_for_the_punch() {
    let (mut dialer, direct, mut now) = pinging(2);
    let relayed = path(PathKind::Relayed, Some(PeerId::random()));
    dialer.handle_ping(Duration::from_millis(5), direct.clone(), now);
    drain(&mut dialer, now);
    now += Duration::from_secs(1);
    assert_eq!(drain(&mut dialer, now), [Action::Ping]);
    dialer.handle_ping_failed(PingFailure::Lost, Some(PathKind::Direct));
    let reason = "silent".to_owned();
    dialer.handle_disconnected(PathKind::Direct, Farewell::Lost, reason, None, now);
    let missed =
        |action: &Action| matches!(action, Action::Report(Event::PingMissed { seq: 2, .. }));
    dialer.handle_connected(relayed.clone(), relayed.clone(), now);
    let actions = drain(&mut dialer, now);
    assert!(
        actions.iter().any(missed) && actions.contains(&Action::Ping),
        "{actions:?}"
    );
    dialer.handle_ping(Duration::from_millis(9), relayed, now);
    let actions = drain(&mut dialer, now);
    let kind = PathKind::Relayed;
    assert!(
        matches!(actions[..], [Action::Report(Event::Ping { seq: 2, kind: of, .. })] if of == kind)
    );
    // The punch brings the direct path back, which one more ping proves.
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    assert!(drain(&mut dialer, now).contains(&Action::Ping));
    dialer.handle_ping(Duration::from_millis(5), direct, now);
    let actions = drain(&mut dialer, now);
    assert_eq!(result(&actions).unwrap().outcome, Reached::Direct);
    assert_eq!(actions.len(), 1, "{actions:?}");
}

#[test]
fn a_time_that_is_shorter_than_the_pings_are_apart_is_enough_for_all_of_them() {
    let (relay, mut now) = (PeerId::random(), Instant::now());
    let short = Request {
        timeout: Duration::from_millis(500),
        ..request(Until::Direct, 3)
    };
    let (start, direct) = (now, path(PathKind::Direct, None));
    let mut dialer = Dialer::new(short, [relay], true, now);
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    for seq in 1..=3 {
        assert!(drain(&mut dialer, now).contains(&Action::Ping), "{seq}");
        dialer.handle_ping(Duration::from_millis(5), direct.clone(), now);
        now += Duration::from_secs(1);
        if seq < 3 {
            assert!(result(&drain(&mut dialer, now - Duration::from_secs(1))).is_none());
        }
    }
    assert!(result(&drain(&mut dialer, now)).is_some());
    assert_eq!(now - start, Duration::from_secs(3));
}

#[test]
fn while_no_path_leads_to_the_peer_each_ping_is_missed_that_falls_due_and_the_totals_are_those_reported()
 {
    let (relay, mut now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 4), [relay], true, now);
    let direct = path(PathKind::Direct, None);
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    drain(&mut dialer, now);
    dialer.handle_ping(Duration::from_millis(5), direct.clone(), now);
    drain(&mut dialer, now);
    now += Duration::from_secs(1);
    assert_eq!(drain(&mut dialer, now), [Action::Ping]);
    dialer.handle_ping_failed(PingFailure::Lost, Some(PathKind::Direct));
    let lost = "no answer to pings".to_owned();
    dialer.handle_disconnected(PathKind::Direct, Farewell::Lost, lost, None, now);
    let of = |action: &Action| {
        let Action::Report(Event::PingMissed {
            seq: 2,
            missed,
            kind: PathKind::Direct,
            no_path,
        }) = action
        else {
            return None;
        };
        Some((*missed, *no_path))
    };
    let missed = |actions: &[Action]| actions.iter().filter_map(of).collect::<Vec<_>>();
    assert_eq!(missed(&drain(&mut dialer, now)), [(1, false)]);
    for number in 2..5 {
        now += Duration::from_millis(999);
        assert_eq!(missed(&drain(&mut dialer, now)), []);
        now += Duration::from_millis(1);
        assert!(dialer.poll_timeout().is_some_and(|at| at <= now));
        assert_eq!(missed(&drain(&mut dialer, now)), [(number, true)]);
    }
    // The next path is used at once, and nothing is missed over it.
    dialer.handle_connected(direct.clone(), direct.clone(), now);
    assert!(drain(&mut dialer, now).contains(&Action::Ping));
    let later = now + Duration::from_secs(2);
    assert_eq!(drain(&mut dialer, later), []);
    now = later;
    loop {
        dialer.handle_ping(Duration::from_millis(5), direct.clone(), now);
        let actions = drain(&mut dialer, now);
        if let Some(outcome) = result(&actions) {
            let (answered, missed) = (4, 4);
            assert_eq!(outcome.pings, PingTotals { answered, missed });
            return;
        }
        now += Duration::from_secs(1);
    }
}

#[test]
fn a_direct_path_that_was_lost_is_no_failed_attempt() {
    let (relay, now) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Direct, 9), [relay], true, now);
    let (direct, relayed) = (
        path(PathKind::Direct, None),
        path(PathKind::Relayed, Some(relay)),
    );
    dialer.handle_connected(relayed.clone(), relayed.clone(), now);
    dialer.handle_attempt(punch(AttemptEnd::Failed, Some(Reason::Timeout)));
    dialer.handle_attempt(punch(AttemptEnd::Direct, None));
    dialer.handle_connected(direct.clone(), direct, now);
    dialer.handle_disconnected(
        PathKind::Direct,
        Farewell::Lost,
        "no answer to pings".to_owned(),
        Some(relayed),
        now,
    );
    let actions = drain(&mut dialer, now + Duration::from_secs(60));
    let outcome = result(&actions).unwrap();
    let lost = NotDirect::Unreachable("the direct path was lost: no answer to pings".to_owned());
    assert_eq!((&outcome.reason, outcome.attempts), (&Some(lost), 0));
}

#[test]
fn on_a_slow_path_all_pings_are_sent_and_not_those_alone_that_fit_into_seconds() {
    let rtt = Duration::from_secs(3);
    let (mut dialer, direct, mut now) = pinging(40);
    for seq in 1..=40 {
        now += rtt;
        dialer.handle_ping(rtt, direct.clone(), now);
        let actions = drain(&mut dialer, now);
        assert!(
            matches!(actions[0], Action::Report(Event::Ping { seq: of, .. }) if of == seq),
            "{seq}: {actions:?}"
        );
        assert_eq!(result(&actions).is_some(), seq == 40, "{seq}");
    }
}
