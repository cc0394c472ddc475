//! What nodes may report, given what happened: each reason needs a cause that was there, and nothing impossible is claimed.
//!
//! Pure: events and faults have times since the start.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::schedule::{Fault, NAMED, Side};

/// The network in which the relays of the lab are.
const RELAYS: &str = "198.18.1.";
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

    /// Judges all that a node has printed. The connections that it opened `before` the first fault count as well.
    pub fn judge_node(&self, side: Side, before: &[Seen], events: &[Seen]) -> Vec<Finding> {
        let mut open = BTreeMap::new();
        for seen in before {
            count(&mut open, &seen.json);
        }
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
            "relay_unreachable" => {
                let relay = self.relay(text(json, "/relay")).ok_or("unknown relay")?;
                self.words(side, at, reason)?;
                self.caused(at, LOSS, |fault| {
                    Way::Leg(side, relay).is_cut_by(fault) || relay == NAMED && is_of_dns(fault)
                })
            }
            "reservation_lost" => {
                let relay = self.relay(text(json, "/relay")).ok_or("unknown relay")?;
                self.words(side, at, reason)?;
                let cause = text(json, "/cause");
                let is_cut = |fault| Way::Leg(side, relay).is_cut_by(fault);
                self.caused(at, LOSS, |fault| match cause {
                    // A relay that ends closes its connections.
                    "silent" => is_cut(fault) && !matches!(fault, Fault::RelayEnded(_)),
                    // One that is killed does not.
                    "closed" => is_cut(fault) && !matches!(fault, Fault::RelayKilled(_)),
                    // Of what was sent before an end, the last may be lost.
                    "broken" => is_cut(fault),
                    // It drains.
                    "refused" => matches!(fault, Fault::RelayEnded(of) if of == relay),
                    "clock" => is_of_clock(fault, side, relay),
                    _ => false,
                })
            }
            "connected" => self.connected(side, at, json),
            "disconnected" => self.disconnected(side, at, json, open),
            "punch" if text(json, "/outcome") == "direct" => Ok(()),
            "punch" => self.punch(side, at, reason),
            // An entry that outlives its connection, because the end of that was lost.
            "port_rests" => self.caused(at, LOSS, |fault| {
                (0..2).any(|relay| Way::Leg(side, relay).is_cut_by(fault))
            }),
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
        // A relay that is asked whether it reaches the node dials it under an id that it has for this alone.
        let remote = text(json, "/path/hops/0/remote");
        if text(json, "/path/how") == "accepted" && remote.starts_with(RELAYS) {
            return Ok(());
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
        if reason == "closed" || reason.starts_with("closed by this node") {
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
            "unreachable" => is_unreachable(fault, side),
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
            ("unreachable", &|fault| is_unreachable(fault, side)),
            ("no route", &is_unplugged),
            ("clock", &|fault| {
                (0..2).any(|relay| is_of_clock(fault, side, relay))
            }),
        ];
        // The sites have no IPv6, and that a leg of it has no route is true at any time.
        let is_of_ip6 = |leg: &&str| leg.starts_with("/dns6/") || leg.starts_with("/ip6/");
        let legs = reason.split("; ").filter(|leg| !is_of_ip6(leg));
        let reason = legs.collect::<Vec<_>>().join("; ");
        for (word, is_cause) in claims {
            if reason.contains(word) && !self.has_cause(at, LOSS, is_cause) {
                return Err(format!("{word:?} without a cause"));
            }
        }
        Ok(())
    }
}

/// Whether packets of `side` have no way: a router that gets another address has none for a moment, and answers that.
fn is_unreachable(fault: Fault, side: Side) -> bool {
    [
        Fault::LinkUnplugged(side),
        Fault::CableUnplugged(side),
        Fault::Renumbered(side),
    ]
    .contains(&fault)
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
mod tests;
