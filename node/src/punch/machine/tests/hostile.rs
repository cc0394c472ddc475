//! A peer that does as it likes.

mod any;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::{dcutr::Addresses, hop::Near};
use p2pnode_transports::{Family, Transport};
use proptest::prelude::*;

use crate::punch::{
    address::Candidate,
    candidates::{MAX_CANDIDATES, Observation, Policy},
    machine::{
        Action, DialId, Established, Event, HandshakeError, Introduced, Machine, Side, Timing,
    },
    record::{CandidateOutcome, Role},
    vouch::Vouch,
};

fn machine() -> Machine {
    let policy = Policy::open();
    Machine::new(PeerId::random(), true, policy, Timing::default(), 1)
}

fn observation() -> Observation {
    Observation {
        addr: "/ip4/198.51.100.7/udp/40000/quic-v1".parse().unwrap(),
        by: PeerId::random(),
        connection: ConnectionId::new_unchecked(1),
        transport: Transport::Quic,
        family: Family::Ip4,
    }
}

fn drain(machine: &mut Machine) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

fn candidates(count: u8) -> Addresses {
    let addrs = (0..count).map(|n| {
        format!("/ip4/203.0.113.{n}/udp/5000/quic-v1")
            .parse()
            .unwrap()
    });
    addrs.collect::<Vec<Multiaddr>>().into()
}

#[test]
fn a_peer_that_asks_without_end_gets_eight_rounds_of_eight_addresses_a_minute() {
    let mut machine = machine();
    let (peer, start) = (PeerId::random(), Instant::now());
    machine.handle_observed(&observation(), start);
    let mut dialed = 0;
    for round in 0..600 {
        let now = start + Duration::from_millis(100 * round);
        let circuit = ConnectionId::new_unchecked(100 + round as usize);
        machine.handle_relayed(peer, circuit, Side::Dialer, None, now);
        machine.handle_received(peer, circuit, 100_000, now);
        machine.handle_connect(peer, circuit, candidates(16), now);
        machine.handle_sync(peer, circuit, now);
        for action in drain(&mut machine) {
            if let Action::Dial { addrs, .. } = action {
                assert!(addrs.len() <= MAX_CANDIDATES);
                dialed += addrs.len();
            }
        }
    }
    assert!(
        dialed <= 8 * MAX_CANDIDATES,
        "{dialed} addresses in a minute"
    );
    assert!(dialed > 0);
}

fn with_rtt(rtt: Duration) -> Addresses {
    Addresses {
        rtt: Some(rtt),
        ..candidates(1)
    }
}

fn dials(actions: &[Action]) -> usize {
    let dial = |action: &&Action| matches!(action, Action::Dial { .. });
    actions.iter().filter(dial).count()
}

#[test]
fn a_round_trip_time_that_is_too_long_to_wait_for_is_not_gone_by() {
    for (rtt, gone_by) in [
        (Duration::from_secs(3600), false),
        (Duration::MAX, false),
        (Duration::from_secs(1), true),
    ] {
        let mut machine = machine();
        let (peer, now) = (PeerId::random(), Instant::now());
        machine.handle_observed(&observation(), now);
        let circuit = ConnectionId::new_unchecked(100);
        machine.handle_relayed(peer, circuit, Side::Dialer, None, now);
        machine.handle_received(peer, circuit, 100_000, now);
        machine.handle_connect(peer, circuit, with_rtt(rtt), now);
        let actions = drain(&mut machine);
        let returned = actions
            .iter()
            .any(|action| matches!(action, Action::Reply { rtt: Some(_), .. }));
        assert_eq!(returned, gone_by, "{rtt:?}");
        machine.handle_sync(peer, circuit, now);
        machine.handle_timeout(now + Duration::from_millis(500));
        assert_eq!(dials(&drain(&mut machine)), 1, "{rtt:?}");
    }
}

#[test]
fn an_answer_that_returns_another_round_trip_time_than_was_sent_is_one_without() {
    let sent = Duration::from_millis(80);
    for (rtt, returned, at_once) in [
        (None, sent, false),
        (Some(sent), sent * 2, false),
        (Some(sent), sent, true),
    ] {
        let mut machine = machine();
        let (peer, now) = (PeerId::random(), Instant::now());
        machine.handle_observed(&observation(), now);
        let circuit = ConnectionId::new_unchecked(100);
        machine.handle_relayed(peer, circuit, Side::Listener, rtt, now);
        machine.handle_received(peer, circuit, 100_000, now);
        machine.handle_answer(peer, circuit, with_rtt(returned), sent, now, now);
        assert_eq!(
            dials(&drain(&mut machine)),
            usize::from(at_once),
            "{rtt:?} {returned:?}"
        );
        machine.handle_timeout(now + sent / 2);
        let later = usize::from(!at_once);
        assert_eq!(dials(&drain(&mut machine)), later, "{rtt:?} {returned:?}");
    }
}

