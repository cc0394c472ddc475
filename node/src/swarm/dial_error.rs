//! One line from a failed dial: which address, and the innermost reason that a person can act on.

use std::{error::Error, io};

use futures::channel::oneshot::Canceled;
use libp2p::{
    Multiaddr, TransportError,
    core::upgrade::NegotiationError,
    relay::outbound::hop::{ConnectError, ProtocolViolation, ReserveError},
    swarm::{ConnectionError, DialError},
};
use p2pnode_protocol::escape;
pub(crate) use p2pnode_transports::innermost;
use p2pnode_transports::{Closed, Overuse, causes};

use crate::core::{
    dialer::{CircuitFailure, Fault},
    liveness::Ended,
    state::{AnsweredBy, DialFailure, ListenerEnd},
};

/// What the state needs of a failed dial.
pub(crate) fn failure(error: &DialError) -> DialFailure {
    let answered_by = match error {
        DialError::WrongPeerId { obtained, .. } => Some(AnsweredBy::Other(*obtained)),
        DialError::LocalPeerId { .. } => Some(AnsweredBy::Local),
        DialError::Transport(_)
        | DialError::Denied { .. }
        | DialError::NoAddresses
        | DialError::DialPeerConditionFalse(_)
        | DialError::Aborted => None,
    };
    DialFailure {
        reason: describe(error),
        answered_by,
        circuit: circuit_failure(error),
        fault: fault(error),
    }
}

/// Where the fault of a failed dial lies. If its addresses failed for different reasons, the one that another dial may not have.
fn fault(error: &DialError) -> Fault {
    match error {
        DialError::WrongPeerId { .. } | DialError::LocalPeerId { .. } | DialError::NoAddresses => {
            Fault::Address
        }
        DialError::Denied { .. } => Fault::Local,
        DialError::Aborted | DialError::DialPeerConditionFalse(_) => Fault::Remote,
        DialError::Transport(errors) => {
            let faults = errors.iter().map(|(_, error)| fault_of_address(error));
            faults.max().unwrap_or(Fault::Remote)
        }
    }
}

fn fault_of_address(error: &TransportError<io::Error>) -> Fault {
    let TransportError::Other(error) = error else {
        return Fault::Address;
    };
    if p2pnode_transports::find_exhausted(error).is_some() {
        return Fault::Local;
    }
    match find(error) {
        Some(p2pnode_transports::Error::NoSocket { .. }) => Fault::Local,
        Some(
            p2pnode_transports::Error::FamilyDisabled { .. }
            | p2pnode_transports::Error::TransportDisabled { .. }
            | p2pnode_transports::Error::DnsAddr { .. }
            | p2pnode_transports::Error::OwnSocket { .. },
        ) => Fault::Address,
        Some(_) | None => Fault::Remote,
    }
}

/// Which side ended a connection, as far as its transport reports. A circuit ends with the error of the connection below it, which
/// this node may have closed.
pub(crate) fn ended(cause: Option<&ConnectionError>, is_relayed: bool) -> Ended {
    match cause {
        None | Some(ConnectionError::KeepAliveTimeout) => Ended::Ours,
        Some(ConnectionError::IO(error)) => match p2pnode_transports::closed(error) {
            Some(Closed::Local) if is_relayed => Ended::Broken,
            Some(Closed::Local) => Ended::Ours,
            Some(Closed::ByPeer) => Ended::Theirs,
            Some(Closed::Overuse(Overuse::Stranger)) => Ended::Ours,
            Some(Closed::Reset) => Ended::Reset,
            Some(Closed::Clock) => Ended::Clock,
            Some(Closed::TimedOut | Closed::Overuse(Overuse::Memory)) | None => Ended::Broken,
        },
    }
}

/// With what yamux ends the streams of a connection that this node has closed.
const CLOSED_BELOW: &str = ": connection is closed";

/// Why a connection ended, in one line.
pub(crate) fn end(cause: Option<&ConnectionError>, is_relayed: bool) -> String {
    match cause {
        None => "closed by this node".to_owned(),
        Some(ConnectionError::KeepAliveTimeout) => {
            "closed by this node: nothing uses it".to_owned()
        }
        Some(ConnectionError::IO(error)) => {
            let text = innermost(error);
            let is_below = p2pnode_transports::closed(error) == Some(Closed::Local)
                || text.ends_with(CLOSED_BELOW);
            match is_relayed && is_below {
                true => "the connection to the relay has ended".to_owned(),
                false => text,
            }
        }
    }
}

/// Whether this side ended a connection because a stranger sent more than is read of one.
pub(crate) fn is_overuse(cause: Option<&ConnectionError>) -> bool {
    let over = Closed::Overuse(Overuse::Stranger);
    matches!(cause, Some(ConnectionError::IO(error)) if p2pnode_transports::closed(error) == Some(over))
}

