//! What nodes may report, given what happened: each reason needs a cause that was there, and nothing impossible is claimed.
//!
//! Pure: events and faults have times since the start.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::schedule::{Fault, NAMED, Side};

/// How long after its end a fault still is the cause of a loss: a ping, a dial and its retransmissions, a resolver.
const LOSS: Duration = Duration::from_secs(20);
/// The same of a failed punch, which has three attempts.
const PUNCH: Duration = Duration::from_secs(30);
/// The same of a punch after a NAT has other mappings: the backoff between two series.
const PUNCH_OF_NAT: Duration = Duration::from_secs(75);
/// The same of the end of a dial.
const RESULT: Duration = Duration::from_secs(75);
/// After which nothing that was on the way can arrive any more.
const IN_FLIGHT: Duration = Duration::from_secs(5);
/// How old an address of a peer may be that a connection is reported with.
const OLD_ADDRESS: Duration = Duration::from_secs(15);

/// No fault of a schedule is a cause of these.
const NEVER: [&str; 11] = [
    "exhausted",
    "in use",
    "too many",
    "no buffer",
    "memory",
    "permission",
    "access.allow",
    "another peer",
    "this node itself",
    "our own socket",
    "panicked",
];

/// A fault as it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    pub fault: Fault,
    /// Its effects may begin.
    pub begins: Duration,
    /// It is there.
    pub stands: Duration,
    /// It begins to go.
    pub goes: Duration,
    /// It is gone.
    pub gone: Duration,
}

impl Applied {
    fn is_cause(&self, at: Duration, tail: Duration) -> bool {
        self.begins <= at && at <= self.gone + tail
    }

    /// Whether it stood for longer than anything is on the way.
    fn is_total(&self, at: Duration, slack: Duration) -> bool {
        self.stands + slack <= at && at < self.goes
    }
}

#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub faults: Vec<Applied>,
    /// Times at which the machine did not run the test itself.
    pub stalls: Vec<[Duration; 2]>,
    /// The ids of the nodes and of the relays.
    pub nodes: [String; 2],
    pub relays: [String; 2],
    /// From when on each NAT had which address.
    pub outside: [Vec<(Duration, IpAddr)>; 2],
}

#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub at: Duration,
    pub json: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub at: Duration,
    pub who: String,
    pub what: String,
}

/// What a connection to another process runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From this side to one relay.
    Leg(Side, usize),
    /// Between the sites.
    Direct,
    /// Between the sites, over any relay.
    Circuit,
}

impl Way {
    fn is_cut_by(self, fault: Fault) -> bool {
        match (self, fault) {
            (_, Fault::Slow { .. }) => true,
            (Self::Leg(side, _), _) if is_of_site(fault, side) => true,
            (Self::Leg(_, relay), fault) => is_of_relay(fault, relay),
            (Self::Direct, Fault::PathCut) => true,
            (Self::Direct, fault) => Side::BOTH.iter().any(|side| is_of_site(fault, *side)),
            (Self::Circuit, fault) => Side::BOTH
                .iter()
                .any(|side| (0..2).any(|relay| Self::Leg(*side, relay).is_cut_by(fault))),
        }
    }
}

fn is_of_site(fault: Fault, side: Side) -> bool {
    silences(fault, side)
        || matches!(fault, Fault::NatReboot(of) | Fault::Renumbered(of) if of == side)
}

/// Whether nothing passes from or to the node of this side.
fn silences(fault: Fault, side: Side) -> bool {
    matches!(
        fault,
        Fault::LinkSilent(of)
        | Fault::LinkUnplugged(of)
        | Fault::CableUnplugged(of)
        | Fault::Suspended(of) if of == side
    )
}

fn is_of_relay(fault: Fault, relay: usize) -> bool {
    matches!(
        fault,
        Fault::RelayKilled(of) | Fault::RelayEnded(of) | Fault::RelaySuspended(of) if of == relay
    )
}

fn is_of_dns(fault: Fault) -> bool {
    matches!(fault, Fault::DnsSilent | Fault::DnsRefused)
}

fn is_of_clock(fault: Fault, side: Side, relay: usize) -> bool {
    matches!(fault, Fault::ClockOfNode(of, _) if of == side)
        || matches!(fault, Fault::ClockOfRelay(of, _) if of == relay)
}

