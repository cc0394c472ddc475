//! What dials have learned about paths, in events and findings.

use p2pnode_transports::{Learned, Trouble};

use super::*;
use crate::core::{
    event::{self, RestReason},
    finding::FindingId,
    peers::{Hop, How, Path, PathKind},
};

fn over(transport: Transport, remote: &str) -> Path {
    let sockets = Sockets {
        transport,
        local: "192.168.1.2:40000".parse().unwrap(),
        remote: remote.parse().unwrap(),
    };
    Path {
        kind: PathKind::Direct,
        relay: None,
        how: How::Dialed,
        hops: vec![Hop::seen(sockets)],
    }
}

#[test]
fn a_port_that_rests_is_reported_once_and_is_the_finding_of_a_path_that_goes_there() {
    let mut node = Node::new(settings(&[]));
    let remote = "192.0.2.1:443".parse().unwrap();
    let trouble = Trouble::Conntrack { port: PUNCH_PORT };
    let learned = Learned { remote, trouble };
    for _ in 0..2 {
        node.state.handle_learned(vec![learned], node.now);
    }
    let mut rests = Vec::new();
    for event in node.events() {
        if let Event::Node(event::Event::PortRests {
            port,
            remote,
            reason,
            ..
        }) = event
        {
            rests.push((port, remote, reason));
        }
    }
    assert_eq!(rests, [(PUNCH_PORT, remote, RestReason::Conntrack)]);
    let found = |transport, remote| node.state.finding(&over(transport, remote), None);
    let there = found(Transport::Tcp, "192.0.2.1:443").unwrap();
    assert_eq!(there.id, FindingId::Conntrack);
    assert!(there.text.contains("port 40000 to 192.0.2.1:443"));
    assert_eq!(found(Transport::Tcp, "192.0.2.1:444"), None);
    assert_eq!(found(Transport::Quic, "192.0.2.1:443"), None);
}

#[test]
fn a_relay_behind_a_nat_is_in_the_way_of_a_relayed_path_where_the_network_may_be() {
    let known = relay(1);
    let mut node = Node::new(settings(std::slice::from_ref(&known)));
    let (leg, relay) = node.connect_legs()[0];
    let path = Path {
        kind: PathKind::Relayed,
        relay: Some(relay),
        how: How::Dialed,
        hops: Vec::new(),
    };
    let mut found = |seen: &str, reason| {
        let seen = format!("/ip4/{seen}/udp/40000/quic-v1").parse().unwrap();
        node.state.handle_identified(leg, relay, seen, node.now);
        let found = node.state.finding(&path, Some(reason));
        found.map(|found| (found.id, found.remedy.unwrap().id))
    };
    let hidden = Some((FindingId::RelayNat, "keep_source".to_owned()));
    assert_eq!(found("10.0.0.9", Reason::NoCandidates), hidden);
    assert_eq!(found("10.0.0.9", Reason::RemoteSilent), hidden);
    assert_eq!(found("10.0.0.9", Reason::Disabled), None);
    assert_eq!(found("10.0.0.9", Reason::RemoteUnsupported), None);
    assert_eq!(found("198.51.100.9", Reason::NoCandidates), None);
    assert_eq!(found("10.0.0.9", Reason::NoCandidates), hidden);
    node.closed(leg, relay, Ended::Broken);
    assert_eq!(node.state.hidden_at(&relay), None);
}

#[test]
fn a_narrow_path_is_the_finding_of_each_path_over_tcp() {
    let mut node = Node::new(settings(&[]));
    let remote = "192.0.2.1:443".parse().unwrap();
    let learned = Learned {
        remote,
        trouble: Trouble::Mtu,
    };
    node.state.handle_learned(vec![learned], node.now);
    let found = |transport, remote| node.state.finding(&over(transport, remote), None);
    for remote in ["192.0.2.1:443", "192.0.2.9:40000"] {
        let narrow = found(Transport::Tcp, remote).unwrap();
        assert_eq!(narrow.id, FindingId::Mtu);
        assert!(narrow.text.contains("192.0.2.1:443"));
    }
    assert_eq!(found(Transport::Quic, "192.0.2.9:40000"), None);
}
