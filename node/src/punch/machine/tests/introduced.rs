//! A relay introduces the two before there is a circuit between them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::Transport;

use super::{
    pair::{NATS, assert_one_direct, became_direct, gave_up, possible, records},
    sim::{Nat, Network, Word, World},
};
use crate::punch::{
    candidates::{MAX_CANDIDATES, Policy},
    machine::{
        Action, Introduced,
        IntroductionResponse::{Ignored, Punches, Refused},
        Machine, Side, Timing,
        introductions::{IN_ALL, PER_RELAY, PER_SOURCE, WINDOW, most_sent},
    },
    record::{By, Outcome, Reason, Role},
};

const NOW: Word = Word::After(Duration::from_millis(30));

/// When the circuit is there: later than a punch takes.
const CIRCUIT: Duration = Duration::from_millis(200);

fn by(world: &World, node: usize) -> Vec<(By, Role, bool)> {
    let of = |record: &&crate::punch::Record| {
        let is_direct = matches!(record.outcome, Outcome::Direct { .. });
        (record.by(), record.role, is_direct)
    };
    records(&world.nodes[node]).iter().map(of).collect()
}

#[test]
fn every_pair_of_nats_that_can_be_punched_is_direct_before_the_circuit_and_without_a_handshake() {
    for a in NATS {
        for b in NATS {
            let mut world = World::new(Network::new(a, b));
            world.introduce(0, Duration::ZERO, [NOW, NOW]);
            world.circuit(0, CIRCUIT);
            world.run_until(Duration::from_secs(12));
            if !possible(a, b) {
                assert!(world.shared().is_empty(), "{a:?} {b:?}");
                continue;
            }
            assert_one_direct(&world);
            for (node, role) in [(0, Role::Responder), (1, Role::Initiator)] {
                assert_eq!(
                    by(&world, node),
                    [(By::Introduction, role, true)],
                    "{a:?} {b:?}"
                );
                let direct = became_direct(&world.nodes[node]);
                assert!(direct.is_some_and(|at| at < CIRCUIT), "{a:?} {b:?}");
            }
        }
    }
}

#[test]
fn the_circuit_is_not_needed() {
    let mut world = World::new(Network::new(Nat::PortRestricted, Nat::PortRestricted));
    world.introduce(0, Duration::ZERO, [NOW, NOW]);
    world.run_until(Duration::from_secs(9));
    assert_one_direct(&world);
}

#[test]
fn where_one_side_does_not_hear_of_it_the_handshake_follows() {
    for lost in 0..2 {
        let mut words = [NOW, NOW];
        words[lost] = Word::Lost;
        let mut world = World::new(Network::new(Nat::PortRestricted, Nat::PortRestricted));
        world.introduce(0, Duration::ZERO, words);
        world.circuit(0, CIRCUIT);
        world.run_until(Duration::from_secs(12));
        assert_one_direct(&world);
        for node in 0..2 {
            let last = by(&world, node).pop();
            assert!(
                matches!(last, Some((By::Dcutr, _, true))),
                "{lost}: {last:?}"
            );
            // Held back for half a second at most.
            let direct = became_direct(&world.nodes[node]);
            assert!(
                direct.is_some_and(|at| at < Duration::from_secs(1)),
                "{lost}: {direct:?}"
            );
        }
    }
}

#[test]
fn what_comes_late_or_twice_changes_nothing() {
    for late in [
        Duration::from_millis(210),
        Duration::from_millis(260),
        Duration::from_secs(5),
    ] {
        let mut world = World::new(Network::new(Nat::PortRestricted, Nat::PortRestricted));
        world.circuit(0, Duration::from_millis(100));
        for _ in 0..3 {
            world.introduce(0, Duration::ZERO, [Word::After(late); 2]);
        }
        world.run_until(Duration::from_secs(12));
        assert_one_direct(&world);
        for node in &world.nodes {
            assert!(records(node).len() <= 2, "{late:?}");
        }
    }
    let mut world = World::new(Network::new(Nat::FullCone, Nat::PortRestricted));
    for delay in [0, 1, 50, 400] {
        world.introduce(0, Duration::from_millis(delay), [NOW, NOW]);
    }
    world.circuit(0, CIRCUIT);
    world.run_until(Duration::from_secs(12));
    assert_one_direct(&world);
    assert!(world.nodes.iter().all(|node| records(node).len() == 1));
}

