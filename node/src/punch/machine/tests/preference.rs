//! Which of two direct connections is closed, by what the two sides prefer.

use std::time::{Duration, Instant};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_transports::{Family, FamilyPolicy, Transport};

use crate::punch::{
    address::Candidate,
    candidates::Policy,
    machine::{Established, Machine, Side, Timing},
};

use super::used::closed;

const CIRCUIT: usize = 1;

/// A machine that prefers IPv4, and a peer for which it decides.
fn machine() -> (Machine, PeerId) {
    let mut ids = [PeerId::random(), PeerId::random()];
    ids.sort_by_key(|id| id.to_bytes());
    let policy = Policy {
        transports: vec![Transport::Quic],
        families: FamilyPolicy::PreferIp4,
        ..Policy::open()
    };
    (
        Machine::new(ids[0], true, policy, Timing::default(), 1),
        ids[1],
    )
}

/// The peer has dialed this node in both families: the connections.
fn accept(machine: &mut Machine, peer: PeerId, now: Instant) -> [ConnectionId; 2] {
    [(2, "192.0.2.1:40000"), (3, "[2001:db8::1]:40000")].map(|(number, socket)| {
        let connection = ConnectionId::new_unchecked(number);
        let remote = Candidate {
            transport: Transport::Quic,
            socket: socket.parse().unwrap(),
        };
        let established = Established {
            connection,
            dialed: false,
            remote: Some(remote),
        };
        machine.handle_direct(peer, established, now);
        connection
    })
}

#[test]
fn the_surplus_waits_until_the_dialer_has_identified_itself() {
    let (now, (mut machine, peer)) = (Instant::now(), machine());
    let [ip4, _] = accept(&mut machine, peer, now);
    let later = now + Duration::from_millis(2500);
    assert_eq!(closed(&mut machine, later), []);
    machine.handle_preference(peer, Some(Family::Ip6), later);
    assert_eq!(closed(&mut machine, later), [ip4]);
}

#[test]
fn the_surplus_of_a_peer_that_never_identifies_itself_does_not_live_for_long() {
    let (now, (mut machine, peer)) = (Instant::now(), machine());
    let [_, ip6] = accept(&mut machine, peer, now);
    let limit = now + Timing::default().surplus_limit;
    assert_eq!(closed(&mut machine, limit), [ip6]);
}

#[test]
fn who_dialed_in_an_earlier_session_does_not_count() {
    let (now, (mut machine, peer)) = (Instant::now(), machine());
    let circuit = ConnectionId::new_unchecked(CIRCUIT);
    machine.handle_relayed(peer, circuit, Side::Dialer, None, now);
    machine.handle_closed(peer, circuit, now);
    let [ip4, _] = accept(&mut machine, peer, now);
    machine.handle_preference(peer, Some(Family::Ip6), now);
    assert_eq!(closed(&mut machine, now + Duration::from_secs(3)), [ip4]);
}
