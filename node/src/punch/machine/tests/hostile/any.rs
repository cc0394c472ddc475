//! Whatever comes in, in whatever order.

use super::*;

/// One input of a swarm, in any order.
#[derive(Debug, Clone)]
enum Input {
    Relayed(usize, bool),
    Direct(usize, bool),
    Closed(usize),
    Connect(usize, u8),
    Sync(usize),
    Answer(usize, u8),
    Failed(usize, bool),
    DialFailed(u64),
    Wait(u64),
    Introduced(bool, u8),
    Observed(usize, u8),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        (0..6_usize, any::<bool>()).prop_map(|(c, l)| Input::Relayed(c, l)),
        (10..14_usize, any::<bool>()).prop_map(|(c, d)| Input::Direct(c, d)),
        (0..14_usize).prop_map(Input::Closed),
        (0..6_usize, 0..20_u8).prop_map(|(c, n)| Input::Connect(c, n)),
        (0..6_usize).prop_map(Input::Sync),
        (0..6_usize, 0..20_u8).prop_map(|(c, n)| Input::Answer(c, n)),
        (0..6_usize, any::<bool>()).prop_map(|(c, r)| Input::Failed(c, r)),
        (0..12_u64).prop_map(Input::DialFailed),
        (0..20_000_u64).prop_map(Input::Wait),
        (any::<bool>(), 0..20_u8).prop_map(|(asked, n)| Input::Introduced(asked, n)),
        (20..24_usize, any::<u8>()).prop_map(|(c, n)| Input::Observed(c, n)),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_in_whatever_order_work_is_bounded_and_a_direct_peer_is_not_punched(
        inputs in prop::collection::vec(input(), 1..200),
    ) {
        let mut machine = machine();
        let peer = PeerId::random();
        let mut now = Instant::now();
        let mut open = std::collections::BTreeSet::new();
        for input in inputs {
            let id = ConnectionId::new_unchecked;
            match input {
                Input::Relayed(c, listener) => {
                    if open.insert(c) {
                        let side = if listener { Side::Listener } else { Side::Dialer };
                        machine.handle_relayed(peer, id(c), side, None, now);
                        machine.handle_received(peer, id(c), 100_000, now);
                    }
                }
                Input::Direct(c, dialed) => {
                    if open.insert(c) {
                        machine.handle_direct(peer, Established { connection: id(c), dialed, remote: None }, now);
                    }
                }
                Input::Closed(c) => {
                    open.remove(&c);
                    machine.handle_closed(peer, id(c), now);
                }
                Input::Connect(c, n) => machine.handle_connect(peer, id(c), candidates(n), now),
                Input::Sync(c) => machine.handle_sync(peer, id(c), now),
                Input::Answer(c, n) => {
                    machine.handle_answer(peer, id(c), candidates(n), Duration::from_millis(50), now, now);
                }
                Input::Failed(c, initiator) => {
                    let role = if initiator { Role::Initiator } else { Role::Responder };
                    machine.handle_handshake_failed(peer, id(c), role, HandshakeError::Broken, now);
                }
                Input::DialFailed(n) => {
                    let candidate = Candidate { transport: Transport::Quic, socket: ([203, 0, 113, 1], 5000).into() };
                    machine.handle_dial_failed(peer, DialId(n), &[(candidate, CandidateOutcome::Refused)], now);
                }
                Input::Wait(millis) => {
                    now += Duration::from_millis(millis);
                    machine.handle_timeout(now);
                }
                Input::Introduced(asked, n) => {
                    let own_addrs = vec![observation().addr];
                    let addrs = candidates(n).known;
                    let relay = peer;
                    machine.handle_introduced(&Introduced { relay, peer, asked, addrs, own_addrs }, now);
                }
                Input::Observed(c, n) => {
                    let addr = format!("/ip4/198.51.100.{n}/udp/40000/quic-v1").parse().unwrap();
                    let observation = Observation { addr, connection: id(c), ..observation() };
                    machine.handle_observed(&observation, now);
                }
            }
            let is_direct = open.iter().any(|c| *c >= 10);
            let mut actions = 0;
            for action in drain(&mut machine) {
                actions += 1;
                match action {
                    Action::Dial { addrs, .. } => {
                        prop_assert!(!is_direct, "a direct peer is punched");
                        prop_assert!(addrs.len() <= MAX_CANDIDATES);
                    }
                    Action::Connect { circuit, .. } | Action::Reply { circuit, .. } => {
                        prop_assert!(!is_direct);
                        prop_assert!(open.contains(&circuit.to_string().parse().unwrap()));
                    }
                    Action::Close { connection, .. } => {
                        let number = connection.to_string().parse().unwrap();
                        open.remove(&number);
                        if number >= 10 {
                            prop_assert!(open.iter().any(|c| *c >= 10), "the last direct connection is closed");
                        }
                        machine.handle_closed(peer, connection, now);
                    }
                    Action::Drop { .. }
                    | Action::KeepAlive { .. }
                    | Action::Expect { .. }
                    | Action::Forget { .. } => {}
                }
            }
            prop_assert!(actions <= 30, "{actions} actions for one input");
            if let Some(due) = machine.poll_timeout() {
                // A deadline that has passed is handled before it is asked for again, or the caller would spin.
                machine.handle_timeout(now.max(due));
                now = now.max(due);
                prop_assert!(machine.poll_timeout().is_none_or(|next| next > now));
                for action in drain(&mut machine) {
                    if let Action::Close { connection, .. } = action {
                        open.remove(&connection.to_string().parse::<usize>().unwrap());
                        machine.handle_closed(peer, connection, now);
                    }
                }
            }
        }
    }
}