impl Facts {
    fn has_cause(&self, at: Duration, tail: Duration, is_cause: impl Fn(Fault) -> bool) -> bool {
        let mut faults = self.faults.iter();
        let mut stalls = self.stalls.iter();
        faults.any(|applied| applied.is_cause(at, tail) && is_cause(applied.fault))
            || stalls.any(|[from, until]| *from <= at && at <= *until + tail)
    }

    fn relay(&self, id: &str) -> Option<usize> {
        self.relays.iter().position(|relay| relay == id)
    }

    /// Judges all that a node has printed.
    pub fn judge_node(&self, side: Side, events: &[Seen]) -> Vec<Finding> {
        let mut open = BTreeMap::new();
        let judged = events.iter().map(|seen| {
            let judged = self.judge(side, seen, &open);
            count(&mut open, &seen.json);
            (seen, judged)
        });
        findings(side.name(), judged)
    }

    /// Judges all that a dial from this side has printed.
    pub fn judge_dial(&self, name: &str, side: Side, events: &[Seen]) -> Vec<Finding> {
        let judged = events.iter().map(|seen| {
            let event = text(&seen.json, "/event");
            let judged = match event {
                "ping" => self.ping(seen),
                "ping_missed" => self.caused(seen.at, LOSS, |fault| {
                    Way::Direct.is_cut_by(fault) || Way::Circuit.is_cut_by(fault)
                }),
                "result" => self.caused(seen.at, RESULT, |_| true),
                // Which connections were open before the dial is not in its events.
                "connected" | "disconnected" | "dialing" => Ok(()),
                _ => self.judge(side, seen, &BTreeMap::new()),
            };
            (seen, judged)
        });
        findings(name, judged)
    }

    fn judge(
        &self,
        side: Side,
        seen: &Seen,
        open: &BTreeMap<(String, String), usize>,
    ) -> Result<(), String> {
        let (at, json) = (seen.at, &seen.json);
        self.nothing_while(at, Duration::from_secs(1), |fault| {
            fault == Fault::Suspended(side)
        })?;
        let reason = text(json, "/reason");
        match text(json, "/event") {
            "started" | "listening" | "dialing" => Ok(()),
            "reserved" => self.up(side, at, self.relay(text(json, "/relay"))),
            "relay_unreachable" | "reservation_lost" => {
                let relay = self.relay(text(json, "/relay")).ok_or("unknown relay")?;
                let is_dial = text(json, "/event") == "relay_unreachable";
                self.words(side, at, reason)?;
                self.caused(at, LOSS, |fault| {
                    Way::Leg(side, relay).is_cut_by(fault)
                        || is_dial && relay == NAMED && is_of_dns(fault)
                        || !is_dial && is_of_clock(fault, side, relay)
                })
            }
            "connected" => self.connected(side, at, json),
            "disconnected" => self.disconnected(side, at, json, open),
            "punch" if text(json, "/outcome") == "direct" => Ok(()),
            "punch" => self.punch(side, at, reason),
            "search_paused" if reason == "no_relay" => self.caused(at, LOSS, |fault| {
                (0..2).any(|relay| Way::Leg(side, relay).is_cut_by(fault)) || is_of_dns(fault)
            }),
            "search_paused" => self.caused(at, LOSS, |fault| Way::Circuit.is_cut_by(fault)),
            "search_resumed" => self.caused(at, RESULT, |_| true),
            "relay_refused" => Err("no relay refuses anybody".to_owned()),
            _ => Err("unknown event".to_owned()),
        }
    }

    fn caused(
        &self,
        at: Duration,
        tail: Duration,
        is_cause: impl Fn(Fault) -> bool,
    ) -> Result<(), String> {
        match self.has_cause(at, tail, is_cause) {
            true => Ok(()),
            false => Err("no cause".to_owned()),
        }
    }

    fn nothing_while(
        &self,
        at: Duration,
        slack: Duration,
        forbids: impl Fn(Fault) -> bool,
    ) -> Result<(), String> {
        let mut faults = self.faults.iter();
        match faults.find(|applied| applied.is_total(at, slack) && forbids(applied.fault)) {
            Some(applied) => Err(format!("impossible: {:?}", applied.fault)),
            None => Ok(()),
        }
    }

    fn up(&self, side: Side, at: Duration, relay: Option<usize>) -> Result<(), String> {
        self.nothing_while(at, IN_FLIGHT, |fault| {
            silences(fault, side) || relay.is_some_and(|relay| is_of_relay(fault, relay))
        })
    }

