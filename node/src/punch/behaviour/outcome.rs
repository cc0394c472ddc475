//! What a failed dial reports about each address.

use std::io;

use libp2p::{Multiaddr, TransportError, swarm::DialError};

use crate::punch::{address::Candidate, record::CandidateOutcome};

/// What became of each address of a dial that failed.
pub(super) fn outcomes(
    error: &DialError,
    addrs: &[Multiaddr],
) -> Vec<(Candidate, CandidateOutcome)> {
    let all = |outcome| {
        addrs
            .iter()
            .filter_map(|a| Some((Candidate::parse(a)?, outcome)))
            .collect()
    };
    match error {
        DialError::Transport(errors) => errors
            .iter()
            .filter_map(|(addr, error)| Some((Candidate::parse(addr)?, outcome(error))))
            .collect(),
        DialError::WrongPeerId { .. }
        | DialError::LocalPeerId { .. }
        | DialError::NoAddresses
        | DialError::DialPeerConditionFalse(_)
        | DialError::Aborted
        | DialError::Denied { .. } => all(CandidateOutcome::Failed),
    }
}

/// What became of one address whose dial failed so.
pub(crate) fn outcome(error: &TransportError<io::Error>) -> CandidateOutcome {
    let error = match error {
        TransportError::MultiaddrNotSupported(_) => return CandidateOutcome::Unreachable,
        TransportError::Other(error) => error,
    };
    // Transports wrap their errors several times; the error of the operating system is worth most.
    let of_system = p2pnode_transports::causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .find_map(|error| outcome_of(error.kind()));
    match of_system {
        Some(outcome) => outcome,
        None if is_out_of_reach(error) => CandidateOutcome::Unreachable,
        None if p2pnode_transports::timed_out(error) => CandidateOutcome::Timeout,
        None if p2pnode_transports::both_dialed(error) => CandidateOutcome::BothDialed,
        None => CandidateOutcome::Failed,
    }
}

/// Whether this host has no way to the address: no route, or no socket of its family.
fn is_out_of_reach(error: &io::Error) -> bool {
    use p2pnode_transports::Error;
    let mut causes = p2pnode_transports::causes(error);
    causes.any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(Error::NoRoute { .. } | Error::NoSocket { .. } | Error::FamilyDisabled { .. })
        )
    })
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds of errors are many and not all stable"
)]
fn outcome_of(kind: io::ErrorKind) -> Option<CandidateOutcome> {
    match kind {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            Some(CandidateOutcome::Refused)
        }
        io::ErrorKind::TimedOut => Some(CandidateOutcome::Timeout),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::AddrInUse
        | io::ErrorKind::PermissionDenied => Some(CandidateOutcome::Unreachable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_family_that_this_host_lacks_is_unreachable() {
        let no_route = p2pnode_transports::Error::NoRoute {
            remote: ([192, 0, 2, 1], 4001).into(),
            reason: io::ErrorKind::NetworkUnreachable.into(),
        };
        let boxed = TransportError::Other(io::Error::other(io::Error::other(no_route)));
        assert_eq!(outcome(&boxed), CandidateOutcome::Unreachable);
        let other = TransportError::Other(io::Error::other("reset by a middlebox"));
        assert_eq!(outcome(&other), CandidateOutcome::Failed);
    }
}