/// Why a dial failed, in one line. A remote may have written the addresses and parts of the reasons.
fn describe(error: &DialError) -> String {
    let text = match error {
        DialError::Transport(addresses) => {
            let mut lines: Vec<String> = addresses
                .iter()
                .map(|(address, error)| describe_address(address, error))
                .collect();
            lines.dedup();
            lines.join("; ")
        }
        DialError::WrongPeerId { obtained, address } => {
            format!("{address} is {obtained}, another peer: correct the id, or the address")
        }
        DialError::LocalPeerId { address } => format!("{address} is this node itself"),
        DialError::NoAddresses => "no address is known: give --addr or --relay".to_owned(),
        DialError::Denied { cause } => format!("refused by this node: {}", innermost(cause)),
        DialError::Aborted => "the dial was aborted".to_owned(),
        DialError::DialPeerConditionFalse(_) => {
            "a dial to this peer is under way already".to_owned()
        }
    };
    escape(text)
}

/// What the failed dial of a circuit means for the next one.
fn circuit_failure(error: &DialError) -> CircuitFailure {
    match find_refusal(error) {
        // How a refusal comes out of a stream that was negotiated lazily.
        Some(refusal) if find::<NegotiationError>(refusal).is_some() => CircuitFailure::Refused,
        Some(ConnectError::NoReservation) => CircuitFailure::Absent,
        Some(
            ConnectError::ResourceLimitExceeded
            | ConnectError::PermissionDenied
            | ConnectError::Unsupported,
        ) => CircuitFailure::Refused,
        Some(ConnectError::ConnectionFailed | ConnectError::Io(_) | ConnectError::Protocol(_)) => {
            CircuitFailure::Broken
        }
        // The circuit was there, and what followed failed: its keys, or its end.
        None => match error {
            DialError::Transport(_) => CircuitFailure::Broken,
            DialError::WrongPeerId { .. }
            | DialError::LocalPeerId { .. }
            | DialError::Denied { .. }
            | DialError::NoAddresses
            | DialError::DialPeerConditionFalse(_)
            | DialError::Aborted => CircuitFailure::Refused,
        },
    }
}

/// The refusal beneath the error of a dial, which keeps those of its addresses out of its causes.
fn find_refusal(error: &DialError) -> Option<&ConnectError> {
    let DialError::Transport(errors) = error else {
        return None;
    };
    errors.iter().find_map(|(_, error)| match error {
        TransportError::Other(error) => find::<ConnectError>(error),
        TransportError::MultiaddrNotSupported(_) => None,
    })
}

fn describe_address(address: &Multiaddr, error: &TransportError<io::Error>) -> String {
    match error {
        TransportError::MultiaddrNotSupported(_) => {
            format!("{address}: no transport of this node dials such an address")
        }
        TransportError::Other(error) => {
            if let Some(exhausted) = p2pnode_transports::find_exhausted(error) {
                return format!("this node has no port to dial from: {exhausted}");
            }
            if let Some(own @ p2pnode_transports::Error::NoSocket { .. }) = find(error) {
                return format!("this node has {own}");
            }
            let reason = match find::<ConnectError>(error) {
                // How a refusal comes out of a stream that was negotiated lazily.
                Some(_) if find::<NegotiationError>(error).is_some() => {
                    circuit_refusal(&ConnectError::Unsupported)
                }
                Some(refusal) => circuit_refusal(refusal),
                // libp2p's relay client drops the question with the connection.
                None if find::<Canceled>(error).is_some() => {
                    "the connection to the relay ended".to_owned()
                }
                None => innermost(error),
            };
            format!("{address}: {reason}")
        }
    }
}

/// What a relay's refusal of a circuit means for the node that asked.
fn circuit_refusal(error: &ConnectError) -> String {
    match error {
        ConnectError::NoReservation => {
            "the peer holds no reservation on this relay: is it running, with this relay in its configuration?".to_owned()
        }
        ConnectError::ConnectionFailed => "the relay could not reach the peer, which holds a reservation there: the peer is gone, is full (`limits.memory`), or does not accept the reservation; its `status` says why".to_owned(),
        ConnectError::ResourceLimitExceeded => "the relay takes no more circuits: its limits are reached, or it is ending".to_owned(),
        ConnectError::PermissionDenied => "the relay does not admit this circuit".to_owned(),
        ConnectError::Unsupported => "this peer is not a relay: it does not speak circuit relay v2".to_owned(),
        // A relay of other make passes on what the peer has answered.
        ConnectError::Protocol(ProtocolViolation::UnexpectedStatus(status)) => format!(
            "the relay answered {status}: the peer, which holds a reservation there, probably does not accept the reservation; the peer's `status` says why"
        ),
        ConnectError::Io(_) | ConnectError::Protocol(_) => innermost(error),
    }
}