#[test]
fn two_that_ask_for_each_other_at_once_are_left_with_one_connection() {
    for transports in [vec![Transport::Quic], vec![Transport::Tcp]] {
        let mut network = Network::new(Nat::PortRestricted, Nat::PortRestricted);
        network.transports = [transports.clone(), transports];
        let mut world = World::new(network);
        world.introduce(0, Duration::ZERO, [NOW, NOW]);
        world.introduce(1, Duration::ZERO, [NOW, NOW]);
        world.circuit(0, CIRCUIT);
        world.circuit(1, CIRCUIT);
        world.run_until(Duration::from_secs(12));
        assert_one_direct(&world);
    }
}

#[test]
fn what_cannot_be_punched_stays_relayed_for_the_same_reason_as_without() {
    let ended = |introduced: bool| {
        let mut world = World::new(Network::new(Nat::Symmetric, Nat::Symmetric));
        if introduced {
            world.introduce(0, Duration::ZERO, [NOW, NOW]);
        }
        world.circuit(0, CIRCUIT);
        world.run_until(Duration::from_secs(60));
        assert!(world.shared().is_empty());
        let handshakes = |node: usize| {
            let all = by(&world, node);
            let dcutr = all.iter().filter(|(by, ..)| *by == By::Dcutr);
            // One series. Its attempts take longer where a relay vouches for the addresses.
            dcutr.take(3).count()
        };
        let reasons: Vec<Option<Reason>> = (0..2)
            .map(|node| gave_up(&world.nodes[node]).first().map(|end| end.1))
            .collect();
        (reasons, [handshakes(0), handshakes(1)])
    };
    assert_eq!(ended(true), ended(false));
}

fn machine(enabled: bool) -> Machine {
    Machine::new(
        PeerId::random(),
        enabled,
        Policy::open(),
        Timing::default(),
        1,
    )
}

fn introduced(asked: bool, addrs: &[&str]) -> Introduced {
    let parse = |text: &&str| text.parse::<Multiaddr>().unwrap();
    Introduced {
        relay: PeerId::random(),
        peer: PeerId::random(),
        asked,
        addrs: addrs.iter().map(parse).collect(),
        own_addrs: ["/ip4/198.51.100.7/udp/40000/quic-v1"]
            .iter()
            .map(parse)
            .collect(),
    }
}

/// What is dialed, and in which roles.
fn dialed(machine: &mut Machine) -> Vec<(Vec<String>, Role)> {
    let mut dials = Vec::new();
    while let Some(action) = machine.poll_action() {
        if let Action::Dial { addrs, role, .. } = action {
            dials.push((addrs.iter().map(Multiaddr::to_string).collect(), role));
        }
    }
    dials
}

#[test]
fn over_tcp_the_two_never_have_the_same_role_whoever_asks() {
    let ids = [PeerId::random(), PeerId::random()];
    let roles: BTreeSet<String> = [(0, 1), (1, 0)]
        .map(|(own, other)| {
            let mut machine = Machine::new(ids[own], true, Policy::open(), Timing::default(), 1);
            let introduction = Introduced {
                peer: ids[other],
                own_addrs: vec!["/ip4/198.51.100.7/tcp/40000".parse().unwrap()],
                ..introduced(true, &["/ip4/203.0.113.1/tcp/5000"])
            };
            let response = machine.handle_introduced(&introduction, Instant::now());
            assert_eq!(response, Punches);
            dialed(&mut machine)[0].1.to_string()
        })
        .into_iter()
        .collect();
    assert_eq!(roles.len(), 2);
}

