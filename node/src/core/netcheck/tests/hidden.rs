//! Relays behind a NAT that replaces the sources of what comes to them.

use super::*;
use crate::{
    core::{
        event::NotDirect,
        finding::FindingId,
        peers::{Hop, How, Path, PathKind},
    },
    punch::Reason,
};

const ROUTER: &str = "10.0.0.1";

/// How a relay behind such a NAT sees the ports.
fn behind(path: &PathFacts, relay: &str) -> PathFacts {
    let hide = |at: SocketAddr| addr(ROUTER, at.port());
    let mut path = path.clone();
    for seen in path
        .seen
        .iter_mut()
        .filter(|seen| seen.by == addr(relay, seen.by.port()))
    {
        seen.mapped = seen.mapped.map(hide);
    }
    path
}

fn hidden(report: &Report) -> Vec<&Check> {
    let of = |check: &&Check| check.text.starts_with("relay_nat: ");
    report.checks.iter().filter(of).collect()
}

#[test]
fn the_nat_of_the_only_relay_is_reported_and_is_not_taken_for_one_of_this_side() {
    for (_, lab) in LAB {
        let mut path = behind(&lab.path(1), A);
        let hide = |(port, _): &(u16, _)| (*port, Some(addr(ROUTER, port + 1)));
        path.sample = path.sample.iter().map(hide).collect();
        (path.from_other_port, path.from_other_address) = (None, None);
        let report = assess(&facts(vec![path]));
        let found = hidden(&report);
        assert_eq!(found.len(), 1, "once for all ports of the relay");
        assert_eq!((found[0].id, found[0].status), (Id::Relay, Status::Warn));
        assert!(
            found[0]
                .text
                .contains(&format!("sees this host at {ROUTER}"))
        );
        assert_eq!(found[0].remedy.as_ref().unwrap().id, "keep_source");
        let nat = nat_of(&report);
        assert_eq!(nat.kind, Kind::Unknown);
        assert_eq!(nat.allocation.kind, AllocationKind::Unknown);
        assert_eq!(nat.preserved, None);
        let nat = check(&report, Id::Nat);
        assert_eq!(nat.remedy.as_ref().unwrap().id, "keep_source");
        assert_eq!(report.reaches(), Reaches::Relayed);
        assert!(report.verdict.direct.contains(&PeerClass::Public));
    }
}

#[test]
fn two_relays_that_disagree_because_of_the_nat_of_one_are_no_symmetric_nat() {
    for (name, lab) in LAB {
        let plain = lab.path(2);
        let report = assess(&facts(vec![behind(&plain, A)]));
        assert_eq!(hidden(&report).len(), 1);
        let nat = nat_of(&report);
        let is_symmetric = nat.mapping.is_stable() == Some(false);
        assert!(!is_symmetric, "{name}: {nat:?}");
        assert!(hidden(&assess(&facts(vec![plain]))).is_empty(), "{name}");
    }
}

#[test]
fn a_relay_that_reports_its_nat_is_believed_whatever_address_it_sees_and_a_dial_over_it_names_that()
{
    let mut path = LAB[3].1.path(1);
    path.seen.iter_mut().for_each(|seen| seen.is_hidden = true);
    let report = assess(&facts(vec![path]));
    assert_eq!(hidden(&report).len(), 1);
    let over = |remote: &str| Path {
        kind: PathKind::Relayed,
        relay: Some(PeerId::random()),
        how: How::Dialed,
        hops: vec![Hop {
            remote: Some(addr(remote, 443)),
            ..Hop::default()
        }],
    };
    let found = |reason, path: &Path| {
        let reason = NotDirect::Punch(reason);
        let found = report.in_the_way(&reason, None, Some(path))?;
        Some((found.id, found.remedy?.id))
    };
    let named = Some((FindingId::RelayNat, "keep_source".to_owned()));
    for reason in [Reason::Timeout, Reason::NoCandidates, Reason::RemoteSilent] {
        assert_eq!(found(reason, &over(A)), named);
        assert_eq!(found(reason, &over(B)), None, "another relay");
    }
    for reason in [Reason::Disabled, Reason::RemoteUnsupported] {
        assert_eq!(found(reason, &over(A)), None);
    }
}

#[test]
fn a_relay_that_sees_private_addresses_rightly_is_no_fault() {
    let seen = |by: &str, local: &str, mapped: &str| {
        let see = |port| Seen {
            by: addr(by, port),
            local: Some(addr(local, PORT)),
            mapped: Some(addr(mapped, PORT)),
            is_hidden: false,
        };
        let path = PathFacts {
            seen: vec![see(443), see(3478)],
            ..LAB[0].1.path(1)
        };
        hidden(&assess(&facts(vec![path]))).len()
    };
    assert_eq!(seen("10.0.0.5", "192.168.1.7", "10.0.0.1"), 0, "a VPN");
    assert_eq!(seen(A, "192.168.1.7", "192.168.1.7"), 0, "the same LAN");
    assert_eq!(seen(A, "192.168.1.7", ROUTER), 1);
}
