use serde_json::json;

use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn facts(faults: &[(Fault, u64, u64)]) -> Facts {
    let applied = |(fault, from, until): &(Fault, u64, u64)| Applied {
        fault: *fault,
        begins: s(*from),
        stands: s(*from),
        goes: s(*until),
        gone: s(*until),
    };
    let ip = |text: &str| text.parse().expect("an address");
    Facts {
        faults: faults.iter().map(applied).collect(),
        stalls: Vec::new(),
        nodes: ["A".to_owned(), "B".to_owned()],
        relays: ["R0".to_owned(), "R1".to_owned()],
        outside: [
            vec![(s(0), ip("198.18.0.1")), (s(100), ip("198.18.0.200"))],
            vec![(s(0), ip("198.18.0.2"))],
        ],
    }
}

fn seen(at: u64, json: Value) -> Seen {
    Seen { at: s(at), json }
}

/// Whether each of these events of A has a cause.
fn are_true(facts: &Facts, events: &[(u64, Value)]) -> Vec<bool> {
    let judge = |(at, json): &(u64, Value)| {
        let events = [seen(*at, json.clone())];
        facts.judge_node(Side::A, &[], &events).is_empty()
    };
    events.iter().map(judge).collect()
}

fn punch(reason: &str) -> Value {
    json!({"event": "punch", "peer": "B", "outcome": "failed", "reason": reason})
}

#[test]
fn a_punch_fails_for_a_cause_that_is_there_and_not_for_another() {
    let cut = facts(&[(Fault::PathCut, 10, 20)]);
    assert_eq!(
        are_true(
            &cut,
            &[
                (15, punch("timeout")),
                (45, punch("timeout")),
                (5, punch("timeout")),
                (55, punch("timeout")),
                (15, punch("refused")),
                (15, punch("unreachable")),
                (15, punch("no_candidates")),
                (15, punch("circuit_lost")),
                (15, punch("remote_unsupported")),
                (15, punch("")),
            ]
        ),
        [
            true, true, false, false, false, false, false, false, false, false
        ]
    );
    let unplugged = facts(&[(Fault::LinkUnplugged(Side::A), 10, 20)]);
    let reasons = ["timeout", "unreachable", "no_candidates", "circuit_lost"];
    let claims = reasons.map(|reason| (15, punch(reason)));
    assert_eq!(are_true(&unplugged, &claims), [true; 4]);
    let far = facts(&[(Fault::LinkUnplugged(Side::B), 10, 20)]);
    assert_eq!(are_true(&far, &claims), [true, false, false, true]);
}

#[test]
fn a_relay_is_lost_by_what_happens_to_it_or_to_the_way_to_it() {
    let lost = |relay: &str, cause: &str, reason: &str| json!({"event": "reservation_lost", "relay": relay, "cause": cause, "reason": reason});
    let unreachable = |relay: &str, reason: &str| json!({"event": "relay_unreachable", "relay": relay, "reason": reason});
    let killed = facts(&[(Fault::RelayKilled(0), 10, 20)]);
    assert_eq!(
        are_true(
            &killed,
            &[
                (12, lost("R0", "silent", "timed out")),
                (12, unreachable("R0", "Connection refused")),
                (12, lost("R1", "silent", "timed out")),
                (60, lost("R0", "silent", "timed out")),
                (
                    12,
                    unreachable("R0", "cannot resolve relay.test: no answer")
                ),
                (12, unreachable("R0", "port range exhausted")),
                (12, unreachable("R9", "timed out")),
            ]
        ),
        [true, true, false, false, false, false, false]
    );
    // Whether each cause of a loss may stand for this fault.
    let causes = ["silent", "closed", "broken", "refused", "clock", "ended"];
    let by = |fault| {
        let claims = causes.map(|cause| (12, lost("R0", cause, "")));
        are_true(&facts(&[(fault, 10, 20)]), &claims)
    };
    let [yes, no] = [true, false];
    assert_eq!(by(Fault::RelayKilled(0)), [yes, no, yes, no, no, no]);
    assert_eq!(by(Fault::RelayEnded(0)), [no, yes, yes, yes, no, no]);
    assert_eq!(by(Fault::LinkSilent(Side::A)), [yes, yes, yes, no, no, no]);
    assert_eq!(by(Fault::RelayEnded(1)), [no; 6]);
    let dns = facts(&[(Fault::DnsRefused, 10, 20)]);
    let resolve = "cannot resolve relay.test: refused";
    assert_eq!(
        are_true(
            &dns,
            &[
                (12, unreachable("R1", resolve)),
                (12, unreachable("R0", resolve)),
                (12, lost("R1", "silent", "timed out")),
                (12, json!({"event": "relay_refused", "relay": "R1"})),
            ]
        ),
        [true, false, false, false]
    );
    let clock = facts(&[(Fault::ClockOfNode(Side::A, 3600), 10, 20)]);
    let early = "clock: by this host's clock";
    assert_eq!(
        are_true(
            &clock,
            &[
                (12, lost("R0", "clock", early)),
                (12, unreachable("R0", "timed out")),
                (5, lost("R0", "clock", early)),
                (12, lost("R0", "silent", "no answer to pings")),
            ]
        ),
        [true, false, false, false]
    );
}