#[test]
fn nothing_is_dialed_at_this_host_at_the_relay_and_at_this_node() {
    let (mut machine, now) = (machine(true), Instant::now());
    let relay = PeerId::random();
    machine.handle_relays(&[format!("/ip4/203.0.113.10/udp/443/quic-v1/p2p/{relay}")
        .parse()
        .unwrap()]);
    let hostile = introduced(
        false,
        &[
            "/ip4/127.0.0.1/udp/53/quic-v1",
            "/ip6/::1/udp/22/quic-v1",
            "/ip4/224.0.0.1/udp/5353/quic-v1",
            "/ip6/fe80::1/udp/22/quic-v1",
            "/ip4/203.0.113.10/udp/443/quic-v1",
            "/ip4/198.51.100.7/udp/40000/quic-v1",
            "/ip4/192.0.2.1/udp/7/quic-v1",
        ],
    );
    assert_eq!(machine.handle_introduced(&hostile, now), Punches);
    let only = vec!["/ip4/192.0.2.1/udp/7/quic-v1".to_owned()];
    assert_eq!(dialed(&mut machine), [(only, Role::Initiator)]);
    for itself in [relay, machine.local_id] {
        let introduction = Introduced {
            peer: itself,
            ..introduced(true, &["/ip4/192.0.2.1/udp/7/quic-v1"])
        };
        assert_eq!(machine.handle_introduced(&introduction, now), Ignored);
    }
}

#[test]
fn what_dcutr_does_better_and_what_is_not_wanted_is_not_punched() {
    let now = Instant::now();
    for addr in [
        // Behind the same NAT.
        "/ip4/198.51.100.7/udp/40001/quic-v1",
        // Nothing in common.
        "/ip4/203.0.113.1/tcp/5000",
        "/ip6/2001:db8::1/udp/5000/quic-v1",
    ] {
        let mut machine = machine(true);
        assert_eq!(
            machine.handle_introduced(&introduced(true, &[addr]), now),
            Ignored,
            "{addr}"
        );
        assert!(dialed(&mut machine).is_empty(), "{addr}");
    }
    let introduction = introduced(true, &["/ip4/203.0.113.1/udp/5000/quic-v1"]);
    assert_eq!(machine(true).handle_introduced(&introduction, now), Punches);
    assert_eq!(
        machine(false).handle_introduced(&introduction, now),
        Ignored,
        "punch is off"
    );
}

/// How many of 1,000 introductions by relays that take turns are punched, of peers at one of these networks each.
fn punched(relays: usize, at: impl Fn(usize) -> String) -> u64 {
    let (mut machine, now) = (machine(true), Instant::now());
    let relays: Vec<PeerId> = (0..relays).map(|_| PeerId::random()).collect();
    let own = [
        "/ip4/198.51.100.7/udp/40000/quic-v1",
        "/ip4/198.51.100.7/tcp/40000",
        "/ip6/2001:db8:1::7/udp/40000/quic-v1",
    ];
    let own: Vec<Multiaddr> = own.map(|addr| addr.parse().unwrap()).into();
    let taken = (0..1000).filter(|number| {
        let introduction = Introduced {
            relay: relays[number % relays.len()],
            own_addrs: own.clone(),
            ..introduced(false, &[&at(*number)])
        };
        let response = machine.handle_introduced(&introduction, now);
        assert!(matches!(response, Punches | Refused), "{response:?}");
        response == Punches
    });
    taken.count() as u64
}

