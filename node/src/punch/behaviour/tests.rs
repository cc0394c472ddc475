//! Ours, libp2p's and hostile peers in real swarms.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks at the few events that it is about"
)]

mod hostile;
mod swarm;

use libp2p::dcutr;
use p2pnode_transports::Transport;

use self::swarm::{Mute, Seen, meet};
use crate::punch::{
    Behaviour, CandidateOutcome, Event, Reason, Record, Role, address::Candidate, record::Outcome,
};

fn one_direct_and_nothing_else(dialer: &Seen, listener: &Seen) -> bool {
    let settled = |seen: &Seen| seen.was_relayed && seen.direct() == 1 && seen.relayed() == 0;
    settled(dialer) && settled(listener)
}

fn is_direct(record: &&Record) -> bool {
    matches!(record.outcome, Outcome::Direct { .. })
}

#[tokio::test]
async fn two_of_ours_get_one_direct_connection_over_quic_and_the_circuit_closes() {
    let (dialer, listener) =
        meet::<Behaviour, Behaviour>(&[Transport::Quic], one_direct_and_nothing_else).await;
    assert_eq!(dialer.records().len(), 1);
    assert_eq!(dialer.records()[0].role, Role::Responder);
    assert!(dialer.records().iter().all(is_direct));
    assert_eq!(listener.records().len(), 1);
    assert_eq!(listener.records()[0].role, Role::Initiator);
    assert!(listener.records()[0].rtt.is_some());
}

#[tokio::test]
async fn two_of_ours_with_both_transports_punch_quic() {
    let (dialer, _) = meet::<Behaviour, Behaviour>(
        &[Transport::Quic, Transport::Tcp],
        one_direct_and_nothing_else,
    )
    .await;
    let record = dialer.records()[0];
    assert_eq!(record.sent.len(), 2);
    for candidate in &record.received {
        let quic = Candidate::parse(&candidate.addr).unwrap().transport == Transport::Quic;
        assert_eq!(
            quic,
            candidate.outcome != CandidateOutcome::NotDialed,
            "{record:#?}"
        );
    }
}

#[tokio::test]
async fn libp2ps_dcutr_as_the_listener_of_the_circuit_gets_direct_with_ours() {
    let direct = |dialer: &Seen, listener: &Seen| {
        dialer.direct() > 0 && listener.direct() > 0 && !dialer.events.is_empty()
    };
    let (dialer, _) = meet::<Behaviour, dcutr::Behaviour>(&[Transport::Quic], direct).await;
    assert!(dialer.records().iter().all(is_direct));
}

#[tokio::test]
async fn libp2ps_dcutr_as_the_dialer_of_the_circuit_gets_direct_with_ours() {
    let direct = |dialer: &Seen, listener: &Seen| {
        dialer.direct() > 0 && listener.direct() > 0 && !listener.events.is_empty()
    };
    let (_, listener) = meet::<dcutr::Behaviour, Behaviour>(&[Transport::Quic], direct).await;
    assert!(listener.records().iter().all(is_direct));
}

#[tokio::test]
async fn a_peer_without_dcutr_stays_relayed_and_is_said_to_lack_it() {
    let gave_up = |_: &Seen, listener: &Seen| {
        listener
            .events
            .iter()
            .any(|e| matches!(e, Event::GaveUp { .. }))
    };
    let (_, listener) = meet::<Mute, Behaviour>(&[Transport::Quic], gave_up).await;
    assert_eq!(listener.records().len(), 1);
    assert_eq!(
        listener.records()[0].outcome,
        Outcome::Failed(Reason::RemoteUnsupported)
    );
}