#[test]
fn a_connection_ends_for_a_cause_or_because_another_one_is_there() {
    let connected = |kind: &str| json!({"event": "connected", "peer": "B", "path": {"kind": kind, "relay": "R0", "hops": [{"remote": "198.18.0.2:40000"}]}});
    let ends = |kind: &str, reason: &str| {
        let end = json!({"event": "disconnected", "peer": "B", "kind": kind, "reason": reason});
        seen(9, end)
    };
    let closed = |kind: &str| ends(kind, "closed");
    let calm = facts(&[]);
    let findings = |events: &[Seen]| calm.judge_node(Side::A, &[], events).len();
    let [relayed, direct] = ["relayed", "direct"].map(|kind| seen(1, connected(kind)));
    assert_eq!(
        findings(&[relayed.clone(), direct.clone(), closed("relayed")]),
        0
    );
    assert_eq!(
        findings(&[direct.clone(), direct.clone(), closed("direct")]),
        0
    );
    assert_eq!(findings(&[relayed.clone(), closed("relayed")]), 1);
    let before = [direct.clone()];
    let surplus = [relayed.clone(), closed("relayed")];
    assert_eq!(calm.judge_node(Side::A, &before, &surplus), []);
    assert_eq!(findings(&[relayed, direct.clone(), closed("direct")]), 1);
    let cut = facts(&[(Fault::PathCut, 5, 10)]);
    let findings = |reason: &str| {
        let events = [direct.clone(), ends("direct", reason)];
        cut.judge_node(Side::A, &[], &events).len()
    };
    let reasons = ["no answer to pings", "closed", "shutting down"];
    assert_eq!(reasons.map(findings), [0, 1, 1]);
}

#[test]
fn what_cannot_be_is_not_claimed() {
    let connected = |remote: &str| {
        let hops = json!([{"remote": remote}]);
        json!({"event": "connected", "peer": "A", "path": {"kind": "direct", "relay": null, "hops": hops}})
    };
    let facts = facts(&[(Fault::LinkSilent(Side::B), 10, 30)]);
    let by_b = |at, json| facts.judge_node(Side::B, &[], &[seen(at, json)]).is_empty();
    assert!(by_b(5, connected("198.18.0.1:40000")));
    assert!(!by_b(20, connected("198.18.0.1:40000")), "its link is down");
    assert!(!by_b(5, connected("198.18.0.200:40000")), "not yet");
    assert!(by_b(110, connected("198.18.0.200:40000")));
    assert!(!by_b(130, connected("198.18.0.1:40000")), "no longer");
    assert!(!by_b(20, json!({"event": "reserved", "relay": "R0"})));
    assert!(!by_b(5, json!({"event": "surprise"})));
    let ping = |at| {
        let ping = json!({"event": "ping", "kind": "relayed"});
        facts.judge_dial("dial", Side::A, &[seen(at, ping)]).len()
    };
    assert_eq!([5, 12, 20, 30].map(ping), [0, 0, 1, 0]);
    let paused = |reason: &str| json!({"event": "search_paused", "reason": reason});
    assert!(by_b(12, paused("no_relay")) && !by_b(5, paused("no_relay")));
    let result = |at| {
        let result = json!({"event": "result", "outcome": "unreachable"});
        facts.judge_dial("dial", Side::A, &[seen(at, result)]).len()
    };
    assert_eq!([5, 20, 90, 300].map(result), [1, 0, 0, 1]);
}
