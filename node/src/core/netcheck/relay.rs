//! Whether relays are where their addresses say, and whether UDP gets there.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use p2pnode_transports::Transport;

use super::{
    Answer, Check, Facts, Id, Leg, PathFacts, RelayFacts, Status, facts::LEAST_PAYLOAD,
    report::check,
};
use crate::core::finding::{Finding, Remedy};

/// A look over TCP takes some four round trips, and ends after 3 s.
const SLOW: Duration = Duration::from_millis(400);

pub(super) fn legs(facts: &Facts) -> impl Iterator<Item = &Leg> {
    facts.relays.iter().flat_map(|relay| &relay.legs)
}

fn of_path<'a>(path: &PathFacts, facts: &'a Facts) -> impl Iterator<Item = &'a Leg> {
    let of = (path.transport, path.family);
    legs(facts).filter(move |leg| (leg.transport, leg.family) == of)
}

/// Whether a relay is there over the transport and family of a path.
pub(super) fn is_up(path: &PathFacts, facts: &Facts) -> bool {
    of_path(path, facts).any(|leg| leg.answer.is_there())
}

/// Whether anything came back over it.
pub(super) fn came(path: &PathFacts, facts: &Facts) -> bool {
    of_path(path, facts).any(|leg| leg.answer.came())
}

/// Whether anything was sent over it to a relay.
pub(super) fn is_asked(path: &PathFacts, facts: &Facts) -> bool {
    of_path(path, facts).any(|leg| !leg.answer.is_of_this_host())
}

/// Whether the relays answer so late, or not in time, that what is missing may only be late.
pub(super) fn is_slow(path: &PathFacts, facts: &Facts) -> bool {
    let has = |is_it: &dyn Fn(&Answer) -> bool| of_path(path, facts).any(|leg| is_it(&leg.answer));
    let is_prompt = has(&|answer| matches!(answer, Answer::After(rtt) if *rtt < SLOW));
    let is_late = has(&|answer| matches!(answer, Answer::After(rtt) if *rtt >= SLOW));
    let is_held = has(&|answer| *answer == Answer::Held) && !path.gets_out();
    !is_prompt && (is_late || is_held)
}

pub(super) fn of_relay(relay: &RelayFacts, facts: &Facts) -> Check {
    let text: Vec<String> = relay.legs.iter().map(text).collect();
    let has = |is_it: fn(&Answer) -> bool| relay.legs.iter().any(|leg| is_it(&leg.answer));
    let is_there = has(Answer::is_there);
    // A host needs one family only.
    let is_well = |answer: &Answer| answer.is_there() || *answer == Answer::NoRoute;
    let has_other = has(|answer| matches!(answer, Answer::Other(_)));
    let has_unproved = has(|answer| matches!(answer, Answer::Unproved(_)));
    let narrow = relay
        .legs
        .iter()
        .find_map(|leg| is_narrow(leg, facts).then_some(leg.transport));
    let status = match is_there {
        true if relay.legs.iter().all(|leg| is_well(&leg.answer)) => Status::Ok,
        true => Status::Warn,
        false if has_unproved && !has_other && narrow.is_none() => Status::Unknown,
        false => Status::Fail,
    };
    let remedy = if has_other {
        Some(Remedy::wrong_peer())
    } else if has(|answer| matches!(answer, Answer::Unresolved(_))) {
        Some(Remedy::resolver())
    } else if is_there {
        None
    } else if let Some(transport) = narrow {
        Some(Remedy::too_long(transport))
    } else if has_unproved && facts.ends_certificates() {
        Some(Remedy::clock())
    } else if has_unproved {
        Some(Remedy::no_handshake())
    } else {
        Some(unreachable(relay, facts))
    };
    let text = format!("{}: {}", relay.relay, text.join(", "));
    check(Id::Relay, status, text, remedy)
}

/// Relays that see the address of a NAT in place of this host's.
pub(super) fn hidden(facts: &Facts) -> impl Iterator<Item = Check> {
    let paths = facts.paths.iter().filter(|path| is_up(path, facts));
    let seen = paths.flat_map(|path| &path.seen);
    let seen = seen.filter_map(|seen| Some((seen.by.ip(), seen.hidden_at()?)));
    let seen: BTreeSet<(IpAddr, IpAddr)> = seen.collect();
    seen.into_iter().map(|(relay, at)| {
        let text = Finding::hidden(relay, at);
        Check {
            hidden_from: Some(relay),
            ..check(Id::Relay, Status::Warn, text, Some(Remedy::keep_source()))
        }
    })
}

fn text(leg: &Leg) -> String {
    let name = format!("{}/{}", leg.transport, leg.family);
    match &leg.answer {
        Answer::After(rtt) => format!("{name} {:.1} ms", rtt.as_secs_f64() * 1000.0),
        Answer::Held => format!("{name} connected"),
        Answer::Other(peer) => format!("{name} another peer answers there: {peer}"),
        Answer::Unproved(rtt) => {
            let ms = rtt.as_secs_f64() * 1000.0;
            format!("{name} something answers after {ms:.1} ms, and no handshake ends")
        }
        Answer::Silent => format!("{name} no answer"),
        Answer::NoRoute => format!("{name} unreachable (no {} route)", leg.family),
        Answer::Fault(fault) => format!("{name} not asked ({})", fault.as_str()),
        Answer::Failed(why) | Answer::Unresolved(why) | Answer::NoSocket(why) => {
            format!("{name} unreachable ({why})")
        }
    }
}

