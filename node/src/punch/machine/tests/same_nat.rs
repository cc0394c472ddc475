//! Two peers behind one NAT, seen from one of them.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::hop::{Near, PrivateIps};
use p2pnode_transports::{Family, Transport};

use crate::punch::{
    candidates::{Observation, Policy},
    machine::{Action, Event, Machine, Side, Timing},
    record::{Outcome, Reason},
    vouch::Vouch,
};

const PUBLIC: &str = "198.51.100.1";

/// What a relay says of two that it sees at one address.
const SAME: Near = Near {
    same_network: true,
    private: None,
};

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
        ..Policy::open()
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
    let sockets = [tcp("10.0.0.2", 40000), quic("10.0.0.2", 40000)];
    machine.handle_interfaces(&sockets, Vec::new(), now);
    let (peer, circuit) = (PeerId::random(), ConnectionId::new_unchecked(100));
    machine.handle_relayed(peer, circuit, Side::Listener, None, now);
    machine.handle_received(peer, circuit, 10_000, now);
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
    machine.handle_vouched(PeerId::random(), peer, Vouch::of_circuit(SAME, &[]), now);

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
    machine.handle_vouched(PeerId::random(), peer, Vouch::of_circuit(SAME, &[]), now);
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

/// What is dialed of these addresses, if the relay says that.
fn dialed_of(near: Near, listed: &[&str]) -> Vec<String> {
    let now = Instant::now();
    let (mut machine, peer, circuit) = initiator(&[Transport::Quic], now);
    machine.handle_vouched(PeerId::random(), peer, Vouch::of_circuit(near, &[]), now);
    drain(&mut machine);
    let listed: Vec<Multiaddr> = listed.iter().map(|ip| quic(ip, 40001)).collect();
    machine.handle_answer(peer, circuit, listed.into(), Duration::ZERO, now, now);
    let dials = dials(&drain(&mut machine));
    dials.concat().iter().map(Multiaddr::to_string).collect()
}

#[test]
fn private_addresses_are_dialed_only_where_a_relay_vouches_for_them() {
    let listed = ["10.0.0.3", "192.168.7.1", "100.100.100.200", "127.0.0.1"];
    let private = |own: &str, other: &str| Near {
        same_network: false,
        private: Some(PrivateIps {
            other: other.parse().unwrap(),
            own: own.parse().unwrap(),
        }),
    };
    let at = |ip| quic(ip, 40001).to_string();
    assert_eq!(dialed_of(Near::default(), &listed), [""; 0]);
    // The peer that claims our public address is not near by that.
    let claims = [PUBLIC, "10.0.0.3"];
    assert_eq!(dialed_of(Near::default(), &claims), [at(PUBLIC)]);
    assert_eq!(
        dialed_of(SAME, &listed),
        [at("10.0.0.3"), at("192.168.7.1")]
    );
    let one = private("10.0.0.2", "10.0.0.3");
    assert_eq!(dialed_of(one, &listed), [at("10.0.0.3")]);
    let host = private("127.0.0.1", "127.0.0.1");
    assert_eq!(dialed_of(host, &listed), [at("127.0.0.1")]);
    let mixed = private("127.0.0.1", "10.0.0.3");
    assert_eq!(dialed_of(mixed, &listed), [""; 0]);
}
