#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{collections::BTreeSet, time::Instant};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::mapping::Protocol;
use p2pnode_transports::{Family as Ip, FamilyPolicy, Transport};
use prometheus_client::encoding::text;

use super::*;
use crate::{
    core::{
        mappings::{Inside, Method},
        peers::{How, PathKind},
    },
    punch::{Reason, Role, record::Outcome},
};

fn encoded(metrics: &Metrics) -> String {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    text
}

fn record(attempt: u32, outcome: Outcome, via: Option<(Transport, Ip)>) -> Record {
    Record {
        peer: PeerId::random(),
        circuit: Some(ConnectionId::new_unchecked(1)),
        role: Role::Initiator,
        attempt,
        locals: Vec::new(),
        sent: vec!["/ip4/192.0.2.1/udp/1/quic-v1".parse().unwrap()],
        received: Vec::new(),
        found: false,
        skipped: 0,
        rtt: None,
        took: std::time::Duration::ZERO,
        outcome,
        via,
    }
}

#[test]
fn the_names_are_those_that_are_documented() {
    let metrics = Metrics::default();
    // The registry encodes a family only once the family has a series.
    metrics.punch(&record(1, Outcome::Failed(Reason::Timeout), None));
    metrics.dial_failed(&DialError::Aborted, CircuitFailure::Refused);
    let mut watch = PathWatch::default();
    let path = Some((ConnectionId::new_unchecked(1), PathKind::Relayed));
    let change = watch.best(PeerId::random(), path, Instant::now()).unwrap();
    metrics.path_changed(&change, PathCause::Made(How::Dialed));
    let relay = crate::config::RelayAddr {
        addr: "/ip4/192.0.2.1/tcp/443".parse().unwrap(),
        peer: PeerId::random(),
    };
    metrics.set(
        &PeerTable::new(FamilyPolicy::Auto),
        &RelayKeeper::new(&[relay], 1, FamilyPolicy::Auto, Instant::now()),
        &[Claim {
            inside: Inside {
                protocol: Protocol::Udp,
                port: 40017,
            },
            method: Method::Pcp,
            external: "203.0.113.7:40017".parse().unwrap(),
            verified: None,
        }],
        |_| false,
    );
    let text = encoded(&metrics);
    let types: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    assert_eq!(
        types,
        BTreeSet::from([
            "p2pnode_closed_for_memory counter",
            "p2pnode_dials counter",
            "p2pnode_dials_out_of_range counter",
            "p2pnode_key_shared gauge",
            "p2pnode_listener_errors counter",
            "p2pnode_mappings gauge",
            "p2pnode_path_changes counter",
            "p2pnode_peers gauge",
            "p2pnode_punch counter",
            "p2pnode_refused counter",
            "p2pnode_reservations gauge",
            "p2pnode_session_datagrams_dropped counter",
            "p2pnode_session_pause_seconds histogram",
            "p2pnode_session_quic_datagrams counter",
            "p2pnode_time_to_direct_seconds histogram",
        ])
    );
    assert!(
        text.contains("# UNIT p2pnode_time_to_direct_seconds seconds\n"),
        "{text}"
    );
    assert!(
        text.contains("p2pnode_dials_out_of_range_total 0\n"),
        "{text}"
    );
}