    fn connected(&self, side: Side, at: Duration, json: &Value) -> Result<(), String> {
        let peer = text(json, "/peer");
        let relay = text(json, "/path/relay");
        if let Some(relay) = self.relay(peer).or_else(|| self.relay(relay)) {
            return self.up(side, at, Some(relay));
        }
        let far = Side::BOTH[1 - side.index()];
        if peer != self.nodes[far.index()] {
            return Err("a peer that is not of this lab".to_owned());
        }
        self.up(side, at, None)?;
        let remote = text(json, "/path/hops/0/remote");
        let remote = remote.rsplit_once(':').and_then(|(ip, _)| ip.parse().ok());
        let remote: IpAddr = remote.ok_or("a direct path without an address")?;
        let history = &self.outside[far.index()];
        let mut addresses = history.iter().enumerate();
        let is_known = addresses.any(|(number, (from, ip))| {
            let until = history.get(number + 1).map_or(Duration::MAX, |next| next.0);
            *ip == remote && *from <= at && at <= until.saturating_add(OLD_ADDRESS)
        });
        match is_known {
            true => Ok(()),
            false => Err(format!("the peer was not at {remote}: {history:?}")),
        }
    }

    fn disconnected(
        &self,
        side: Side,
        at: Duration,
        json: &Value,
        open: &BTreeMap<(String, String), usize>,
    ) -> Result<(), String> {
        let (peer, kind) = (text(json, "/peer"), text(json, "/kind"));
        self.words(side, at, text(json, "/reason"))?;
        let opened = |kind: &str| open.get(&(peer.to_owned(), kind.to_owned())).copied();
        // A surplus connection, or a circuit that a direct one replaces.
        let others = match kind {
            "relayed" => opened("direct").unwrap_or(0) + opened("relayed").unwrap_or(0),
            _ => opened("direct").unwrap_or(0),
        };
        let way = match self.relay(peer) {
            Some(relay) => Way::Leg(side, relay),
            None if others > 1 => return Ok(()),
            None if kind == "direct" => Way::Direct,
            None => Way::Circuit,
        };
        let reason = text(json, "/reason");
        if reason == "closed" || reason == "closed by this node" {
            return Err("not why this node closed its last connection".to_owned());
        }
        self.caused(at, LOSS, |fault| way.is_cut_by(fault))
    }

    fn punch(&self, side: Side, at: Duration, reason: &str) -> Result<(), String> {
        let far = Side::BOTH[1 - side.index()];
        let no_candidates = |fault, side| {
            (0..2).any(|relay| Way::Leg(side, relay).is_cut_by(fault)) || is_of_dns(fault)
        };
        let is_cause = |fault: Fault| match reason {
            "timeout" | "dial_failed" => Way::Direct.is_cut_by(fault),
            "refused" => matches!(fault, Fault::NatReboot(_) | Fault::Renumbered(_)),
            "unreachable" => {
                fault == Fault::LinkUnplugged(side) || fault == Fault::CableUnplugged(side)
            }
            "no_candidates" => no_candidates(fault, side),
            "no_remote_candidates" => no_candidates(fault, far),
            "handshake_failed" | "handshake_timeout" | "remote_silent" | "circuit_lost" => {
                Way::Circuit.is_cut_by(fault)
            }
            "superseded" => true,
            _ => false,
        };
        let is_of_nat = |fault| matches!(fault, Fault::NatReboot(_) | Fault::Renumbered(_));
        if reason == "superseded"
            || self.has_cause(at, PUNCH, is_cause)
            || self.has_cause(at, PUNCH_OF_NAT, |fault| {
                is_of_nat(fault) && is_cause(fault)
            })
        {
            return Ok(());
        }
        Err("no cause".to_owned())
    }

    fn ping(&self, seen: &Seen) -> Result<(), String> {
        let is_direct = text(&seen.json, "/kind") == "direct";
        self.nothing_while(seen.at, IN_FLIGHT, |fault| {
            Side::BOTH.iter().any(|side| silences(fault, *side))
                || is_direct && fault == Fault::PathCut
        })
    }

