//! From facts to checks and a verdict.

use p2pnode_transports::{Family, PortRange, Transport};

use super::{
    Allocation, Answer, Check, Facts, Filtering, HostFacts, Id, Kind, Leg, Lifetime, Mapping, Nat,
    Nat64, NetcheckEvent, PathFacts, PeerClass, RelayFacts, Report, Status, Verdict,
    mapping::{is_open, mappings},
    nat::AllocationKind,
    report::{check, of_path},
};

use crate::{config::Rotate, core::finding::Remedy};

/// A clock that differs by less is right.
const CLOCK_OK_MS: u64 = 5_000;

/// Beyond this, reservations and tokens suffer.
const CLOCK_BAD_MS: u64 = 60_000;

/// The payload that QUIC needs.
const LEAST_PAYLOAD: u16 = 1200;

/// The longest that is tried: what IPv6 leaves of 1,500 bytes. quinn looks no further.
pub(crate) const FULL_PAYLOAD: u16 = 1452;

/// Connections are kept alive at least this often, in seconds.
const KEPT_ALIVE: u32 = 15;

/// What `facts` mean.
pub(crate) fn assess(facts: &Facts) -> Report {
    let facts = &facts.without_doubt();
    let mut checks: Vec<Check> = facts
        .relays
        .iter()
        .map(|relay| of_relay(relay, facts))
        .collect();
    checks.extend(udp(facts));
    let answered: Vec<&PathFacts> = facts
        .paths
        .iter()
        .filter(|path| is_up(path, facts))
        .collect();
    checks.extend(answered.iter().filter_map(|path| range(path, facts)));
    let nats: Vec<(&PathFacts, Nat)> = answered.iter().map(|path| (*path, nat(path))).collect();
    checks.extend(nats.iter().map(|(path, nat)| of_nat(path, nat)));
    checks.extend(nats.iter().filter_map(|(path, nat)| hairpin(path, nat)));
    checks.extend(answered.iter().filter_map(|path| mtu(path)));
    checks.extend(
        answered
            .iter()
            .filter_map(|path| lifetime(path, facts.rotate)),
    );
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

fn of_relay(relay: &RelayFacts, facts: &Facts) -> Check {
    let leg = |leg: &Leg| {
        let name = format!("{}/{}", leg.transport, leg.family);
        match &leg.answer {
            Answer::After(rtt) => format!("{name} {:.1} ms", rtt.as_secs_f64() * 1000.0),
            Answer::Silent => format!("{name} no answer"),
            Answer::Failed(why) | Answer::Unresolved(why) => format!("{name} unreachable ({why})"),
        }
    };
    let legs: Vec<String> = relay.legs.iter().map(leg).collect();
    let answers = relay
        .legs
        .iter()
        .filter(|leg| leg.answer.is_there())
        .count();
    let status = match answers {
        0 => Status::Fail,
        some if some < relay.legs.len() => Status::Warn,
        _ => Status::Ok,
    };
    let is_unresolved = |leg: &Leg| matches!(leg.answer, Answer::Unresolved(_));
    let remedy = match relay.legs.iter().any(is_unresolved) {
        true => Some(Remedy::resolver()),
        false => (answers == 0).then(|| Remedy::unreachable(facts.range)),
    };
    check(
        Id::Relay,
        status,
        format!("{}: {}", relay.relay, legs.join(", ")),
        remedy,
    )
}

fn legs(facts: &Facts) -> impl Iterator<Item = &Leg> {
    facts.relays.iter().flat_map(|relay| &relay.legs)
}

/// Whether a relay answers over the transport and family of a path.
fn is_up(path: &PathFacts, facts: &Facts) -> bool {
    legs(facts).any(|leg| {
        (leg.transport, leg.family) == (path.transport, path.family) && leg.answer.is_there()
    })
}

fn udp(facts: &Facts) -> Option<Check> {
    let over = |transport: Transport| legs(facts).filter(move |leg| leg.transport == transport);
    let answers = |transport| over(transport).any(|leg| leg.answer.is_there());
    over(Transport::Quic).next()?;
    Some(match (answers(Transport::Quic), answers(Transport::Tcp)) {
        (true, _) => check(
            Id::Udp,
            Status::Ok,
            "UDP gets out, and answers come in",
            None,
        ),
        (false, true) => check(
            Id::Udp,
            Status::Fail,
            "udp_blocked: no UDP comes back, and TCP does",
            Some(Remedy::udp_blocked(facts.range)),
        ),
        (false, false) => check(
            Id::Udp,
            Status::Unknown,
            "unknown: no relay answers over TCP either; it takes one that does",
            None,
        ),
    })
}

fn range(path: &PathFacts, facts: &Facts) -> Option<Check> {
    if path.sample.is_empty() {
        return None;
    }
    let range = facts.range;
    let out: Vec<_> = path
        .sample
        .iter()
        .filter_map(|(port, mapped)| Some((*port, (*mapped)?)))
        .collect();
    let sampled = path.sample.len();
    let kept = out
        .iter()
        .filter(|(port, mapped)| *port == mapped.port())
        .count();
    let seen = match kept {
        all if all == out.len() => "seen as themselves".to_owned(),
        0 => "seen at other ports".to_owned(),
        some => format!("{some} of them seen as themselves"),
    };
    let text = format!(
        "{range}: {} of {sampled} sampled ports get out, {seen}",
        out.len()
    );
    let check = match out.len() {
        0 => check(
            Id::Range,
            Status::Unknown,
            format!("{range}: no relay says how it sees the ports; it takes one that answers STUN"),
            Some(Remedy::newer_relay()),
        ),
        all if all == sampled => check(Id::Range, Status::Ok, text, None),
        _ => check(
            Id::Range,
            Status::Fail,
            format!("range_blocked: {text}"),
            Some(Remedy::range_blocked(range)),
        ),
    };
    Some(of_path(path, check))
}

fn nat(path: &PathFacts) -> Nat {
    let mapping = Mapping::of(path);
    let filtering = Filtering::of(path, mapping);
    let allocation = Allocation::of(path);
    let own = path
        .seen
        .iter()
        .find_map(|seen| seen.mapped.zip(seen.local));
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

fn of_nat(path: &PathFacts, nat: &Nat) -> Check {
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
    let asked_nobody = path.seen.iter().all(|seen| seen.mapped.is_none());
    let (status, remedy) = match nat.kind {
        Kind::None | Kind::FullCone | Kind::AddressRestricted => (Status::Ok, None),
        Kind::EimApdf | Kind::EimApdfRewrite | Kind::Firewall => (Status::Warn, None),
        Kind::Symmetric => (Status::Fail, Some(Remedy::preserve_range())),
        Kind::Unknown if asked_nobody => (Status::Unknown, Some(Remedy::newer_relay())),
        Kind::Unknown => (Status::Unknown, Some(Remedy::second_relay())),
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

fn mtu(path: &PathFacts) -> Option<Check> {
    let payload = path.payload?;
    if path.transport == Transport::Tcp {
        let check = match payload {
            0 => check(
                Id::Mtu,
                Status::Fail,
                "mtu: full TCP segments do not get through, and short ones do",
                Some(Remedy::segments()),
            ),
            _ => check(Id::Mtu, Status::Ok, "full segments get through", None),
        };
        return Some(of_path(path, check));
    }
    let check = if payload < LEAST_PAYLOAD {
        check(
            Id::Mtu,
            Status::Fail,
            format!("mtu: datagrams of {LEAST_PAYLOAD} bytes do not get through"),
            Some(Remedy::mtu()),
        )
    } else {
        let status = if payload < FULL_PAYLOAD {
            Status::Warn
        } else {
            Status::Ok
        };
        check(Id::Mtu, status, format!("{payload} bytes of payload"), None)
    };
    Some(of_path(path, check))
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
    let (status, text) = match facts.nat64 {
        Nat64::None => (Status::Ok, "no: the resolver is no DNS64".to_owned()),
        Nat64::Prefix(prefix) => (
            Status::Ok,
            format!(
                "yes, {prefix}: give relays that have IPv4 alone by name, and they are reached over IPv6"
            ),
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
        let text = "unknown: no relay has shown its clock; it takes one of this release";
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

fn host(facts: &Facts) -> Check {
    let (range, host) = (facts.range, &facts.host);
    let holds = |(first, last): (u16, u16), port: u16| (first..=last).contains(&port);
    let is_reserved = |port: u16| host.reserved.iter().any(|of| holds(*of, port));
    let may_be_taken =
        |port: u16| host.ephemeral.is_some_and(|of| holds(of, port)) && !is_reserved(port);
    if host.timestamps == Some(false) {
        let text = "TCP timestamps are off";
        return check(Id::Host, Status::Warn, text, Some(Remedy::timestamps()));
    }
    if let Some(seconds) = host.udp_timeout.filter(|seconds| *seconds < 2 * KEPT_ALIVE) {
        let text = format!("conntrack of this host forgets flows of UDP after {seconds} s");
        return check(Id::Host, Status::Warn, text, Some(Remedy::udp_timeout()));
    }
    let open = range.iter().filter(|port| may_be_taken(*port)).count();
    if open > 0 {
        let text =
            format!("{open} ports of {range} are ephemeral ports of the system, and not reserved");
        let remedy = Remedy::reserve_ports(range, &host.reserved);
        return check(Id::Host, Status::Warn, text, Some(remedy));
    }
    let waiting = match host.waiting {
        0 => String::new(),
        some => format!("; {some} TCP sockets of the range wait for their end"),
    };
    check(
        Id::Host,
        Status::Ok,
        format!("sysctls are right for {range}{waiting}"),
        None,
    )
}

/// What reserves the range, if the system may give its ports to other programs.
pub(crate) fn unreserved(range: PortRange, host: HostFacts) -> Option<Remedy> {
    let facts = Facts {
        range,
        relays: Vec::new(),
        paths: Vec::new(),
        claims: Vec::new(),
        router: None,
        nat64: Nat64::Unknown,
        rotate: Rotate::Auto,
        clock_ahead: None,
        // Not what this is about.
        host: HostFacts {
            timestamps: None,
            udp_timeout: None,
            ..host
        },
    };
    self::host(&facts).remedy
}

/// What a NAT lets happen with a class of peers: whether they become direct, `None` if that is not known.
fn becomes_direct(nat: &Nat, peer: PeerClass) -> Option<bool> {
    match peer {
        // They let in whom they have sent to, whatever the port.
        PeerClass::Public | PeerClass::FullCone | PeerClass::AddressRestricted => Some(true),
        PeerClass::EimApdf => nat.mapping.is_stable(),
        PeerClass::Symmetric => {
            let lets_in = match nat.filtering {
                Filtering::None | Filtering::Eif | Filtering::Adf => Some(true),
                Filtering::Apdf => Some(false),
                Filtering::Unknown => None,
            };
            match (nat.mapping.is_stable(), lets_in) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                (None, _) | (_, None) => None,
            }
        }
    }
}

/// Peers have IPv4, so IPv6 counts only without it. Of the transports the better one counts.
fn verdict(nats: &[(&PathFacts, Nat)], facts: &Facts) -> Verdict {
    let of_family = |family| nats.iter().filter(move |(path, _)| path.family == family);
    let family = Family::ALL
        .into_iter()
        .find(|family| of_family(*family).next().is_some());
    let mut verdict = Verdict::default();
    let Some(family) = family else {
        return verdict;
    };
    for peer in PeerClass::ALL {
        let outcomes: Vec<_> = of_family(family)
            .map(|(path, nat)| match is_open(path, facts) {
                true => Some(true),
                false => becomes_direct(nat, peer),
            })
            .collect();
        if outcomes.contains(&Some(true)) {
            verdict.direct.push(peer);
        } else if outcomes.contains(&None) {
            verdict.unknown.push(peer);
        } else {
            verdict.relayed.push(peer);
        }
    }
    let is_hard = |(path, nat): &(&PathFacts, Nat)| {
        path.transport == Transport::Quic && nat.mapping.is_stable() == Some(false)
    };
    // With a peer that has one mapping for all. Of two that map by destination, it takes the ports of both to know.
    if of_family(family).any(is_hard) && verdict.relayed.contains(&PeerClass::EimApdf) {
        verdict.search.push(PeerClass::EimApdf);
    }
    verdict
}