/// Whether something answers short packets there, and long ones are lost.
fn is_narrow(leg: &Leg, facts: &Facts) -> bool {
    let of = |path: &PathFacts| (path.transport, path.family) == (leg.transport, leg.family);
    let is_it = |path: &PathFacts| of(path) && loses_long(path);
    matches!(leg.answer, Answer::Unproved(_)) && facts.paths.iter().any(is_it)
}

/// Whether datagrams that QUIC needs, or full segments, are lost.
pub(super) fn loses_long(path: &PathFacts) -> bool {
    let least = match path.transport {
        Transport::Quic => LEAST_PAYLOAD,
        Transport::Tcp => 1,
    };
    path.both_ways().is_some_and(|payload| payload < least)
}

/// Whether a handshake over TCP has ended, for which short segments are enough.
pub(super) fn takes_short(path: &PathFacts, facts: &Facts) -> bool {
    let shook_hands = |leg: &Leg| matches!(leg.answer, Answer::After(_));
    path.transport == Transport::Tcp && of_path(path, facts).any(shook_hands)
}

/// What mends that nothing of a relay came.
fn unreachable(relay: &RelayFacts, facts: &Facts) -> Remedy {
    let all = |is_it: fn(&Answer) -> bool| relay.legs.iter().all(|leg| is_it(&leg.answer));
    if all(|answer| *answer == Answer::NoRoute) {
        return Remedy::no_route();
    }
    let fault = relay.legs.iter().find_map(|leg| leg.answer.fault());
    if let Some(fault) = fault {
        return Remedy::fault(fault, facts.range);
    }
    if all(Answer::is_of_this_host) {
        let exhausted = facts.host.unbound.as_ref();
        return exhausted.map_or_else(Remedy::no_socket, Remedy::no_port);
    }
    let is_silent = |path: &&PathFacts| {
        let of = |leg: &Leg| (leg.transport, leg.family) == (path.transport, path.family);
        relay.legs.iter().any(of) && !came(path, facts)
    };
    // This host sends nothing from other ports, and so from the punch port.
    let mut silent = facts.paths.iter().filter(is_silent);
    if let Some(fault) = silent.find_map(|path| path.faults.first()) {
        return Remedy::fault(*fault, facts.range);
    }
    let is_blocked = |path: &PathFacts| is_silent(&path) && path.gets_out();
    match facts.paths.iter().any(is_blocked) {
        true => Remedy::range_blocked(facts.range),
        false => Remedy::unreachable(facts.range),
    }
}

pub(super) fn udp(facts: &Facts) -> Option<Check> {
    let over = |transport: Transport| legs(facts).filter(move |leg| leg.transport == transport);
    over(Transport::Quic).next()?;
    let others = |path: &PathFacts| path.transport == Transport::Quic && path.gets_out();
    // Of one relay and family: another relay may only be away.
    let beside = |of: &RelayFacts, is_it: fn(&Answer) -> bool| {
        let is_silent =
            |leg: &&Leg| (leg.transport, &leg.answer) == (Transport::Quic, &Answer::Silent);
        let mut silent = of.legs.iter().filter(is_silent);
        silent.any(|quic| {
            let is_tcp = |leg: &&Leg| (leg.transport, leg.family) == (Transport::Tcp, quic.family);
            of.legs.iter().filter(is_tcp).any(|leg| is_it(&leg.answer))
        })
    };
    let mut relays = facts.relays.iter();
    let is_blocked = relays.any(|relay| beside(relay, Answer::is_there));
    let mut relays = facts.relays.iter();
    let has_tcp = relays.any(|relay| beside(relay, |_| true));
    let (status, text, remedy) = if over(Transport::Quic).any(|leg| leg.answer.came()) {
        (Status::Ok, "UDP gets out, and answers come in", None)
    } else if facts.paths.iter().any(others) {
        let text =
            "UDP gets out from other ports of the range than the punch port, and answers come in";
        (Status::Ok, text, None)
    } else if is_blocked {
        let remedy = Remedy::udp_blocked(facts.range);
        let text = "udp_blocked: no UDP comes back, and TCP does";
        (Status::Fail, text, Some(remedy))
    } else if over(Transport::Quic).all(|leg| leg.answer != Answer::Silent) {
        (Status::Unknown, "unknown: no UDP was sent", None)
    } else if !has_tcp {
        let text = "unknown: no UDP comes back; it takes a TCP address of the same relay to see whether UDP alone is lost";
        (Status::Unknown, text, None)
    } else {
        let text = "unknown: no relay answers over TCP either; it takes one that does";
        (Status::Unknown, text, None)
    };
    Some(check(Id::Udp, status, text, remedy))
}
