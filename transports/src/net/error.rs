//! Why a transport refuses or fails.

use std::{
    borrow::Cow,
    error::Error as StdError,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p::{core::transport::timeout::TransportTimeoutError, multiaddr::Multiaddr};
use p2pnode_protocol::{Family, Transport, escape, from_remote};

use crate::net::{
    closed::{Closed, causes, in_words, of_one},
    family::FamilyPolicy,
    files::explained,
    pool::Exhausted,
    ports::NoPort,
};

/// Why a transport of this crate refuses or fails. The text is one line: what failed, why, and the remedy if there is one.
///
/// A swarm gets these boxed into [`io::Error`]s. [`find_exhausted`], [`timed_out`] and [`closed`] look through the boxes, and so do
/// [`causes`] and `downcast_ref`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No port of the range is left. Each dial tries again.
    #[error(transparent)]
    Exhausted(Exhausted),
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
        /// The error of the kernel.
        reason: io::Error,
    },
    /// A name stands for no address that may be used.
    #[error("cannot resolve {}: {}", escape(.host), escape(.reason))]
    Resolve {
        /// The name.
        host: String,
        /// Why not.
        reason: String,
    },
    /// A remote has named an address that only this host's own configuration may name.
    #[error("{} is at {ip}, where a remote's word does not lead", escape(.host))]
    OutOfReach {
        /// The name, or the address.
        host: String,
        /// The address.
        ip: IpAddr,
    },
    /// A name was resolved, and dialing all of its addresses failed.
    #[error("cannot reach {}: {}", escape(.host), one_line(.failures))]
    Unreachable {
        /// The name.
        host: String,
        /// Each address and what dialing it failed with.
        failures: Vec<(Multiaddr, Error)>,
    },
    /// A `/dnsaddr` was to be dialed.
    #[error("/dnsaddr/{} is not supported; give the address that its TXT record holds", escape(.host))]
    DnsAddr {
        /// The name.
        host: String,
    },
    /// The remote took too long over a step of the connection.
    #[error("{step} timed out after {seconds} s")]
    Timeout {
        /// The step, such as `the TLS or Noise handshake over TCP`.
        step: &'static str,
        /// How long it may take, in seconds.
        seconds: u64,
    },
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
    /// A connection to a listener spoke STUN, and is none of the swarm's.
    #[error("the connection is one of STUN")]
    Stun,
    /// A transport that only listens was asked to dial.
    #[error("cannot dial {}: this transport only listens", escape(.addr))]
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
        /// How the connection ended, if that is why it failed.
        closed: Option<Closed>,
    },
    /// Agreeing on encryption and multiplexing over TCP failed.
    #[error("handshake with {remote} failed: {reason}")]
    Handshake {
        /// The other end.
        remote: SocketAddr,
        /// What failed.
        reason: String,
        /// How the connection ended, if that is why it failed.
        closed: Option<Closed>,
    },
    /// Both sides of a TCP connection took the dialer's role.
    #[error("{remote} took the dialer's role, as this side did")]
    BothDialed {
        /// The other end.
        remote: SocketAddr,
    },
    /// A socket failed.
    #[error("{context}: {source}")]
    Io {
        /// What was done.
        context: String,
        /// The error of the kernel.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn timeout(step: &'static str, after: Duration) -> Self {
        Self::Timeout {
            step,
            seconds: after.as_secs(),
        }
    }

    pub(crate) fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            context: context.into(),
            source: explained(source),
        }
    }

    /// The handshake with `remote` over TCP failed.
    pub(crate) fn handshake(remote: SocketAddr, error: &io::Error) -> Self {
        let closed = closed(error);
        // If the connection ended, what the steps above it say of that adds nothing.
        let reason = match closed {
            Some(_) => innermost(error),
            None => chain(error),
        };
        Self::Handshake {
            remote,
            reason,
            closed,
        }
    }

    /// How the connection ended on which the handshake failed.
    pub(crate) fn closed(&self) -> Option<Closed> {
        if let Self::Quic { closed, .. } | Self::Handshake { closed, .. } = self {
            *closed
        } else {
            None
        }
    }

    /// Whether time ran out, for this attempt or for one of those that it collects.
    fn timed_out(&self) -> bool {
        if let Self::Unreachable { failures, .. } = self {
            return failures.iter().any(|(_, error)| error.timed_out());
        }
        matches!(self, Self::Timeout { .. }) || self.closed() == Some(Closed::TimedOut)
    }

    /// The exhaustion in this error or in one of those that it collects.
    pub fn exhausted(&self) -> Option<&Exhausted> {
        match self {
            Self::Exhausted(exhausted) => Some(exhausted),
            Self::Unreachable { failures, .. } => {
                failures.iter().find_map(|(_, error)| error.exhausted())
            }
            Self::NoSocket { .. }
            | Self::FamilyDisabled { .. }
            | Self::TransportDisabled { .. }
            | Self::NoRoute { .. }
            | Self::Resolve { .. }
            | Self::OutOfReach { .. }
            | Self::DnsAddr { .. }
            | Self::Timeout { .. }
            | Self::PunchPort { .. }
            | Self::ListenOnly { .. }
            | Self::Stun
            | Self::OwnSocket { .. }
            | Self::Certificate(_)
            | Self::Quic { .. }
            | Self::Handshake { .. }
            | Self::BothDialed { .. }
            | Self::Io { .. } => None,
        }
    }
}

