//! Two peers behind one NAT, seen from one of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::{Family, FamilyPolicy, Transport};

use crate::punch::{
    candidates::{Observation, Policy},
    machine::{Action, Event, Machine, Side, Timing},
    record::{Outcome, Reason},
};

const PUBLIC: &str = "198.51.100.1";

fn tcp(ip: &str, port: u16) -> Multiaddr {
    format!("/ip4/{ip}/tcp/{port}").parse().unwrap()
}

fn quic(ip: &str, port: u16) -> Multiaddr {
    format!("/ip4/{ip}/udp/{port}/quic-v1").parse().unwrap()
}

/// A node at 10.0.0.2 behind the NAT, over a circuit that it listened on.
fn initiator(transports: &[Transport], now: Instant) -> (Machine, PeerId, ConnectionId) {
    let policy = Policy {
        transports: transports.to_vec(),
        families: FamilyPolicy::Auto,
        permit: Arc::new(|_| true),
        advertise: Arc::new(Vec::new),
    };
    let mut machine = Machine::new(PeerId::random(), true, policy, Timing::default(), 1);
    for (number, transport) in transports.iter().enumerate() {
        let addr = if *transport == Transport::Quic {
            quic(PUBLIC, 50000)
        } else {
            tcp(PUBLIC, 50000)
        };
        let connection = ConnectionId::new_unchecked(number);
        let observation = Observation {
            addr,
            by: PeerId::random(),
            connection,
            transport: *transport,
            family: Family::Ip4,
        };
        machine.handle_observed(&observation, now);
    }
    machine.handle_interfaces(&[tcp("10.0.0.2", 40000), quic("10.0.0.2", 40000)], now);
    let (peer, circuit) = (PeerId::random(), ConnectionId::new_unchecked(100));
    machine.handle_relayed(peer, circuit, Side::Listener, None, now);
    (machine, peer, circuit)
}

fn drain(machine: &mut Machine) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

fn connects(actions: &[Action]) -> Vec<Vec<Multiaddr>> {
    actions
        .iter()
        .filter_map(|a| {
            if let Action::Connect { addrs, .. } = a {
                Some(addrs.clone())
            } else {
                None
            }
        })
        .collect()
}

fn dials(actions: &[Action]) -> Vec<Vec<Multiaddr>> {
    actions
        .iter()
        .filter_map(|a| {
            if let Action::Dial { addrs, .. } = a {
                Some(addrs.clone())
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn over_tcp_the_handshake_begins_anew_once_with_the_private_addresses() {
    let now = Instant::now();
    let rtt = Duration::from_millis(20);
    let (mut machine, peer, circuit) = initiator(&[Transport::Tcp], now);
    assert_eq!(connects(&drain(&mut machine)), [vec![tcp(PUBLIC, 50000)]]);

    let answer = vec![tcp(PUBLIC, 50001), tcp("10.0.0.3", 40001)];
    machine.handle_answer(peer, circuit, answer.clone().into(), rtt, now, now);
    let actions = drain(&mut machine);
    assert_eq!(
        connects(&actions),
        [vec![tcp(PUBLIC, 50000), tcp("10.0.0.2", 40000)]]
    );
    let events: Vec<_> = std::iter::from_fn(|| machine.poll_event()).collect();
    let superseded = events.iter().any(|event| {
        matches!(event, Event::Attempt(record) if record.outcome == Outcome::Failed(Reason::Superseded))
    });
    assert!(superseded, "{events:?}");

    machine.handle_answer(peer, circuit, answer.into(), rtt, now, now);
    machine.handle_timeout(now + rtt);
    let actions = drain(&mut machine);
    assert_eq!(connects(&actions), [[]; 0]);
    assert_eq!(
        dials(&actions),
        [vec![tcp("10.0.0.3", 40001), tcp(PUBLIC, 50001)]]
    );
}

#[test]
fn over_quic_the_private_address_of_the_peer_is_dialed_at_once() {
    let now = Instant::now();
    let rtt = Duration::from_millis(20);
    let (mut machine, peer, circuit) = initiator(&[Transport::Quic, Transport::Tcp], now);
    drain(&mut machine);
    let answer = vec![
        quic(PUBLIC, 50001),
        quic("10.0.0.3", 40001),
        tcp(PUBLIC, 50001),
    ];
    machine.handle_answer(peer, circuit, answer.into(), rtt, now, now);
    machine.handle_timeout(now + rtt / 2);
    assert_eq!(
        dials(&drain(&mut machine)),
        [vec![quic("10.0.0.3", 40001), quic(PUBLIC, 50001)]]
    );
}
