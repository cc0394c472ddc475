//! From facts to checks and a verdict.

use std::{collections::BTreeSet, net::IpAddr};

use p2pnode_transports::Family;

use super::{
    Allocation, Check, Facts, Filtering, Id, Kind, Leg, Lifetime, Mapping, Nat, Nat64,
    NetcheckEvent, PathFacts, Report, Status,
    facts::KEPT_ALIVE,
    host::host,
    mapping::mappings,
    mtu::mtu,
    nat::AllocationKind,
    range::range,
    relay::{came, hidden, is_slow, legs, of_relay, udp},
    report::{check, of_path},
    verdict::verdict,
};

use crate::{config::Rotate, core::finding::Remedy};

/// A clock that differs by less is right.
const CLOCK_OK_MS: u64 = 5_000;

/// Beyond this, reservations and tokens suffer.
const CLOCK_BAD_MS: u64 = 60_000;

/// What `facts` mean.
pub(crate) fn assess(facts: &Facts) -> Report {
    let facts = &facts.without_doubt();
    let mut checks: Vec<Check> = facts
        .relays
        .iter()
        .map(|relay| of_relay(relay, facts))
        .collect();
    checks.extend(hidden(facts));
    checks.extend(udp(facts));
    let paths = facts.paths.iter();
    let shows = paths.filter(|path| came(path, facts) || path.gets_out());
    let shows: Vec<&PathFacts> = shows.collect();
    checks.extend(shows.iter().filter_map(|path| range(path, facts)));
    let answered = shows.into_iter().filter(|path| came(path, facts));
    let answered: Vec<&PathFacts> = answered.collect();
    let nats: Vec<(&PathFacts, Nat)> = answered.iter().map(|path| (*path, nat(path))).collect();
    checks.extend(nats.iter().map(|(path, nat)| of_nat(path, nat, facts)));
    checks.extend(nats.iter().filter_map(|(path, nat)| hairpin(path, nat)));
    checks.extend(answered.iter().filter_map(|path| mtu(path, facts)));
    let lifetimes = answered.iter();
    checks.extend(lifetimes.filter_map(|path| lifetime(path, facts.rotate)));
    checks.extend(mappings(facts));
    checks.push(nat64(facts));
    checks.push(clock(facts));
    checks.push(host(facts));
    Report {
        event: NetcheckEvent::Netcheck,
        checks,
        verdict: verdict(&nats, facts),
    }
}

fn nat(path: &PathFacts) -> Nat {
    let mapping = Mapping::of(path);
    let filtering = Filtering::of(path, mapping);
    let allocation = Allocation::of(path);
    let own = path.shown().find_map(|seen| seen.mapped.zip(seen.local));
    let own = own.map(|(mapped, local)| mapped.port() == local.port());
    let preserved = match allocation.kind {
        AllocationKind::Preserved => own,
        AllocationKind::Unknown => own,
        AllocationKind::Sequential | AllocationKind::Block | AllocationKind::Random => Some(false),
    };
    Nat {
        mapping,
        filtering,
        preserved,
        allocation,
        kind: Kind::of(mapping, filtering, preserved),
    }
}

fn of_nat(path: &PathFacts, nat: &Nat, facts: &Facts) -> Check {
    let ports = match (nat.preserved, nat.allocation.kind) {
        (Some(true), _) => "port preserved".to_owned(),
        (_, AllocationKind::Random) => "random ports".to_owned(),
        (_, AllocationKind::Block) => format!(
            "ports of a block ({}-{})",
            nat.allocation.from.unwrap_or_default(),
            nat.allocation.to.unwrap_or_default()
        ),
        (_, AllocationKind::Sequential) => format!(
            "ports one after another (by {})",
            nat.allocation.step.unwrap_or_default()
        ),
        (Some(false), AllocationKind::Preserved | AllocationKind::Unknown) => {
            "port rewritten".to_owned()
        }
        (None, AllocationKind::Preserved | AllocationKind::Unknown) => "ports unknown".to_owned(),
    };
    let (status, remedy) = match nat.kind {
        Kind::None | Kind::FullCone | Kind::AddressRestricted => (Status::Ok, None),
        Kind::EimApdf | Kind::EimApdfRewrite | Kind::Firewall => (Status::Warn, None),
        Kind::Symmetric => (Status::Fail, Some(Remedy::preserve_range())),
        Kind::Unknown => (Status::Unknown, Some(what_it_takes(path, facts))),
    };
    let text = format!(
        "mapping {}, filtering {}, {ports} ({})",
        nat.mapping.words(),
        nat.filtering.words(),
        nat.kind.name()
    );
    let nat_check = Check {
        nat: Some(*nat),
        ..check(Id::Nat, status, text, remedy)
    };
    of_path(path, nat_check)
}