#[test]
fn what_introductions_send_is_bounded_by_the_network_that_it_goes_to_and_in_all() {
    let most = most_sent(Transport::Quic);
    let one = |_| "/ip4/203.0.113.1/udp/5000/quic-v1".to_owned();
    assert_eq!(punched(100, one), PER_SOURCE / most);
    let ports = |n| format!("/ip4/203.0.113.1/udp/{}/quic-v1", 5000 + n);
    assert_eq!(punched(100, ports), PER_SOURCE / most);
    let net64 = |n| format!("/ip6/2001:db8:7::{n:x}/udp/5000/quic-v1");
    assert_eq!(punched(100, net64), PER_SOURCE / most);
    let net56 = |n| format!("/ip6/2001:db8:7:{:x}::1/udp/5000/quic-v1", n % 256);
    assert_eq!(punched(100, net56), 2 * PER_SOURCE / most);
    let net48 = |n| format!("/ip6/2001:db8:7:{n:x}::1/udp/5000/quic-v1");
    assert_eq!(punched(100, net48), 4 * PER_SOURCE / most);
    let many = |n| format!("/ip4/203.0.{}.{}/udp/5000/quic-v1", n / 250, n % 250 + 1);
    assert_eq!(punched(100, many), IN_ALL / most);
    assert_eq!(punched(1, many), PER_RELAY as u64);
    let tcp = |_| "/ip4/203.0.113.1/tcp/5000".to_owned();
    assert_eq!(punched(100, tcp), 1000, "most are cheap");
}

#[test]
fn introductions_without_end_make_a_bounded_number_of_dials() {
    let (mut machine, start) = (machine(true), Instant::now());
    let many: Vec<String> = (1..=1000)
        .map(|n| format!("/ip4/203.0.{}.{}/udp/5000/quic-v1", n / 250, n % 250 + 1))
        .collect();
    let relay = PeerId::random();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut addresses = 0;
    for number in 0..1000 {
        let now = start + WINDOW * number / 1000;
        let introduction = Introduced {
            relay,
            ..introduced(false, &many)
        };
        machine.handle_introduced(&introduction, now);
        let dials = dialed(&mut machine);
        assert!(dials.len() <= 1);
        addresses += dials.iter().map(|(addrs, _)| addrs.len()).sum::<usize>();
    }
    assert_eq!(addresses, PER_RELAY * MAX_CANDIDATES);

    // One peer has the measure of its handshakes, in which they count.
    let introduction = introduced(true, &many);
    let mut dials = 0;
    for second in 0..60 {
        let now = start + Duration::from_secs(100 + second);
        machine.handle_timeout(now);
        machine.handle_introduced(&introduction, now);
        dials += dialed(&mut machine).len();
    }
    assert!((1..=8).contains(&dials), "{dials}");
}

#[test]
fn a_handshake_that_comes_takes_its_place_and_one_to_begin_waits_for_it() {
    let now = Instant::now();
    let circuit = ConnectionId::new_unchecked(9);
    let introduction = introduced(true, &["/ip4/203.0.113.1/udp/5000/quic-v1"]);

    let mut responder = machine(true);
    responder.handle_introduced(&introduction, now);
    responder.handle_relayed(introduction.peer, circuit, Side::Dialer, None, now);
    let addrs = vec!["/ip4/203.0.113.1/udp/5000/quic-v1".parse().unwrap()];
    responder.handle_connect(introduction.peer, circuit, addrs.into(), now);
    let actions: Vec<_> = std::iter::from_fn(|| responder.poll_action()).collect();
    let dropped = |action: &Action| matches!(action, Action::Drop { .. });
    assert!(!actions.iter().any(dropped), "the handshake was refused");
    assert_eq!(
        responder.last_record(&introduction.peer).map(|r| r.outcome),
        Some(Outcome::Failed(Reason::Superseded))
    );

    let mut initiator = machine(true);
    initiator.handle_introduced(&introduction, now);
    initiator.handle_relayed(introduction.peer, circuit, Side::Listener, None, now);
    let due = initiator.poll_timeout();
    assert_eq!(due, Some(now + Timing::default().introduction));
    let rtt = Some(Duration::from_millis(400));
    let other = ConnectionId::new_unchecked(10);
    initiator.handle_closed(introduction.peer, circuit, now);
    initiator.handle_relayed(introduction.peer, other, Side::Listener, rtt, now);
    assert_eq!(
        initiator.poll_timeout(),
        Some(now + Duration::from_millis(1600))
    );
}