#[test]
fn addresses_at_this_host_at_the_relay_and_at_this_node_are_not_dialed() {
    let mut machine = machine();
    let (peer, relay, now) = (PeerId::random(), PeerId::random(), Instant::now());
    machine.handle_observed(&observation(), now);
    machine.handle_relays(&[format!("/ip4/203.0.113.10/udp/443/quic-v1/p2p/{relay}")
        .parse()
        .unwrap()]);
    let circuit = ConnectionId::new_unchecked(100);
    machine.handle_relayed(peer, circuit, Side::Dialer, None, now);
    machine.handle_received(peer, circuit, 100_000, now);
    let listed: Vec<Multiaddr> = [
        "/ip4/127.0.0.1/udp/53/quic-v1",
        "/ip6/::1/tcp/22",
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.1/udp/5353/quic-v1",
        "/ip4/255.255.255.255/udp/9/quic-v1",
        "/ip6/fe80::1/tcp/22",
        "/ip4/169.254.169.254/tcp/80",
        "/ip4/203.0.113.10/udp/443/quic-v1",
        "/ip4/203.0.113.10/tcp/443",
        "/ip4/198.51.100.7/udp/40000/quic-v1",
        "/ip4/192.0.2.1/udp/7/quic-v1",
    ]
    .iter()
    .map(|text| text.parse().unwrap())
    .collect();
    machine.handle_connect(peer, circuit, listed.into(), now);
    machine.handle_sync(peer, circuit, now);
    let dialed: Vec<_> = drain(&mut machine)
        .into_iter()
        .filter_map(|a| {
            if let Action::Dial { addrs, .. } = a {
                Some(addrs)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(
        dialed,
        [vec![
            "/ip4/192.0.2.1/udp/7/quic-v1".parse::<Multiaddr>().unwrap()
        ]]
    );
}

/// What is dialed when a peer lists `count` addresses and has sent so many bytes, and when the attempt ends if each fails so.
fn unvouched(
    bytes: u64,
    count: u8,
    outcome: Option<CandidateOutcome>,
    side: Side,
) -> (usize, Duration) {
    let mut machine = machine();
    let (peer, now) = (PeerId::random(), Instant::now());
    machine.handle_observed(&observation(), now);
    let circuit = ConnectionId::new_unchecked(100);
    machine.handle_relayed(peer, circuit, side, None, now);
    machine.handle_received(peer, circuit, bytes, now);
    match side {
        Side::Dialer => {
            machine.handle_connect(peer, circuit, candidates(count), now);
            machine.handle_sync(peer, circuit, now);
        }
        Side::Listener => {
            let listed = candidates(count);
            machine.handle_answer(peer, circuit, listed, Duration::ZERO, now, now);
        }
    }
    let mut dialed = 0;
    for action in drain(&mut machine) {
        match action {
            Action::Dial { dial, addrs, .. } => {
                dialed = addrs.len();
                let failed: Vec<_> = addrs.iter().filter_map(Candidate::parse).collect();
                let failed: Vec<_> = failed.into_iter().zip(outcome).collect();
                if outcome.is_some() {
                    let soon = now + Duration::from_millis(7);
                    machine.handle_dial_failed(peer, dial, &failed, soon);
                }
            }
            Action::Expect {
                addrs, unvouched, ..
            } => {
                assert!(addrs.is_empty() && unvouched.len() <= usize::from(count));
            }
            Action::Connect { .. }
            | Action::Reply { .. }
            | Action::Drop { .. }
            | Action::Forget { .. }
            | Action::Close { .. }
            | Action::KeepAlive { .. } => {}
        }
    }
    let due = machine.poll_timeout().unwrap() - now;
    (dialed, due)
}

#[test]
fn addresses_that_no_relay_vouches_for_get_three_bytes_for_each_that_came() {
    for (bytes, dialed) in [(0, 0), (433, 0), (434, 1), (866, 1), (867, 2), (100_000, 8)] {
        for side in [Side::Dialer, Side::Listener] {
            assert_eq!(unvouched(bytes, 16, None, side).0, dialed, "{bytes}");
        }
    }
}

#[test]
fn an_attempt_ends_at_one_time_whatever_is_behind_an_address_that_no_relay_vouches_for() {
    for side in [Side::Dialer, Side::Listener] {
        let silent = unvouched(10_000, 2, None, side);
        for outcome in [
            CandidateOutcome::Refused,
            CandidateOutcome::Failed,
            CandidateOutcome::Unreachable,
            CandidateOutcome::Timeout,
        ] {
            let ended = unvouched(10_000, 2, Some(outcome), side);
            assert_eq!(ended, silent, "{outcome}");
        }
        assert_eq!(silent.1, Timing::default().attempt);
    }
}

#[test]
fn the_relays_of_a_circuit_are_asked_about_a_peers_public_addresses_and_may_answer_while_they_are_dialed()
 {
    let (mut machine, now) = (machine(), Instant::now());
    let (peer, relay) = (PeerId::random(), PeerId::random());
    machine.handle_observed(&observation(), now);
    let circuit = ConnectionId::new_unchecked(100);
    machine.handle_relayed(peer, circuit, Side::Listener, None, now);
    machine.handle_received(peer, circuit, 10_000, now);
    machine.handle_answer(peer, circuit, candidates(2), Duration::ZERO, now, now);
    let ips: Vec<IpAddr> = std::iter::from_fn(|| machine.poll_event())
        .filter_map(|event| match event {
            Event::Unvouched { peer: of, ips } if of == peer => Some(ips),
            Event::Attempt(_)
            | Event::Direct { .. }
            | Event::GaveUp { .. }
            | Event::Unvouched { .. }
            | Event::Listed { .. } => None,
        })
        .flatten()
        .collect();
    let listed = candidates(2).known;
    let listed: Vec<_> = listed.iter().filter_map(Candidate::parse).collect();
    assert_eq!(
        ips,
        listed.iter().map(|c| c.socket.ip()).collect::<Vec<_>>()
    );
    let split = |machine: &mut Machine| {
        let expected = drain(machine)
            .into_iter()
            .rev()
            .find_map(|action| match action {
                Action::Expect {
                    addrs, unvouched, ..
                } => Some((addrs.len(), unvouched.len())),
                Action::Connect { .. }
                | Action::Reply { .. }
                | Action::Drop { .. }
                | Action::Dial { .. }
                | Action::Forget { .. }
                | Action::Close { .. }
                | Action::KeepAlive { .. } => None,
            });
        expected.expect("a punch is expected")
    };
    assert_eq!(split(&mut machine), (0, 2));
    let seen = Vouch::of_circuit(Near::default(), &ips[..1]);
    machine.handle_vouched(relay, peer, seen, now);
    assert_eq!(split(&mut machine), (1, 1));
    let private = Vouch::of_circuit(Near::default(), &["10.0.0.1".parse().unwrap()]);
    assert_eq!(
        private,
        Vouch::default(),
        "a relay vouches for private addresses otherwise"
    );
}

#[test]
fn connections_to_a_relay_are_never_surplus() {
    let mut machine = machine();
    let (relay, now) = (PeerId::random(), Instant::now());
    machine.handle_relays(&[format!("/ip4/203.0.113.10/udp/443/quic-v1/p2p/{relay}")
        .parse()
        .unwrap()]);
    for number in 1..5 {
        let connection = ConnectionId::new_unchecked(number);
        machine.handle_direct(
            relay,
            Established {
                connection,
                dialed: number % 2 == 0,
                remote: None,
            },
            now,
        );
    }
    machine.handle_timeout(now + Duration::from_secs(60));
    assert!(
        !drain(&mut machine)
            .iter()
            .any(|action| matches!(action, Action::Close { .. }))
    );
}

#[test]
fn memory_of_peers_that_are_gone_is_bounded() {
    let mut machine = machine();
    let start = Instant::now();
    for number in 0..2000 {
        let (peer, circuit) = (PeerId::random(), ConnectionId::new_unchecked(number));
        let now = start + Duration::from_millis(number as u64);
        machine.handle_relayed(peer, circuit, Side::Dialer, None, now);
        machine.handle_received(peer, circuit, 100_000, now);
        machine.handle_closed(peer, circuit, now);
        drain(&mut machine);
    }
    assert!(machine.peers.len() <= 513);
}
