//! Paths that are lost, and when the dial is over.

use super::*;

/// Lets the peer take each circuit and close it `after` that, until the dial is over. When each circuit was asked for.
fn closing(farewell: Farewell, after: Duration, pings: u32) -> (Vec<Duration>, Outcome) {
    let (relay, start) = (PeerId::random(), Instant::now());
    let mut dialer = Dialer::new(request(Until::Connected, pings), [relay], true, start);
    let (mut now, mut asked) = (start, Vec::new());
    let relayed = path(PathKind::Relayed, Some(relay));
    loop {
        dialer.handle_relay_ready(relay, now);
        let actions = drain(&mut dialer, now);
        if let Some(outcome) = result(&actions) {
            return (asked, outcome.clone());
        }
        if actions.contains(&Action::DialCircuit(relay)) {
            asked.push(now - start);
            dialer.handle_connected(relayed.clone(), relayed.clone(), now);
            now += after;
            if farewell != Farewell::Refused {
                dialer.handle_ping(Duration::from_millis(9), relayed.clone(), now);
            }
            dialer.handle_disconnected(PathKind::Relayed, farewell, "over".to_owned(), None, now);
            continue;
        }
        now = dialer.poll_timeout().unwrap();
    }
}

const SOON: Duration = Duration::from_millis(20);

#[test]
fn a_peer_that_closes_two_connections_unanswered_has_refused() {
    let (asked, outcome) = closing(Farewell::Refused, SOON, 1);
    assert_eq!(asked, [Duration::ZERO, SOON]);
    assert_eq!(outcome.t, SOON * 2);
    let reason = outcome.reason.unwrap().to_string();
    assert!(reason.starts_with("refused: "), "{reason}");
}

#[test]
fn a_peer_that_closes_what_has_answered_is_dialed_five_times_ever_less_often() {
    let (asked, outcome) = closing(Farewell::Closed, SOON, 9);
    let waits: Vec<_> = asked
        .windows(2)
        .map(|two| (two[1] - two[0] - SOON).as_millis())
        .collect();
    assert_eq!(waits, [0, 250, 500, 1000]);
    let reason = outcome.reason.unwrap().to_string();
    assert!(reason.starts_with("closed by peer: 5 times"), "{reason}");
}

#[test]
fn a_path_that_breaks_again_and_again_does_not_extend_the_time_of_the_dial() {
    let (asked, outcome) = closing(Farewell::Lost, SOON, 9);
    assert_eq!(outcome.t, Duration::from_secs(30 + 8), "timeout and pings");
    assert!(asked.len() < 15, "{asked:?}");
    let reason = outcome.reason.unwrap().to_string();
    assert!(reason.contains("the path was lost: over"), "{reason}");
}

#[test]
fn a_path_that_was_good_is_looked_for_at_once_and_forgives() {
    let (asked, _) = closing(Farewell::Refused, Duration::from_secs(10), 1);
    assert_eq!(asked, [0, 10, 20].map(Duration::from_secs));
}