impl From<NoPort> for Error {
    fn from(error: NoPort) -> Self {
        match error {
            NoPort::Exhausted(exhausted) => Self::Exhausted(exhausted),
            NoPort::NoSocket {
                transport,
                family,
                reason,
            } => Self::NoSocket {
                transport,
                family,
                reason,
            },
        }
    }
}

/// An [`Error`] as a swarm gets it: libp2p's wrappers hide an error and show its [`source`](StdError::source), so this one is
/// there to be hidden.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Reported(#[source] pub(crate) Error);

/// How the connection ended that failed with `error`. `None` if the error does not say: a violation of a protocol, for
/// instance.
///
/// `error` may be the `cause` of a swarm's `ConnectionClosed`, an error of a stream, or any error around these. Connections
/// that are made of streams, as circuits are, are covered if [`Yamux`](crate::Yamux) multiplexes them.
pub fn closed(error: &(dyn StdError + 'static)) -> Option<Closed> {
    // The innermost knows best: a boxed error of quinn is `ConnectionAborted` outside and `ApplicationClosed` inside.
    let says = |error: &(dyn StdError + 'static)| match error.downcast_ref::<Error>() {
        Some(ours) => ours.closed(),
        None => of_one(error),
    };
    causes(error).filter_map(says).last()
}

/// Whether a connection was one of STUN, which a [`StunHandler`](crate::StunHandler) has taken.
pub fn was_stun(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|error| matches!(error.downcast_ref(), Some(Error::Stun)))
}

/// Whether both sides of a connection took the dialer's role.
pub fn both_dialed(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|error| matches!(error.downcast_ref(), Some(Error::BothDialed { .. })))
}

/// Whether an attempt to connect failed because time ran out, with `error` as a swarm or a boxed transport reports it. Looks
/// through every box, as [`find_exhausted`](crate::find_exhausted).
pub fn timed_out(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|error| {
        of_one(error) == Some(Closed::TimedOut)
            || error.downcast_ref().is_some_and(Error::timed_out)
            || matches!(
                error.downcast_ref(),
                Some(TransportTimeoutError::<io::Error>::Timeout)
            )
    })
}

/// The exhaustion of the port range in an error of a swarm or of a boxed transport, through every box.
///
/// The `DialError::Transport` of a swarm has no source: call this for each of its `TransportError`s.
pub fn find_exhausted<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Exhausted> {
    causes(error).find_map(|error| error.downcast_ref::<Error>().and_then(Error::exhausted))
}

/// An error and its causes in one line, each cause once. A remote may have written some of it: the reason of a close, the name in
/// a certificate.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let words = |error: &(dyn StdError + 'static)| {
        in_words(error).map_or_else(|| error.to_string(), Cow::into_owned)
    };
    let mut text = words(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = words(error);
        if !next.is_empty() && !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    from_remote(text)
}

/// The innermost cause of an error that has a text, in one line. The common ends of a connection have words of this crate. A
/// remote may have written the text, such as the reason of a close; it is escaped.
pub fn innermost(error: &(dyn StdError + 'static)) -> String {
    let (mut text, mut is_ours, mut is_worded) = (String::new(), false, false);
    for cause in causes(error) {
        is_ours |= cause.is::<Error>();
        match in_words(cause) {
            Some(words) => (text, is_worded) = (words.into_owned(), true),
            // What is in an error that has words is a library's text for the same.
            None if is_worded => {}
            None => {
                let own = cause.to_string();
                text = if own.is_empty() { text } else { own };
            }
        }
    }
    match text.is_empty() {
        true => "unknown".to_owned(),
        // It contains what a remote wrote as `from_remote` returns it.
        false if is_ours => escape(text),
        false => from_remote(text),
    }
}

fn one_line(failures: &[(Multiaddr, Error)]) -> String {
    let each: Vec<String> = failures
        .iter()
        .map(|(addr, error)| format!("{}: {error}", escape(addr)))
        .collect();
    each.join("; ")
}

#[cfg(test)]
mod tests;
