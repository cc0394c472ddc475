//! Why a transport refuses or fails.

use std::{error::Error as StdError, io, net::SocketAddr, time::Duration};

use libp2p::multiaddr::Multiaddr;
use p2pnode_protocol::{Family, Transport};

use crate::net::{family::FamilyPolicy, pool::Exhausted};

/// What a transport of this crate fails with. Each is one line that names the thing and, where there is one, the remedy.
///
/// A swarm sees these boxed into [`io::Error`]s; [`find_exhausted`] finds the one that callers act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No port of the range is left. It may be later: each dial tries again.
    // Not `transparent`: a wrapper that shows only `source()` would lose the very value that callers look for.
    #[error("{0}")]
    Exhausted(#[source] Exhausted),
    /// The node has no punch socket of this family, and cannot have one: the host lacks the family, or forbids the socket.
    #[error("no {transport} socket for {family}: {reason}")]
    NoSocket {
        /// The transport.
        transport: Transport,
        /// The family.
        family: Family,
        /// What opening the socket failed with.
        reason: String,
    },
    /// The address is of a family that the configuration excludes.
    #[error("{family} is disabled by the family policy {policy}")]
    FamilyDisabled {
        /// The family of the address.
        family: Family,
        /// The policy.
        policy: FamilyPolicy,
    },
    /// The address is of a transport that the configuration excludes.
    #[error(
        "transport {transport} is disabled; add it to the transports to dial or listen on its addresses"
    )]
    TransportDisabled {
        /// The transport of the address.
        transport: Transport,
    },
    /// The host has no route to the address.
    #[error("no route to {remote}: {reason}")]
    NoRoute {
        /// Where to.
        remote: SocketAddr,
        /// What the kernel says.
        reason: io::Error,
    },
    /// A name stands for no address that may be used.
    #[error("cannot resolve {host}: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// Why not.
        reason: String,
    },
    /// A name was resolved, and dialing all of its addresses failed.
    #[error("cannot reach {host}: {}", one_line(.failures))]
    Unreachable {
        /// The name.
        host: String,
        /// Each address and what dialing it failed with.
        failures: Vec<(Multiaddr, Error)>,
        /// The exhaustion among the failures, so that it is found behind a wrapper that shows only `source()`.
        #[source]
        exhausted: Option<Exhausted>,
    },
    /// A `/dnsaddr` was to be dialed.
    #[error("/dnsaddr/{host} is not supported; give the address that its TXT record holds")]
    DnsAddr {
        /// The name.
        host: String,
    },
    /// Nothing came of a dial in time.
    // As for `Exhausted`.
    #[error("{0}")]
    Timeout(#[source] TimedOut),
    /// A public listener was asked for on a port that the node dials and punches from.
    #[error(
        "cannot listen on {addr}: the node dials from port {port}; listen outside of the port range"
    )]
    PunchPort {
        /// The listen address.
        addr: Multiaddr,
        /// Its port.
        port: u16,
    },
    /// A transport that only listens was asked to dial.
    #[error("cannot dial {addr}: this transport only listens")]
    ListenOnly {
        /// The address.
        addr: Multiaddr,
    },
    /// The remote is the very socket that dialed.
    #[error("{remote} is our own socket")]
    OwnSocket {
        /// The address.
        remote: SocketAddr,
    },
    /// An identity from which no certificate can be made.
    #[error("cannot make a TLS certificate from this identity: {0}")]
    Certificate(String),
    /// A QUIC connection failed.
    #[error("quic connection with {} failed: {reason}", .remote.map_or_else(|| "unknown".to_owned(), |r| r.to_string()))]
    Quic {
        /// The other end, where it is known.
        remote: Option<SocketAddr>,
        /// What failed.
        reason: String,
    },
    /// Agreeing on encryption and multiplexing over TCP failed.
    #[error("handshake with {remote} failed: {reason}")]
    Handshake {
        /// The other end.
        remote: SocketAddr,
        /// What failed.
        reason: String,
    },
    /// A socket failed.
    #[error("{context}: {source}")]
    Io {
        /// What was done.
        context: String,
        /// What the kernel says.
        source: io::Error,
    },
}

/// The other side let the time for something pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} timed out after {seconds} s")]
pub struct TimedOut {
    /// What was waited for.
    pub what: &'static str,
    /// For how long, in seconds.
    pub seconds: u64,
}

impl Error {
    pub(crate) fn timeout(what: &'static str, after: Duration) -> Self {
        Self::Timeout(TimedOut {
            what,
            seconds: after.as_secs(),
        })
    }

