//! What routers map to the punch ports, and whether another NAT is in front of the router.

use std::net::IpAddr;

use p2pnode_protocol::mapping::Protocol;
use p2pnode_transports::{Family, Transport};

use super::{
    Check, Facts, Id, PathFacts, Status,
    report::{check, of_path},
};
use crate::core::{
    finding::Remedy,
    mappings::{Claim, Method},
};

/// The check of each transport whose punch port a router maps.
pub(super) fn mappings(facts: &Facts) -> impl Iterator<Item = Check> {
    let check = |path| match (claim(path, facts), of(path, &facts.router.dead)) {
        (Some(claim), _) if claim.verified.is_some() => Some(mapping(path, claim, facts)),
        (_, Some(_)) if is_reached(path) => none(path, facts),
        (_, Some(dead)) => Some(self::dead(path, dead, facts)),
        (Some(claim), None) => Some(mapping(path, claim, facts)),
        (None, None) => none(path, facts),
    };
    let paths = facts.paths.iter();
    paths.filter_map(move |path| Some(of_path(path, check(path)?)))
}

/// What a router maps to the punch port of a path.
fn claim<'a>(path: &PathFacts, facts: &'a Facts) -> Option<&'a Claim> {
    of(path, &facts.claims)
}

/// The claim of a path.
fn of<'a>(path: &PathFacts, claims: &'a [Claim]) -> Option<&'a Claim> {
    let protocol = match path.transport {
        Transport::Quic => Protocol::Udp,
        Transport::Tcp => Protocol::Tcp,
    };
    let is_it = |claim: &&Claim| {
        claim.inside.protocol == protocol && Family::from(claim.external.ip()) == path.family
    };
    claims.iter().find(is_it)
}

/// Whether a relay reaches the punch port without a mapping.
fn is_reached(path: &PathFacts) -> bool {
    path.reached.is_some_and(|(_, is_reached)| is_reached)
}

/// A mapping that the router has granted, and at which nothing came in.
fn dead(path: &PathFacts, claim: &Claim, facts: &Facts) -> Check {
    let front = in_front(path, facts.router.outside);
    let remedy = match front {
        Some(_) => Remedy::double_nat(),
        None => Remedy::dead_mapping(claim.external),
    };
    let text = format!(
        "{}: the router has granted {}, and no check from outside came in there, so it is not offered{}",
        name(claim.method),
        claim.external,
        front.unwrap_or_default()
    );
    check(Id::Mapping, Status::Warn, text, Some(remedy))
}

const fn name(method: Method) -> &'static str {
    match method {
        Method::Pcp => "PCP",
        Method::NatPmp => "NAT-PMP",
        Method::Upnp => "UPnP",
        Method::Hold => "hold",
    }
}

/// What AutoNAT shows where no router maps the punch port.
fn none(path: &PathFacts, facts: &Facts) -> Option<Check> {
    let (at, is_reached) = path.reached?;
    if is_reached {
        let text = format!("none needed: a relay reaches {at} from another port (AutoNAT)");
        return Some(check(Id::Mapping, Status::Ok, text, None));
    }
    let text = format!("none: no relay reaches {at} unasked (AutoNAT)");
    Some(match in_front(path, facts.router.outside) {
        Some(front) => {
            let remedy = Some(Remedy::double_nat());
            check(Id::Mapping, Status::Warn, text + &front, remedy)
        }
        None => check(Id::Mapping, Status::Ok, text, None),
    })
}

/// Another NAT in front of the router, as the outside address shows that the router names.
fn in_front(path: &PathFacts, router: Option<IpAddr>) -> Option<String> {
    let router = router.filter(|ip| Family::from(*ip) == path.family)?;
    let mut seen = path.shown().filter_map(|seen| seen.mapped);
    let seen = seen.find(|seen| Family::from(seen.ip()) == path.family)?;
    (seen.ip() != router || is_shared(router)).then(|| {
        format!(
            "; another NAT is in front: the router is at {router}, and relays see {}",
            seen.ip()
        )
    })
}

/// Whether everybody reaches the punch port of a path, as a check from outside has proved.
pub(super) fn is_open(path: &PathFacts, facts: &Facts) -> bool {
    claim(path, facts).is_some_and(|claim| claim.verified.is_some())
}

fn mapping(path: &PathFacts, claim: &Claim, facts: &Facts) -> Check {
    // A relay names what is held. That says nothing about the router.
    let router = match claim.method {
        Method::Pcp | Method::NatPmp | Method::Upnp => Some(claim.external.ip()),
        Method::Hold => facts.router.outside,
    };
    let front = in_front(path, router);
    let method = name(claim.method);
    let witness = claim.method.witness();
    match claim.verified {
        Some(at) => {
            let front = front.unwrap_or_default();
            let text = format!("{method}: {at}, verified from outside{front}");
            check(Id::Mapping, Status::Ok, text, None)
        }
        None => {
            let remedy = front.as_ref().map(|_| Remedy::double_nat());
            let front = front.unwrap_or_default();
            let text = format!(
                "{method}: {} as {witness} says; no check from outside came in, so it is not offered{front}",
                claim.external
            );
            check(Id::Mapping, Status::Warn, text, remedy)
        }
    }
}