/// What shows a NAT whose kind is unknown.
fn what_it_takes(path: &PathFacts, facts: &Facts) -> Remedy {
    let range = facts.range;
    let seen = path.seen.iter().filter(|seen| seen.mapped.is_some());
    let by: BTreeSet<IpAddr> = seen.map(|seen| seen.by.ip()).collect();
    let has_two = path.has_partner || by.len() > 1;
    if let Some(fault) = path.faults.first() {
        return Remedy::fault(*fault, range);
    }
    if path.is_hidden() {
        return Remedy::keep_source();
    }
    if path.lacks_punch_port() && !path.lacks_port {
        return Remedy::range_blocked(range);
    }
    match (by.is_empty(), path.lacks_port) {
        (_, false) if is_slow(path, facts) => Remedy::slow_path(),
        (true, false) => Remedy::newer_relay(),
        (true, true) => Remedy::few_ports(),
        (false, true) if has_two => Remedy::few_ports(),
        (false, _) if has_two && !path.has_partner => Remedy::partners(),
        (false, _) => Remedy::second_relay(),
    }
}

fn hairpin(path: &PathFacts, nat: &Nat) -> Option<Check> {
    if nat.mapping == Mapping::None {
        return None;
    }
    let text = if path.hairpin? {
        "yes: peers behind the same NAT reach each other by their mappings"
    } else {
        "no; not needed: peers behind the same NAT use private addresses that a relay vouches for"
    };
    Some(of_path(path, check(Id::Hairpin, Status::Ok, text, None)))
}

fn lifetime(path: &PathFacts, rotate: Rotate) -> Option<Check> {
    let Lifetime {
        idle_alive,
        idle_dead,
        age,
    } = path.lifetime?;
    let idle = match (idle_alive, idle_dead) {
        (Some(alive), None) => Some(format!("idle mappings live for {alive} s or longer")),
        (Some(alive), Some(dead)) => {
            Some(format!("idle mappings end between {alive} and {dead} s"))
        }
        (None, Some(dead)) => Some(format!("idle mappings end within {dead} s")),
        (None, None) => None,
    };
    let check = match (age, idle) {
        (Some(age), idle) => {
            let idle = idle.map_or_else(String::new, |idle| format!("; {idle}"));
            let text = format!("mappings end after {age} s of age although they are used{idle}");
            // Paths leave after half of what is configured.
            let is_left = matches!(rotate, Rotate::After(given) if given.as_secs() <= age.into());
            match is_left {
                true => check(Id::Lifetime, Status::Ok, text, None),
                false => check(
                    Id::Lifetime,
                    Status::Warn,
                    text,
                    Some(Remedy::punch_rotate(age)),
                ),
            }
        }
        (None, Some(idle)) if idle_alive.is_none_or(|alive| alive < KEPT_ALIVE) => {
            check(Id::Lifetime, Status::Warn, idle, None)
        }
        (None, Some(idle)) => check(Id::Lifetime, Status::Ok, idle, None),
        (None, None) => {
            let text =
                "unknown: the relay has not answered to another port; it takes one of this release";
            check(Id::Lifetime, Status::Unknown, text, None)
        }
    };
    Some(of_path(path, check))
}

fn nat64(facts: &Facts) -> Check {
    let answers = |leg: &Leg| leg.family == Family::Ip4 && leg.answer.is_there();
    let has_ip4 = legs(facts).any(answers);
    if facts.paths.iter().any(PathFacts::is_translated) {
        let prefix = match facts.nat64 {
            Nat64::Prefix(prefix) => format!("yes, {prefix}"),
            Nat64::None | Nat64::Unknown => "yes".to_owned(),
        };
        let text = format!(
            "{prefix}: relays of IPv4 are reached through it. Peers of IPv4 alone stay relayed, and those of IPv6 may be direct"
        );
        return check(Id::Nat64, Status::Warn, text, Some(Remedy::nat64()));
    }
    let (status, text) = match facts.nat64 {
        Nat64::None => (Status::Ok, "no: the resolver is no DNS64".to_owned()),
        Nat64::Prefix(prefix) => (
            Status::Ok,
            format!(
                "yes, {prefix}: give relays that have IPv4 alone by name, and they are reached over IPv6"
            ),
        ),
        Nat64::Unknown if facts.lacks_files() => (
            Status::Unknown,
            "unknown: too many files are open".to_owned(),
        ),
        Nat64::Unknown if has_ip4 => (Status::Ok, "not needed: IPv4 gets out".to_owned()),
        Nat64::Unknown => (
            Status::Unknown,
            "unknown: no resolver of /etc/resolv.conf answers; it takes one that does".to_owned(),
        ),
    };
    check(Id::Nat64, status, text, None)
}

fn clock(facts: &Facts) -> Check {
    let Some(ahead) = facts.clock_ahead else {
        let has_seen = |path: &PathFacts| path.seen.iter().any(|seen| seen.mapped.is_some());
        let text = if facts.paths.iter().any(has_seen) {
            "unknown: no relay has shown its clock; it takes one of this release"
        } else if legs(facts).any(|leg| leg.answer.is_there()) {
            "unknown: no relay answers STUN; it takes one of this release"
        } else {
            "unknown: no relay answers"
        };
        return check(Id::Clock, Status::Unknown, text, None);
    };
    let off = ahead.unsigned_abs();
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    let text = format!("{:.1} s {side} the relay's", off as f64 / 1000.0);
    match off {
        ..CLOCK_OK_MS => check(Id::Clock, Status::Ok, text, None),
        CLOCK_OK_MS..CLOCK_BAD_MS => check(Id::Clock, Status::Warn, text, Some(Remedy::clock())),
        _ => check(Id::Clock, Status::Fail, text, Some(Remedy::clock())),
    }
}
