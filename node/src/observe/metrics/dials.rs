//! What became of each address that was dialed.

use std::io;

use libp2p::{Multiaddr, TransportError, swarm::DialError};
use p2pnode_protocol::addr::is_circuit;
use p2pnode_transports::{Family, Transport};

use super::labels::{DialLabels, DialOutcome};
use crate::{
    core::{
        dialer::CircuitFailure,
        peers::{Path, PathKind},
    },
    punch,
};

/// An address whose dial made the connection with this path.
pub(super) fn connected(path: &Path) -> DialLabels {
    const OUTCOME: DialOutcome = DialOutcome::Connected;
    match path.kind {
        PathKind::Relayed => DialLabels::circuit(OUTCOME),
        PathKind::Direct => {
            let hop = path.hops.first();
            DialLabels::socket(
                hop.and_then(|hop| hop.transport),
                hop.and_then(|hop| hop.family),
                OUTCOME,
            )
        }
    }
}

/// The addresses of a dial that failed. One that never began has none. `circuit`: what its failure means for a circuit.
pub(super) fn failed(error: &DialError, circuit: CircuitFailure) -> Vec<DialLabels> {
    match error {
        DialError::Transport(errors) => errors
            .iter()
            .map(|(address, reason)| {
                let outcome = if is_circuit(address) {
                    circuit_outcome(circuit, reason)
                } else {
                    outcome(reason)
                };
                at(address, outcome)
            })
            .collect(),
        DialError::WrongPeerId { address, .. } => vec![at(address, DialOutcome::WrongPeer)],
        // The swarm does not report which address these concern.
        DialError::Denied { .. } => vec![DialLabels::socket(None, None, DialOutcome::Denied)],
        DialError::Aborted => vec![DialLabels::socket(None, None, DialOutcome::Aborted)],
        DialError::LocalPeerId { .. }
        | DialError::NoAddresses
        | DialError::DialPeerConditionFalse(_) => Vec::new(),
    }
}

/// An address that failed in a dial of which another one connected.
pub(super) fn failed_address(
    address: &Multiaddr,
    reason: &TransportError<io::Error>,
) -> DialLabels {
    at(address, outcome(reason))
}

fn at(address: &Multiaddr, outcome: DialOutcome) -> DialLabels {
    if is_circuit(address) {
        DialLabels::circuit(outcome)
    } else {
        DialLabels::socket(Transport::of(address), Family::of(address), outcome)
    }
}

fn outcome(reason: &TransportError<io::Error>) -> DialOutcome {
    match reason {
        TransportError::MultiaddrNotSupported(_) => DialOutcome::Unsupported,
        TransportError::Other(error) if p2pnode_transports::find_exhausted(error).is_some() => {
            DialOutcome::Exhausted
        }
        TransportError::Other(_) => DialOutcome::Socket(punch::dial_outcome(reason)),
    }
}

fn circuit_outcome(circuit: CircuitFailure, reason: &TransportError<io::Error>) -> DialOutcome {
    match circuit {
        CircuitFailure::Absent => DialOutcome::NoReservation,
        CircuitFailure::Refused => DialOutcome::Refused,
        CircuitFailure::Broken => outcome(reason),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use libp2p::{PeerId, multiaddr::Protocol, relay::outbound::hop::ConnectError};

    use super::*;
    use crate::{
        core::peers::{Hop, How},
        punch::CandidateOutcome,
        swarm::dial_error,
    };

    const QUIC: &str = "/ip4/192.0.2.1/udp/443/quic-v1";
    const TCP: &str = "/ip6/2001:db8::1/tcp/443";
    const NAME: &str = "/dns/relay.example.net/tcp/443";

    fn all_of(error: &DialError) -> Vec<DialLabels> {
        failed(error, dial_error::failure(error).circuit)
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn circuit() -> Multiaddr {
        address(QUIC)
            .with(Protocol::P2p(PeerId::random()))
            .with(Protocol::P2pCircuit)
            .with(Protocol::P2p(PeerId::random()))
    }

    fn other(error: io::Error) -> TransportError<io::Error> {
        TransportError::Other(error)
    }

    #[test]
    fn each_address_of_a_dial_is_counted_by_its_own_end() {
        let error = DialError::Transport(vec![
            (address(QUIC), other(io::ErrorKind::TimedOut.into())),
            (address(TCP), other(io::ErrorKind::ConnectionRefused.into())),
            (address(NAME), other(io::ErrorKind::HostUnreachable.into())),
            (
                address("/memory/1"),
                TransportError::MultiaddrNotSupported(address("/memory/1")),
            ),
        ]);
        let (quic, tcp) = (Some(Transport::Quic), Some(Transport::Tcp));
        let socket = |outcome| DialOutcome::Socket(outcome);
        assert_eq!(
            all_of(&error),
            [
                DialLabels::socket(quic, Some(Family::Ip4), socket(CandidateOutcome::Timeout)),
                DialLabels::socket(tcp, Some(Family::Ip6), socket(CandidateOutcome::Refused)),
                DialLabels::socket(tcp, None, socket(CandidateOutcome::Unreachable)),
                DialLabels::socket(None, None, DialOutcome::Unsupported),
            ]
        );
    }

    #[test]
    fn a_circuit_is_no_socket_whatever_its_address_names() {
        let refused = |error| {
            let error = other(io::Error::other(error));
            all_of(&DialError::Transport(vec![(circuit(), error)]))
        };
        assert_eq!(
            refused(ConnectError::NoReservation),
            [DialLabels::circuit(DialOutcome::NoReservation)]
        );
        assert_eq!(
            refused(ConnectError::PermissionDenied),
            [DialLabels::circuit(DialOutcome::Refused)]
        );
        let timeout = other(io::ErrorKind::TimedOut.into());
        assert_eq!(
            all_of(&DialError::Transport(vec![(circuit(), timeout)])),
            [DialLabels::circuit(DialOutcome::Socket(
                CandidateOutcome::Timeout
            ))]
        );
        let path = Path {
            kind: PathKind::Relayed,
            relay: None,
            how: How::Dialed,
            hops: vec![
                Hop {
                    transport: Some(Transport::Quic),
                    family: Some(Family::Ip4),
                    ..Hop::default()
                },
                Hop::default(),
            ],
        };
        assert_eq!(
            connected(&path),
            DialLabels::circuit(DialOutcome::Connected)
        );
    }

    #[test]
    fn a_dial_that_never_began_is_not_counted() {
        assert_eq!(all_of(&DialError::NoAddresses), []);
        assert_eq!(
            all_of(&DialError::WrongPeerId {
                obtained: PeerId::random(),
                address: address(TCP),
            }),
            [DialLabels::socket(
                Some(Transport::Tcp),
                Some(Family::Ip6),
                DialOutcome::WrongPeer
            )]
        );
    }
}