/// Why a relay gave no reservation, or ended it.
pub(crate) fn no_reservation(error: &(dyn Error + 'static)) -> ListenerEnd {
    match find::<ProtocolViolation>(error) {
        Some(ProtocolViolation::NoAddressesInReservation) => {
            ListenerEnd::Failed("its reservation names no address at which peers reach this node: configure the addresses that the relay announces (`announce` of js-libp2p)".to_owned())
        }
        Some(ProtocolViolation::InvalidReservationExpiration) => ListenerEnd::Clock,
        None if matches!(find(error), Some(ReserveError::Refused)) => ListenerEnd::Failed(
            "it refuses one: it has, or the network of this node has, as many reservations as its limits admit"
                .to_owned(),
        ),
        None if matches!(find(error), Some(ReserveError::ResourceLimitExceeded)) => {
            ListenerEnd::Failed("it gives none now: it is full, or is asked too often".to_owned())
        }
        None if find::<NegotiationError>(error).is_some() => {
            ListenerEnd::Failed(circuit_refusal(&ConnectError::Unsupported))
        }
        _ => ListenerEnd::Failed(innermost(error)),
    }
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The kind of the operating system's error beneath `error`, if there is one.
pub(crate) fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .filter(|error| error.raw_os_error().is_some())
        .map(io::Error::kind)
        .last()
}

#[cfg(test)]
mod tests {
    use libp2p::multiaddr::Protocol;

    use super::*;

    #[test]
    fn a_reservation_without_addresses_is_named_with_the_remedy() {
        use libp2p::relay::client::transport::Error;
        let violation = ProtocolViolation::NoAddressesInReservation;
        let error = Error::Reservation(ReserveError::Protocol(violation));
        let ListenerEnd::Failed(reason) = no_reservation(&io::Error::other(error)) else {
            panic!("it is a failure");
        };
        assert!(
            reason.contains("names no address") && reason.contains("announce"),
            "{reason}"
        );
        let closed = ListenerEnd::Failed("closed".to_owned());
        assert_eq!(no_reservation(&io::Error::other("closed")), closed);
        let full = Error::Reservation(ReserveError::Refused);
        let ListenerEnd::Failed(reason) = no_reservation(&io::Error::other(full)) else {
            panic!("it is a failure");
        };
        assert!(reason.contains("as its limits admit"), "{reason}");
        let expired = ProtocolViolation::InvalidReservationExpiration;
        let expired = Error::Reservation(ReserveError::Protocol(expired));
        assert_eq!(
            no_reservation(&io::Error::other(expired)),
            ListenerEnd::Clock
        );
    }

    #[test]
    fn a_circuit_that_falls_with_the_connection_to_its_relay_is_not_closed_by_this_node() {
        let local = io::Error::other(p2pnode_transports::Error::Quic {
            remote: None,
            reason: "closed by this node".to_owned(),
            closed: Some(Closed::Local),
        });
        let yamux = io::Error::other("0000000b/19: connection is closed");
        for (error, of_direct) in [(local, Ended::Ours), (yamux, Ended::Broken)] {
            let cause = ConnectionError::IO(error);
            assert_eq!(ended(Some(&cause), false), of_direct);
            assert_eq!(ended(Some(&cause), true), Ended::Broken);
            let text = end(Some(&cause), true);
            assert_eq!(text, "the connection to the relay has ended");
        }
        for is_relayed in [false, true] {
            assert_eq!(ended(None, is_relayed), Ended::Ours);
        }
    }

    /// The error of a dial whose fault lies there. A fault without a case does not compile.
    fn caused(fault: Fault) -> DialError {
        use p2pnode_transports::{Error, Family, Transport};
        let address = Multiaddr::empty();
        let of = |error: Error| {
            let error = TransportError::Other(io::Error::other(error));
            DialError::Transport(vec![(address.clone(), error)])
        };
        match fault {
            Fault::Local => of(Error::NoSocket {
                transport: Transport::Quic,
                family: Family::Ip6,
                reason: "the host has no IPv6".to_owned(),
            }),
            Fault::Address => of(Error::TransportDisabled {
                transport: Transport::Tcp,
            }),
            Fault::Remote => of(Error::Timeout {
                step: "the TLS or Noise handshake over TCP",
                seconds: 10,
            }),
        }
    }

    #[test]
    fn each_fault_has_a_case_and_of_two_addresses_the_better_hope_decides() {
        for fault in [Fault::Local, Fault::Address, Fault::Remote] {
            assert_eq!(failure(&caused(fault)).fault, fault);
        }
        let errors = [Fault::Remote, Fault::Local].map(|fault| {
            let DialError::Transport(errors) = caused(fault) else {
                panic!("no error of a transport");
            };
            errors
        });
        let both = DialError::Transport(errors.into_iter().flatten().collect());
        assert_eq!(failure(&both).fault, Fault::Remote);
    }

    const HOSTILE: &str = "\u{1b}[2J\r\n\u{9b}31m up \u{202e}";

    #[test]
    fn what_a_remote_wrote_reaches_no_terminal_as_it_is() {
        let shown = "\\u{1b}[2J\\r\\n\\u{9b}31m up \\u{202e}";
        assert_eq!(innermost(&io::Error::other(HOSTILE)), shown);
        let long = innermost(&io::Error::other(HOSTILE.repeat(1000)));
        assert_eq!(long.chars().count(), 256);
        let address = Multiaddr::empty()
            .with(Protocol::Dns4(HOSTILE.into()))
            .with(Protocol::Tcp(1));
        let refused = TransportError::Other(io::Error::other(HOSTILE));
        let reason = failure(&DialError::Transport(vec![(address, refused)])).reason;
        assert_eq!(reason, format!("/dns4/{shown}/tcp/1: {shown}"));
    }
}