    /// What the words of a reason claim.
    fn words(&self, side: Side, at: Duration, reason: &str) -> Result<(), String> {
        let reason = reason.to_lowercase();
        if let Some(word) = NEVER.iter().find(|word| reason.contains(**word)) {
            return Err(format!("{word:?} is never the reason here"));
        }
        let is_unplugged =
            |fault| fault == Fault::LinkUnplugged(side) || fault == Fault::CableUnplugged(side);
        type IsCause<'a> = &'a dyn Fn(Fault) -> bool;
        let claims: [(&str, IsCause<'_>); 6] = [
            ("resolve", &|fault| {
                is_of_dns(fault) || silences(fault, side) || matches!(fault, Fault::Slow { .. })
            }),
            ("refused", &|fault| {
                matches!(fault, Fault::RelayKilled(_) | Fault::RelayEnded(_))
                    || fault == Fault::DnsRefused
            }),
            ("shutting down", &|fault| {
                matches!(fault, Fault::RelayEnded(_))
            }),
            ("unreachable", &is_unplugged),
            ("no route", &is_unplugged),
            ("timestamp", &|fault| {
                (0..2).any(|relay| is_of_clock(fault, side, relay))
            }),
        ];
        for (word, is_cause) in claims {
            if reason.contains(word) && !self.has_cause(at, LOSS, is_cause) {
                return Err(format!("{word:?} without a cause"));
            }
        }
        Ok(())
    }
}

fn text<'a>(json: &'a Value, pointer: &str) -> &'a str {
    json.pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Counts the open connections of each kind to each peer.
fn count(open: &mut BTreeMap<(String, String), usize>, json: &Value) {
    let key = |kind: &str| (text(json, "/peer").to_owned(), kind.to_owned());
    match text(json, "/event") {
        "connected" => *open.entry(key(text(json, "/path/kind"))).or_default() += 1,
        "disconnected" => {
            let count = open.entry(key(text(json, "/kind"))).or_default();
            *count = count.saturating_sub(1);
        }
        _ => {}
    }
}

fn findings<'a>(
    who: &str,
    judged: impl Iterator<Item = (&'a Seen, Result<(), String>)>,
) -> Vec<Finding> {
    let finding = |(seen, judged): (&Seen, Result<(), String>)| {
        judged.err().map(|why| Finding {
            at: seen.at,
            who: who.to_owned(),
            what: format!("{why}: {}", seen.json),
        })
    };
    judged.filter_map(finding).collect()
}

#[cfg(test)]
mod tests {
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
            facts.judge_node(Side::A, &events).is_empty()
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
        let lost = |relay: &str, reason: &str| json!({"event": "reservation_lost", "relay": relay, "reason": reason});
        let unreachable = |relay: &str, reason: &str| json!({"event": "relay_unreachable", "relay": relay, "reason": reason});
        let killed = facts(&[(Fault::RelayKilled(0), 10, 20)]);
        assert_eq!(
            are_true(
                &killed,
                &[
                    (12, lost("R0", "timed out")),
                    (12, unreachable("R0", "Connection refused")),
                    (12, lost("R1", "timed out")),
                    (60, lost("R0", "timed out")),
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
        let dns = facts(&[(Fault::DnsRefused, 10, 20)]);
        let resolve = "cannot resolve relay.test: refused";
        assert_eq!(
            are_true(
                &dns,
                &[
                    (12, unreachable("R1", resolve)),
                    (12, unreachable("R0", resolve)),
                    (12, lost("R1", "timed out")),
                    (12, json!({"event": "relay_refused", "relay": "R1"})),
                ]
            ),
            [true, false, false, false]
        );
        let clock = facts(&[(Fault::ClockOfNode(Side::A, 3600), 10, 20)]);
        let early = "Invalid expiration timestamp";
        assert_eq!(
            are_true(
                &clock,
                &[
                    (12, lost("R0", early)),
                    (12, unreachable("R0", "timed out")),
                    (5, lost("R0", early)),
                ]
            ),
            [true, false, false]
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
        let findings = |events: &[Seen]| calm.judge_node(Side::A, events).len();
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
        assert_eq!(findings(&[relayed, direct.clone(), closed("direct")]), 1);
        let cut = facts(&[(Fault::PathCut, 5, 10)]);
        let findings = |reason: &str| {
            let events = [direct.clone(), ends("direct", reason)];
            cut.judge_node(Side::A, &events).len()
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
        let by_b = |at, json| facts.judge_node(Side::B, &[seen(at, json)]).is_empty();
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
}