    pub(crate) fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            context: context.into(),
            source,
        }
    }

    pub(crate) fn unreachable(host: String, failures: Vec<(Multiaddr, Self)>) -> Self {
        let exhausted = failures
            .iter()
            .find_map(|(_, error)| error.exhausted())
            .cloned();
        Self::Unreachable {
            host,
            failures,
            exhausted,
        }
    }

    /// The exhaustion in this error or in one of those that it collects.
    pub fn exhausted(&self) -> Option<&Exhausted> {
        match self {
            Self::Exhausted(exhausted) => Some(exhausted),
            Self::Unreachable { exhausted, .. } => exhausted.as_ref(),
            Self::NoSocket { .. }
            | Self::FamilyDisabled { .. }
            | Self::TransportDisabled { .. }
            | Self::NoRoute { .. }
            | Self::Resolve { .. }
            | Self::DnsAddr { .. }
            | Self::Timeout(_)
            | Self::PunchPort { .. }
            | Self::ListenOnly { .. }
            | Self::OwnSocket { .. }
            | Self::Certificate(_)
            | Self::Quic { .. }
            | Self::Handshake { .. }
            | Self::Io { .. } => None,
        }
    }
}

/// The exhaustion of the port range in an error of a swarm or of a boxed transport, however deep.
///
/// A boxed transport turns an [`Error`] into an [`io::Error`] whose `source()` is that of the [`Error`], not the [`Error`]
/// itself, and combined transports box more than once. This looks into the [`io::Error`]s on the way. A swarm's
/// `DialError::Transport` has no source: call this for each of its `TransportError`s.
pub fn find_exhausted<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Exhausted> {
    causes(error).find_map(|error| {
        let own = error.downcast_ref::<Exhausted>();
        own.or_else(|| error.downcast_ref::<Error>().and_then(Error::exhausted))
    })
}

/// Whether an error of a swarm or of a boxed transport is that the other side let the time for it pass, however deep. As
/// [`find_exhausted`].
pub fn timed_out(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|error| {
        error.is::<TimedOut>() || matches!(error.downcast_ref(), Some(Error::Timeout(_)))
    })
}

/// The error and what it stems from, with what is in boxes on the way.
fn causes<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let boxed = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match boxed {
            Some(boxed) => Some(boxed as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

fn one_line(failures: &[(Multiaddr, Error)]) -> String {
    let each: Vec<String> = failures
        .iter()
        .map(|(addr, error)| format!("{addr}: {error}"))
        .collect();
    each.join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use libp2p::core::transport::TransportError;

    use super::*;
    use crate::net::holder::{HeldBy, Holder};

    /// A wrapper that forwards `source()` and hides itself, as `Either` does in a combined transport.
    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Hidden(io::Error);

    fn exhausted() -> Exhausted {
        let by = HeldBy::Process {
            pid: 123,
            comm: "nc".into(),
        };
        Exhausted {
            range: "40000".parse().unwrap(),
            holders: vec![Holder {
                transport: Transport::Quic,
                port: 40000,
                by,
            }],
        }
    }

    #[test]
    fn an_exhausted_range_says_what_holds_it() {
        assert_eq!(
            Error::Exhausted(exhausted()).to_string(),
            "port range 40000-40000 exhausted: udp 40000 held by pid 123 (nc)"
        );
    }

    #[test]
    fn exhaustion_is_found_through_every_box() {
        let once = io::Error::other(Error::Exhausted(exhausted()));
        assert_eq!(
            find_exhausted(&TransportError::Other(once)),
            Some(&exhausted())
        );

        let twice = io::Error::other(io::Error::other(Error::Exhausted(exhausted())));
        assert_eq!(find_exhausted(&twice), Some(&exhausted()));

        let addr: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let failures = vec![(addr, Error::Exhausted(exhausted()))];
        let named = Error::unreachable("relay.example.net".into(), failures);
        assert_eq!(find_exhausted(&io::Error::other(named)), Some(&exhausted()));

        let hidden = io::Error::other(Hidden(io::Error::other(Error::Exhausted(exhausted()))));
        assert_eq!(find_exhausted(&hidden), Some(&exhausted()));
    }

    #[test]
    fn a_timeout_is_told_from_other_failures_through_every_box() {
        let timeout = || Error::timeout("the handshake", Duration::from_secs(4));
        assert_eq!(timeout().to_string(), "the handshake timed out after 4 s");
        let boxed = io::Error::other(io::Error::other(timeout()));
        assert!(timed_out(&boxed));
        let hidden = io::Error::other(Hidden(io::Error::other(timeout())));
        assert!(timed_out(&TransportError::Other(hidden)));
        assert!(!timed_out(&io::Error::other(Error::Exhausted(exhausted()))));
        assert!(!timed_out(&io::Error::from(io::ErrorKind::TimedOut)));
    }

    #[test]
    fn other_errors_hold_no_exhaustion() {
        assert_eq!(find_exhausted(&io::Error::other("refused")), None);
        let error = Error::TransportDisabled {
            transport: Transport::Tcp,
        };
        assert_eq!(
            find_exhausted(&TransportError::Other(io::Error::other(error))),
            None
        );
    }
}
