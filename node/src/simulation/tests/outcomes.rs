//! Each outcome of an address has a case in which the address has that one in the record of the attempt.
//!
//! An outcome without a case does not compile.

use std::{io, time::Duration};

use libp2p::{Multiaddr, TransportError, swarm::ConnectionId};
use p2pnode_protocol::dcutr::Addresses;

use super::{
    reasons::{OneSide, THEIRS, addr},
    seconds,
};
use crate::punch::{
    CandidateOutcome, Role,
    address::Candidate,
    dial_outcome,
    machine::{Action, Established, Event, Side},
};

/// What became of the peer's address in the first attempt that ended.
fn caused(outcome: CandidateOutcome) -> Vec<CandidateOutcome> {
    let mut one = match outcome {
        CandidateOutcome::Filtered => waited(false, 100_000),
        CandidateOutcome::OverBudget => waited(true, 0),
        CandidateOutcome::Pending => waited(true, 100_000),
        CandidateOutcome::NotDialed => circuit_lost(),
        CandidateOutcome::Connected => connected(),
        CandidateOutcome::Refused => failed(io::ErrorKind::ConnectionRefused.into()),
        CandidateOutcome::Timeout => failed(io::ErrorKind::TimedOut.into()),
        CandidateOutcome::Unreachable => failed(io::ErrorKind::NetworkUnreachable.into()),
        CandidateOutcome::BothDialed => failed(both_dialed()),
        CandidateOutcome::Failed => failed(io::ErrorKind::InvalidData.into()),
    };
    let mut events = std::iter::from_fn(|| one.machine.poll_event());
    let record = events.find_map(|event| match event {
        Event::Attempt(record) => Some(record),
        Event::Direct { .. }
        | Event::GaveUp { .. }
        | Event::Unvouched { .. }
        | Event::Listed { .. } => None,
    });
    let received = record.unwrap().received.into_iter();
    received.map(|of_address| of_address.outcome).collect()
}

/// The handshake is done, the peer has sent so much, and the attempt runs into its end.
fn waited(permits: bool, bytes: u64) -> OneSide {
    let mut one = OneSide::new(permits);
    one.relayed_with(Side::Listener, bytes);
    one.answered();
    one.wait(seconds(60));
    one
}

/// The peer's addresses are there, and its word to dial is not.
fn circuit_lost() -> OneSide {
    let mut one = OneSide::new(true);
    one.relayed(Side::Dialer);
    let (peer, circuit, now) = (one.peer, one.circuit, one.now);
    let connect = vec![addr(THEIRS)].into();
    one.machine.handle_connect(peer, circuit, connect, now);
    one.machine.handle_closed(peer, circuit, now);
    one
}

fn connected() -> OneSide {
    let mut one = OneSide::new(true);
    one.relayed(Side::Listener);
    one.answered().unwrap();
    let established = Established {
        connection: ConnectionId::new_unchecked(9),
        dialed: true,
        remote: Candidate::parse(&addr(THEIRS)),
    };
    one.machine.handle_direct(one.peer, established, one.now);
    one
}

fn both_dialed() -> io::Error {
    io::Error::other(p2pnode_transports::Error::BothDialed {
        remote: ([203, 0, 113, 7], 5_000).into(),
    })
}

/// The dial fails with this error.
fn failed(error: io::Error) -> OneSide {
    let mut one = OneSide::new(true);
    one.relayed(Side::Listener);
    let dial = one.answered().unwrap();
    let error = TransportError::Other(error);
    one.failed(dial, dial_outcome(&error));
    one.wait(seconds(60));
    one
}

#[test]
fn each_outcome_of_an_address_has_a_case_that_causes_it_and_no_other() {
    for outcome in CandidateOutcome::ALL {
        assert_eq!(caused(outcome), [outcome]);
    }
}

#[test]
fn after_both_sides_have_dialed_this_side_takes_the_other_role_with_a_peer_of_another_make() {
    let theirs: Multiaddr = addr(THEIRS);
    for (rtt, second) in [
        (None, Role::Initiator),
        (Some(Duration::from_millis(20)), Role::Responder),
    ] {
        let mut one = OneSide::new(true);
        one.relayed(Side::Dialer);
        let roles = [(); 2].map(|()| {
            let connect = Addresses {
                rtt,
                ..vec![theirs.clone()].into()
            };
            one.machine
                .handle_connect(one.peer, one.circuit, connect, one.now);
            one.machine.handle_sync(one.peer, one.circuit, one.now);
            one.wait(seconds(1));
            let mut actions = std::iter::from_fn(|| one.machine.poll_action());
            let dial = actions.find_map(|action| {
                let Action::Dial { dial, role, .. } = action else {
                    return None;
                };
                Some((dial, role))
            });
            let (dial, role) = dial.unwrap();
            let error = TransportError::Other(both_dialed());
            one.failed(dial, dial_outcome(&error));
            one.wait(seconds(6));
            role
        });
        assert_eq!(roles, [Role::Responder, second]);
    }
}
