#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod hidden;
mod paths;
mod relayed;
mod truth;

use std::{net::SocketAddr, time::Duration};

use libp2p::PeerId;
use p2pnode_transports::{Family, Transport};

use crate::core::mappings::RouterFacts;

use super::{
    Allocation, Answer, Check, Facts, Fault, Filtering, HostFacts, Id, Kind, Leg, Lifetime,
    Mapping, Nat64, PathFacts, PeerClass, Reaches, RelayFacts, Report, Seen, Status, assess,
    nat::AllocationKind,
};

const A: &str = "198.51.100.10";
const B: &str = "198.51.100.20";
const OUTSIDE: &str = "203.0.113.7";
const INSIDE: &str = "192.168.1.2";
const PORT: u16 = 40017;

fn addr(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A NAT as the lab has it, and as two relays or one show it.
#[derive(Clone, Copy)]
struct Lab {
    mapping: Mapping,
    /// Another port or another address gets in.
    lets_in: [bool; 2],
    /// What a port is mapped to.
    port: fn(u16, u16) -> u16,
}

const LAB: [(&str, Lab); 9] = [
    ("none", lab(Mapping::None, [true, true], keep)),
    ("full-cone", lab(Mapping::Eim, [true, true], keep)),
    ("address-restricted", lab(Mapping::Eim, [true, false], keep)),
    ("eim-apdf", lab(Mapping::Eim, [false, false], keep)),
    (
        "eim-apdf-rewrite",
        lab(Mapping::Eim, [false, false], rewrite),
    ),
    ("firewall", lab(Mapping::None, [false, false], keep)),
    ("symmetric", lab(Mapping::Apdm, [false, false], random)),
    ("symmetric", lab(Mapping::Adm, [true, false], random)),
    ("symmetric", lab(Mapping::Apdm, [false, false], sequential)),
];

const fn lab(mapping: Mapping, lets_in: [bool; 2], port: fn(u16, u16) -> u16) -> Lab {
    Lab {
        mapping,
        lets_in,
        port,
    }
}

fn keep(port: u16, _: u16) -> u16 {
    port
}

fn rewrite(port: u16, _: u16) -> u16 {
    51207 + (port - 40000) * 7 % 51
}

fn random(port: u16, to: u16) -> u16 {
    1024 + port
        .wrapping_mul(40_503)
        .wrapping_add(to.wrapping_mul(30_011))
        % 64_000
}

fn sequential(port: u16, to: u16) -> u16 {
    20_000 + (port - 40000) + to % 7 * 100
}

impl Lab {
    fn maps(&self, port: u16, by: SocketAddr) -> SocketAddr {
        let to = match self.mapping {
            Mapping::None => return addr(INSIDE, port),
            Mapping::Eim | Mapping::Several | Mapping::Unknown => 0,
            Mapping::Adm => {
                if by.ip() == addr(A, 1).ip() {
                    1
                } else {
                    2
                }
            }
            Mapping::Apdm => by.port() + u16::from(by.ip() == addr(B, 1).ip()),
        };
        addr(OUTSIDE, (self.port)(port, to))
    }

    fn path(&self, relays: usize) -> PathFacts {
        let by = [addr(A, 443), addr(A, 3478), addr(B, 3478)];
        let by = &by[..if relays == 2 { 3 } else { 2 }];
        let see = |by: &SocketAddr| Seen {
            by: *by,
            local: Some(addr(INSIDE, PORT)),
            mapped: Some(self.maps(PORT, *by)),
            is_hidden: false,
        };
        let sample = 40_018..40_026;
        PathFacts {
            seen: by.iter().map(see).collect(),
            from_other_port: Some(self.lets_in[0]),
            from_other_address: (relays == 2).then_some(self.lets_in[1]),
            sample: sample
                .map(|port| (port, Some(self.maps(port, by[0]))))
                .collect(),
            payload: Some(1452),
            has_partner: relays == 2,
            ..PathFacts::new(Transport::Quic, Family::Ip4)
        }
    }
}

fn facts(paths: Vec<PathFacts>) -> Facts {
    let leg = |path: &PathFacts| Leg {
        transport: path.transport,
        family: path.family,
        answer: Answer::After(Duration::from_millis(12)),
    };
    Facts {
        range: "40000-40050".parse().unwrap(),
        relays: vec![RelayFacts {
            relay: PeerId::random(),
            legs: paths.iter().map(leg).collect(),
        }],
        paths,
        clock_ahead: Some(7),
        host: HostFacts::default(),
        claims: Vec::new(),
        router: RouterFacts::default(),
        nat64: Nat64::None,
        searches: true,
        rotate: crate::config::Rotate::Auto,
    }
}

fn check(report: &Report, id: Id) -> &Check {
    let mut checks = report.checks.iter();
    checks.find(|check| check.id == id).unwrap()
}

fn nat_of(report: &Report) -> super::Nat {
    check(report, Id::Nat).nat.unwrap()
}

fn status(report: &Report, id: Id) -> Status {
    check(report, id).status
}

#[test]
fn each_nat_has_its_name_with_two_relays() {
    for (name, lab) in LAB {
        let nat = nat_of(&assess(&facts(vec![lab.path(2)])));
        assert_eq!(nat.kind.name(), name);
        assert_eq!(nat.mapping, lab.mapping, "{name}");
    }
}

#[test]
fn a_tcp_connection_that_was_only_late_is_not_taken_for_filtered() {
    let udp = LAB[2].1.path(1);
    assert_eq!(udp.from_other_port, Some(true), "{}", LAB[2].0);
    let late = PathFacts {
        from_other_port: Some(false),
        transport: Transport::Tcp,
        ..udp.clone()
    };
    let seen = facts(vec![udp, late.clone()]).without_doubt();
    assert_eq!(seen.paths[1].from_other_port, None);
    let alone = facts(vec![late]).without_doubt();
    assert_eq!(alone.paths[0].from_other_port, Some(false));
}

#[test]
fn with_one_relay_exactly_what_needs_two_is_unknown() {
    for (name, lab) in LAB {
        let path = lab.path(1);
        let report = assess(&facts(vec![path]));
        let nat = nat_of(&report);
        let mapping = match lab.mapping {
            known @ (Mapping::None | Mapping::Apdm) => known,
            // The same at two ports of one address.
            Mapping::Eim | Mapping::Adm | Mapping::Several | Mapping::Unknown => Mapping::Unknown,
        };
        let filtering = if lab.lets_in[0] {
            Filtering::Unknown
        } else {
            Filtering::Apdf
        };
        assert_eq!((nat.mapping, nat.filtering), (mapping, filtering), "{name}");
        let is_known = mapping == Mapping::Apdm || mapping == Mapping::None && !lab.lets_in[0];
        let kind = if is_known { name } else { "unknown" };
        assert_eq!(nat.kind.name(), kind);
        if !is_known {
            let check = check(&report, Id::Nat);
            assert_eq!(check.status, Status::Unknown);
            assert_eq!(check.remedy.as_ref().unwrap().id, "second_relay");
            assert_eq!(
                report.reaches(),
                Reaches::Directly,
                "nothing is known against it"
            );
        }
    }
}

#[test]
fn the_verdict_is_what_the_matrix_shows() {
    use PeerClass::{AddressRestricted, EimApdf, FullCone, Public, Symmetric};
    for (name, lab) in LAB {
        let report = assess(&facts(vec![lab.path(2)]));
        let relayed = match name {
            "none" | "full-cone" | "address-restricted" => vec![],
            _ => vec![Symmetric],
        };
        assert_eq!(report.verdict.relayed, relayed, "{name}");
        let search = (name == "symmetric").then_some(EimApdf);
        assert_eq!(report.verdict.search, Vec::from_iter(search), "{name}");
        assert!(
            [Public, FullCone, AddressRestricted]
                .iter()
                .all(|peer| report.verdict.direct.contains(peer))
        );
        let reaches = if name == "symmetric" {
            Reaches::Relayed
        } else {
            Reaches::Directly
        };
        assert_eq!(report.reaches(), reaches, "{name}");
    }
}

#[test]
fn the_better_transport_counts_and_ip6_only_without_ip4() {
    let symmetric = LAB[6].1.path(2);
    let good = LAB[3].1.path(2);
    let over = |path: &PathFacts, transport, family| PathFacts {
        transport,
        family,
        ..path.clone()
    };
    let both = [
        over(&symmetric, Transport::Quic, Family::Ip4),
        over(&good, Transport::Tcp, Family::Ip4),
    ];
    assert_eq!(assess(&facts(both.to_vec())).reaches(), Reaches::Directly);
    let ip6 = [
        over(&symmetric, Transport::Quic, Family::Ip4),
        over(&good, Transport::Quic, Family::Ip6),
    ];
    assert_eq!(assess(&facts(ip6.to_vec())).reaches(), Reaches::Relayed);
}

#[test]
fn ports_are_allocated_as_the_sample_shows() {
    let kind = |at: usize| Allocation::of(&LAB[at].1.path(2));
    assert_eq!(kind(3).kind, AllocationKind::Preserved);
    let block = kind(4);
    assert_eq!(block.kind, AllocationKind::Block);
    assert!(block.from.unwrap() >= 51207 && block.to.unwrap() <= 51257);
    assert_eq!(kind(6).kind, AllocationKind::Random);
    assert_eq!(
        (kind(8).kind, kind(8).step),
        (AllocationKind::Sequential, Some(1))
    );
    let mut few = LAB[6].1.path(2);
    few.sample.truncate(3);
    assert_eq!(Allocation::of(&few).kind, AllocationKind::Unknown);
}

#[test]
fn a_symmetric_nat_is_named_with_what_mends_it() {
    let report = assess(&facts(vec![LAB[6].1.path(2)]));
    let check = check(&report, Id::Nat);
    assert_eq!(check.status, Status::Fail);
    assert!(check.text.contains("random ports"), "{}", check.text);
    let command = check.remedy.as_ref().unwrap().command.as_deref();
    assert_eq!(
        command,
        Some("p2pnode firewall --format nft-snat | nft -f -")
    );
}

#[test]
fn without_answers_it_says_what_is_known_and_no_more() {
    let mut facts = facts(vec![LAB[3].1.path(2)]);
    facts.paths[0].sample.clear();
    let path = &facts.paths[0];
    facts.paths.push(PathFacts {
        transport: Transport::Tcp,
        ..path.clone()
    });
    facts.relays[0].legs = [Transport::Quic, Transport::Tcp]
        .map(|transport| Leg {
            transport,
            family: Family::Ip4,
            answer: if transport == Transport::Tcp {
                Answer::After(Duration::ZERO)
            } else {
                Answer::Silent
            },
        })
        .to_vec();
    let report = assess(&facts);
    assert_eq!(
        (status(&report, Id::Udp), status(&report, Id::Relay)),
        (Status::Fail, Status::Warn)
    );
    assert!(
        report
            .checks
            .iter()
            .all(|check| check.transport != Some(Transport::Quic))
    );
    facts.relays[0].legs[1].answer = Answer::Failed("refused".to_owned());
    let report = assess(&facts);
    assert_eq!(
        (status(&report, Id::Udp), status(&report, Id::Relay)),
        (Status::Unknown, Status::Fail)
    );
    assert_eq!(report.reaches(), Reaches::Nobody);
    assert_eq!(report.verdict, super::Verdict::default());
    // An old relay answers and shows nothing.
    let old = PathFacts::new(Transport::Quic, Family::Ip4);
    let report = assess(&self::facts(vec![old]));
    assert_eq!(nat_of(&report).kind, Kind::Unknown);
    let check = check(&report, Id::Nat);
    assert_eq!(check.remedy.as_ref().unwrap().id, "relay_without_stun");
}

#[test]
fn what_is_wrong_with_range_length_clock_and_host_is_named() {
    let mut path = LAB[3].1.path(2);
    path.sample[2].1 = None;
    path.payload = Some(0);
    let mut facts = facts(vec![path]);
    facts.clock_ahead = Some(-90_000);
    facts.host.ephemeral = Some((32768, 60999));
    facts.host.reserved = vec![(8080, 8081)];
    let report = assess(&facts);
    for (id, remedy) in [
        (Id::Range, "range_blocked"),
        (Id::Mtu, "mtu"),
        (Id::Clock, "clock"),
        (Id::Host, "reserve_ports"),
    ] {
        let check = check(&report, id);
        assert_ne!(check.status, Status::Ok, "{id:?}");
        assert_eq!(check.remedy.as_ref().unwrap().id, remedy);
    }
    let host = report.checks.last().unwrap().remedy.as_ref().unwrap();
    let command = host.command.as_deref().unwrap();
    assert!(
        command.ends_with("ports=8080-8081,40000-40050"),
        "{command}"
    );
}

#[test]
fn what_is_missing_on_a_slow_path_may_be_late_and_no_firewall_is_blamed() {
    let mut path = LAB[3].1.path(2);
    for (_, mapped) in &mut path.sample {
        *mapped = None;
    }
    let mut facts = facts(vec![path]);
    assert_eq!(check(&assess(&facts), Id::Range).status, Status::Fail);
    facts.relays[0].legs[0].answer = Answer::After(Duration::from_millis(600));
    let report = assess(&facts);
    let range = check(&report, Id::Range);
    assert_eq!(range.status, Status::Unknown);
    assert_eq!(range.remedy.as_ref().unwrap().id, "slow_path");
    // Nothing came in time, and the node has a connection.
    facts.relays[0].legs[0].answer = Answer::Held;
    for seen in &mut facts.paths[0].seen {
        seen.mapped = None;
    }
    let report = assess(&facts);
    for id in [Id::Range, Id::Nat] {
        let check = check(&report, id);
        assert_eq!(check.status, Status::Unknown, "{id:?}");
        assert_eq!(check.remedy.as_ref().unwrap().id, "slow_path");
    }
}

#[test]
fn a_host_that_takes_another_address_for_each_destination_is_not_behind_a_nat() {
    let mut path = LAB[0].1.path(2);
    for (at, seen) in path.seen.iter_mut().enumerate().skip(1) {
        let other = addr("192.168.2.2", PORT + u16::try_from(at).unwrap());
        (seen.local, seen.mapped) = (Some(other), Some(other));
    }
    assert_eq!(Mapping::of(&path), Mapping::None);
}
