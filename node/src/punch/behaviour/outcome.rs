//! What a failed dial says about each address.

use std::{error::Error, io};

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
    let mut said_timeout = false;
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        // Transports wrap their errors several times; the operating system's is the innermost.
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if let Some(outcome) = outcome_of(io.kind()) {
                return outcome;
            }
            if let Some(inner) = io.get_ref() {
                next = Some(inner);
                continue;
            }
        }
        let text = error.to_string();
        said_timeout |= text.contains("timed out") || text.contains("Timeout");
        next = error.source();
    }
    if said_timeout {
        CandidateOutcome::Timeout
    } else {
        CandidateOutcome::Failed
    }
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
