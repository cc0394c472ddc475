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
    let found = |transport, remote| node.state.finding(&over(transport, remote));
    let there = found(Transport::Tcp, "192.0.2.1:443").unwrap();
    assert_eq!(there.id, FindingId::Conntrack);
    assert!(there.text.contains("port 40000 to 192.0.2.1:443"));
    assert_eq!(found(Transport::Tcp, "192.0.2.1:444"), None);
    assert_eq!(found(Transport::Quic, "192.0.2.1:443"), None);
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
    let found = |transport, remote| node.state.finding(&over(transport, remote));
    for remote in ["192.0.2.1:443", "192.0.2.9:40000"] {
        let narrow = found(Transport::Tcp, remote).unwrap();
        assert_eq!(narrow.id, FindingId::Mtu);
        assert!(narrow.text.contains("192.0.2.1:443"));
    }
    assert_eq!(found(Transport::Quic, "192.0.2.9:40000"), None);
}
