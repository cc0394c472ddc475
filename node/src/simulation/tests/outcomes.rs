//! Each outcome of an address has a case in which the address has that one in the record of the attempt.
//!
//! An outcome without a case does not compile.

use std::io;

use libp2p::{TransportError, swarm::ConnectionId};

use super::{
    reasons::{OneSide, THEIRS, addr},
    seconds,
};
use crate::punch::{
    CandidateOutcome,
    address::Candidate,
    dial_outcome,
    machine::{Established, Event, Side},
};

const OUTCOMES: [CandidateOutcome; 9] = [
    CandidateOutcome::Filtered,
    CandidateOutcome::NotDialed,
    CandidateOutcome::OverBudget,
    CandidateOutcome::Pending,
    CandidateOutcome::Connected,
    CandidateOutcome::Refused,
    CandidateOutcome::Timeout,
    CandidateOutcome::Unreachable,
    CandidateOutcome::Failed,
];

/// What became of the peer's address in the first attempt that ended.
fn caused(outcome: CandidateOutcome) -> Vec<CandidateOutcome> {
    let mut one = match outcome {
        CandidateOutcome::Filtered => waited(false, 100_000),
        CandidateOutcome::OverBudget => waited(true, 0),
        CandidateOutcome::Pending => waited(true, 100_000),
        CandidateOutcome::NotDialed => circuit_lost(),
        CandidateOutcome::Connected => connected(),
        CandidateOutcome::Refused => failed(io::ErrorKind::ConnectionRefused),
        CandidateOutcome::Timeout => failed(io::ErrorKind::TimedOut),
        CandidateOutcome::Unreachable => failed(io::ErrorKind::NetworkUnreachable),
        CandidateOutcome::Failed => failed(io::ErrorKind::InvalidData),
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

/// The dial fails with this error of the system.
fn failed(kind: io::ErrorKind) -> OneSide {
    let mut one = OneSide::new(true);
    one.relayed(Side::Listener);
    let dial = one.answered().unwrap();
    let error = TransportError::Other(io::Error::from(kind));
    one.failed(dial, dial_outcome(&error));
    one.wait(seconds(60));
    one
}

#[test]
fn each_outcome_of_an_address_has_a_case_that_causes_it_and_no_other() {
    for outcome in OUTCOMES {
        assert_eq!(caused(outcome), [outcome]);
    }
}
