//! Connections that carry streams which cannot move.

use std::time::{Duration, Instant};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_transports::Transport;

use crate::punch::{
    candidates::Policy,
    machine::{Action, Established, Machine, Side, Timing},
};

fn circuit() -> ConnectionId {
    ConnectionId::new_unchecked(1)
}

fn directs() -> [ConnectionId; 2] {
    [2, 3].map(ConnectionId::new_unchecked)
}

/// A machine with a peer that has a circuit and two direct connections, one from each side.
fn connected(now: Instant) -> (Machine, PeerId) {
    let policy = Policy {
        transports: vec![Transport::Quic],
        ..Policy::open()
    };
    let mut machine = Machine::new(PeerId::random(), true, policy, Timing::default(), 1);
    let peer = PeerId::random();
    machine.handle_relayed(peer, circuit(), Side::Dialer, None, now);
    for (connection, dialed) in directs().into_iter().zip([true, false]) {
        let established = Established {
            connection,
            dialed,
            remote: None,
        };
        machine.handle_direct(peer, established, now);
    }
    (machine, peer)
}

/// The connections that it closes until `until`.
pub(super) fn closed(machine: &mut Machine, until: Instant) -> Vec<ConnectionId> {
    while let Some(due) = machine.poll_timeout().filter(|due| *due <= until) {
        machine.handle_timeout(due);
    }
    let actions = std::iter::from_fn(|| machine.poll_action());
    let mut closed = Vec::new();
    for action in actions {
        if let Action::Close { connection, .. } = action {
            closed.push(connection);
        }
    }
    closed
}

#[test]
fn a_circuit_with_a_raw_stream_is_closed_once_the_stream_has_ended() {
    let now = Instant::now();
    let (mut machine, peer) = connected(now);
    machine.handle_used(peer, &[circuit()], now);
    let later = now + Duration::from_secs(600);
    assert_eq!(closed(&mut machine, later), [directs()[1]]);
    machine.handle_used(peer, &[], later);
    let grace = Timing::default().grace;
    assert_eq!(closed(&mut machine, later + grace / 2), []);
    assert_eq!(closed(&mut machine, later + grace), [circuit()]);
}

#[test]
fn a_second_direct_connection_with_a_raw_stream_is_closed_once_the_stream_has_ended() {
    let now = Instant::now();
    let (mut machine, peer) = connected(now);
    machine.handle_used(peer, &directs(), now);
    let later = now + Duration::from_secs(600);
    assert_eq!(closed(&mut machine, later), [circuit()]);
    machine.handle_used(peer, &directs()[..1], later);
    let soon = later + Timing::default().surplus_fallback;
    assert_eq!(closed(&mut machine, soon), [directs()[1]]);
}