/// Whether an address is one that a carrier or a home gives to routers.
fn is_shared(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_private() || (first, second & 0xc0) == (100, 64)
        }
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::core::{
        mappings::{Inside, RouterFacts},
        netcheck::{HostFacts, PeerClass, Reaches, Seen, assess},
    };

    fn facts(router: &str, verified: Option<&str>) -> Facts {
        let mut path = PathFacts::new(Transport::Quic, Family::Ip4);
        // A symmetric NAT: another port at each port of the relay.
        path.seen = [(443, 51_000), (3478, 52_000)]
            .map(|(at, port)| Seen {
                by: ([198, 51, 100, 10], at).into(),
                local: Some("192.168.1.2:40017".parse().unwrap()),
                mapped: Some(([203, 0, 113, 7], port).into()),
                is_hidden: false,
            })
            .to_vec();
        path.from_other_port = Some(false);
        let claim = Claim {
            inside: Inside {
                protocol: Protocol::Udp,
                port: 40_017,
            },
            method: Method::Pcp,
            external: format!("{router}:40017").parse().unwrap(),
            verified: verified.map(|at| at.parse().unwrap()),
        };
        Facts {
            range: "40000-40050".parse().unwrap(),
            relays: vec![super::super::RelayFacts {
                relay: libp2p::PeerId::random(),
                legs: vec![super::super::Leg {
                    transport: Transport::Quic,
                    family: Family::Ip4,
                    answer: super::super::Answer::After(std::time::Duration::ZERO),
                }],
            }],
            paths: vec![path],
            clock_ahead: None,
            host: HostFacts::default(),
            claims: vec![claim],
            router: RouterFacts::default(),
            nat64: super::super::Nat64::None,
            searches: false,
            rotate: crate::config::Rotate::Auto,
        }
    }

    fn of(facts: &Facts) -> Check {
        let report = assess(facts);
        let found = report
            .checks
            .into_iter()
            .find(|check| check.id == Id::Mapping);
        found.unwrap()
    }

    #[test]
    fn a_verified_mapping_makes_a_symmetric_nat_direct_with_everybody() {
        let facts = facts("203.0.113.7", Some("203.0.113.7:40017"));
        let check = of(&facts);
        assert_eq!(check.status, Status::Ok);
        assert_eq!(check.text, "PCP: 203.0.113.7:40017, verified from outside");
        let report = assess(&facts);
        assert_eq!(report.verdict.direct, PeerClass::ALL);
        assert_eq!(report.reaches(), Reaches::Directly);
    }

    #[test]
    fn a_claim_that_is_not_verified_helps_nobody_and_a_second_nat_is_named() {
        for router in ["100.64.0.9", "10.0.0.2", "198.51.100.3"] {
            let facts = facts(router, None);
            let check = of(&facts);
            assert_eq!(check.status, Status::Warn);
            assert!(
                check.text.contains("another NAT is in front"),
                "{}",
                check.text
            );
            assert_eq!(check.remedy.unwrap().id, "double_nat");
            assert_eq!(assess(&facts).reaches(), Reaches::Relayed);
        }
        // The router's mapping was released as a wrong one. It is held since, or nothing is.
        let claimed = facts("203.0.113.7", None);
        let held = Claim {
            method: Method::Hold,
            ..claimed.claims[0]
        };
        let seen = Some((held.external, false));
        for claims in [vec![held], Vec::new()] {
            let mut facts = Facts {
                claims,
                ..claimed.clone()
            };
            facts.paths[0].reached = seen;
            let check = of(&facts);
            assert!(!check.text.contains("another NAT"), "{}", check.text);
            facts.router.outside = Some("100.64.0.3".parse().unwrap());
            let check = of(&facts);
            assert!(
                check.text.ends_with("; another NAT is in front: the router is at 100.64.0.3, and relays see 203.0.113.7"),
                "{}",
                check.text
            );
            assert_eq!(check.status, Status::Warn);
            assert_eq!(check.remedy.unwrap().id, "double_nat");
        }
        // What it had granted is known to be dead, whatever stands in its place.
        for claims in [vec![held], Vec::new(), claimed.claims.clone()] {
            let mut facts = Facts {
                claims,
                ..claimed.clone()
            };
            facts.router = RouterFacts {
                outside: Some("203.0.113.7".parse().unwrap()),
                dead: claimed.claims.clone(),
            };
            facts.paths[0].reached = seen;
            let check = of(&facts);
            assert_eq!(check.status, Status::Warn);
            assert_eq!(
                check.text,
                "PCP: the router has granted 203.0.113.7:40017, and no check from outside came in there, so it is not offered"
            );
            assert_eq!(check.remedy.unwrap().id, "dead_mapping");
            assert_eq!(assess(&facts).reaches(), Reaches::Relayed);
            facts.router.outside = Some("100.64.0.3".parse().unwrap());
            assert_eq!(of(&facts).remedy.unwrap().id, "double_nat");
            facts.paths[0].reached = Some((held.external, true));
            assert_eq!(of(&facts).status, Status::Ok);
        }
        let alone = of(&facts("203.0.113.7", None));
        assert!(!alone.text.contains("another NAT"), "{}", alone.text);
        let none = Facts {
            claims: Vec::new(),
            ..facts("203.0.113.7", None)
        };
        assert!(
            assess(&none)
                .checks
                .iter()
                .all(|check| check.id != Id::Mapping)
        );
    }
}