#[test]
fn an_attempt_is_counted_by_how_it_went() {
    let metrics = Metrics::default();
    let direct = Outcome::Direct {
        connection: ConnectionId::new_unchecked(2),
        dialed: true,
    };
    metrics.punch(&record(1, direct, Some((Transport::Quic, Ip::Ip4))));
    metrics.punch(&record(2, Outcome::Failed(Reason::SymmetricBoth), None));
    let text = encoded(&metrics);
    for line in [
        r#"p2pnode_punch_total{role="initiator",transport="quic",family="ip4",attempt="1",outcome="direct",reason="none"} 1"#,
        r#"p2pnode_punch_total{role="initiator",transport="unknown",family="unknown",attempt="2",outcome="failed",reason="symmetric_both"} 1"#,
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}

#[test]
fn whatever_the_number_of_an_attempt_the_label_has_three_values() {
    let labels =
        |attempt| PunchLabels::new(&record(attempt, Outcome::Failed(Reason::Timeout), None));
    let values: BTreeSet<String> = (0..100).map(|n| format!("{:?}", labels(n))).collect();
    assert_eq!(values.len(), 3);
}

#[test]
fn a_change_of_path_is_counted_and_the_first_direct_one_is_timed() {
    let (metrics, mut watch) = (Metrics::default(), PathWatch::default());
    let (peer, start) = (PeerId::random(), Instant::now());
    let connection = |id, kind| Some((ConnectionId::new_unchecked(id), kind));
    let mut change = |best, cause, seconds| {
        let now = start + std::time::Duration::from_secs(seconds);
        metrics.path_changed(&watch.best(peer, best, now).unwrap(), cause);
    };
    change(
        connection(1, PathKind::Relayed),
        PathCause::Made(How::Dialed),
        0,
    );
    change(
        connection(2, PathKind::Direct),
        PathCause::Made(How::Punched),
        3,
    );
    change(connection(1, PathKind::Relayed), PathCause::Lost, 9);
    change(None, PathCause::ClosedByPeer, 12);
    let text = encoded(&metrics);
    for line in [
        r#"p2pnode_path_changes_total{from="none",to="relayed",reason="dialed"} 1"#,
        r#"p2pnode_path_changes_total{from="relayed",to="direct",reason="punched"} 1"#,
        r#"p2pnode_path_changes_total{from="direct",to="relayed",reason="lost"} 1"#,
        r#"p2pnode_path_changes_total{from="relayed",to="none",reason="closed_by_peer"} 1"#,
        r#"p2pnode_time_to_direct_seconds_sum 3.0"#,
        r#"p2pnode_time_to_direct_seconds_count 1"#,
        r#"p2pnode_time_to_direct_seconds_bucket{le="2.0"} 0"#,
        r#"p2pnode_time_to_direct_seconds_bucket{le="5.0"} 1"#,
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}

#[test]
fn relays_are_no_peers_and_no_series_vanishes() {
    let (metrics, now) = (Metrics::default(), Instant::now());
    let (relay, peer) = (PeerId::random(), PeerId::random());
    let address: Multiaddr = "/ip4/192.0.2.1/udp/443/quic-v1".parse().unwrap();
    let endpoint = libp2p::core::ConnectedPoint::Dialer {
        address: address.clone(),
        role_override: libp2p::core::Endpoint::Dialer,
        port_use: libp2p::core::transport::PortUse::Reuse,
    };
    let mut peers = PeerTable::new(FamilyPolicy::Auto);
    for (id, peer) in [(1, relay), (2, peer)] {
        let id = ConnectionId::new_unchecked(id);
        peers.handle_established(id, peer, &endpoint, None, now);
    }
    let relay = crate::config::RelayAddr {
        addr: address,
        peer: relay,
    };
    let is_relay = |peer: &PeerId| *peer == relay.peer;
    let relays = RelayKeeper::new(std::slice::from_ref(&relay), 1, FamilyPolicy::Auto, now);
    metrics.set(&peers, &relays, &[], is_relay);
    let text = encoded(&metrics);
    assert!(
        text.contains(r#"p2pnode_peers{path="direct",transport="quic",family="ip4"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"p2pnode_reservations{relay="0"} 0"#),
        "{text}"
    );
    peers.handle_closed(ConnectionId::new_unchecked(2));
    metrics.set(&peers, &relays, &[], is_relay);
    let text = encoded(&metrics);
    assert!(
        text.contains(r#"p2pnode_peers{path="direct",transport="quic",family="ip4"} 0"#),
        "{text}"
    );
}
