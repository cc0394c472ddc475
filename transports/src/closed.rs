//! How an established connection ended, and whether an attempt failed because time ran out: as types, never as words.
//!
//! quinn, yamux and the kernel each have an error of their own, and libp2p boxes them several times. The functions of this
//! module look through the boxes.

use std::{error::Error as StdError, io};

use libp2p::core::transport::timeout::TransportTimeoutError;

use crate::error::Error;

/// How a connection of this crate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The remote closed the connection gracefully: over QUIC with a `CONNECTION_CLOSE` of its application
    /// ([RFC 9000, section 10.2](https://www.rfc-editor.org/rfc/rfc9000#section-10.2)), over TCP with a GoAway of yamux or a
    /// `close_notify` of TLS.
    ByPeer,
    /// The connection ended without a graceful close: a reset of TCP, a stateless reset of QUIC, an abort by the remote's QUIC
    /// stack, or the end of a TCP stream without `close_notify`. The remote was killed or restarted, or a middlebox cut the
    /// connection.
    Reset,
    /// Nothing arrived from the remote for the idle timeout of the transport.
    TimedOut,
    /// This side closed it.
    Local,
}

/// How the connection ended that failed with `error`. `None` if the error does not say: a violation of a protocol, for
/// instance.
///
/// `error` may be the `cause` of a swarm's `ConnectionClosed`, an error of a stream, or any error around these. Connections
/// that are made of streams, as circuits are, are covered if [`Yamux`](crate::Yamux) multiplexes them.
pub fn closed(error: &(dyn StdError + 'static)) -> Option<Closed> {
    // The innermost knows best: a boxed error of quinn is `ConnectionAborted` outside and `ApplicationClosed` inside.
    causes(error).filter_map(one).last()
}

/// What one error of a chain says.
fn one(error: &(dyn StdError + 'static)) -> Option<Closed> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return error.closed();
    }
    if let Some(error) = error.downcast_ref::<quinn::ConnectionError>() {
        return match error {
            quinn::ConnectionError::ApplicationClosed(_) => Some(Closed::ByPeer),
            quinn::ConnectionError::Reset | quinn::ConnectionError::ConnectionClosed(_) => {
                Some(Closed::Reset)
            }
            quinn::ConnectionError::TimedOut => Some(Closed::TimedOut),
            quinn::ConnectionError::LocallyClosed => Some(Closed::Local),
            quinn::ConnectionError::VersionMismatch
            | quinn::ConnectionError::TransportError(_)
            | quinn::ConnectionError::CidsExhausted => None,
        };
    }
    if let Some(yamux::ConnectionError::Closed) = error.downcast_ref() {
        return Some(Closed::ByPeer);
    }
    if let Some(ClosedHere) = error.downcast_ref() {
        return Some(Closed::Local);
    }
    of_kind(error.downcast_ref::<io::Error>()?.kind())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds of errors are many and not all stable"
)]
fn of_kind(kind: io::ErrorKind) -> Option<Closed> {
    match kind {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(Closed::Reset),
        io::ErrorKind::TimedOut => Some(Closed::TimedOut),
        _ => None,
    }
}

/// What a multiplexer returns after its own close. quinn has its own error for that, yamux has none.
#[derive(Debug, thiserror::Error)]
#[error("connection is closed")]
pub(crate) struct ClosedHere;

/// Whether an attempt to connect failed because time ran out, with `error` as a swarm or a boxed transport reports it. Looks
/// through every box, as [`find_exhausted`](crate::find_exhausted).
pub fn timed_out(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|error| {
        one(error) == Some(Closed::TimedOut)
            || error.downcast_ref().is_some_and(Error::timed_out)
            || matches!(
                error.downcast_ref(),
                Some(TransportTimeoutError::<io::Error>::Timeout)
            )
    })
}

/// An error and what caused it, outermost first. An [`io::Error`] hides the error in it from
/// [`source`](StdError::source); this function does not.
pub fn causes<'e>(
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_innermost_error_decides() {
        let aborted = io::Error::new(
            io::ErrorKind::ConnectionAborted,
            quinn::ConnectionError::ApplicationClosed(quinn::ApplicationClose {
                error_code: 0_u8.into(),
                reason: Vec::new().into(),
            }),
        );
        assert_eq!(closed(&io::Error::other(aborted)), Some(Closed::ByPeer));
        for (error, how) in [
            (quinn::ConnectionError::Reset, Some(Closed::Reset)),
            (quinn::ConnectionError::TimedOut, Some(Closed::TimedOut)),
            (quinn::ConnectionError::LocallyClosed, Some(Closed::Local)),
            (quinn::ConnectionError::CidsExhausted, None),
        ] {
            assert_eq!(closed(&io::Error::other(io::Error::from(error))), how);
        }
    }

    #[test]
    fn the_kernel_and_yamux_say_it_too() {
        for (error, how) in [
            (io::ErrorKind::ConnectionReset.into(), Some(Closed::Reset)),
            (io::ErrorKind::UnexpectedEof.into(), Some(Closed::Reset)),
            (io::ErrorKind::TimedOut.into(), Some(Closed::TimedOut)),
            (io::Error::other(ClosedHere), Some(Closed::Local)),
            (
                io::Error::other(yamux::ConnectionError::Closed),
                Some(Closed::ByPeer),
            ),
            (
                io::Error::other(yamux::ConnectionError::NoMoreStreamIds),
                None,
            ),
            (io::Error::other("words such as timed out"), None),
        ] {
            assert_eq!(closed(&io::Error::other(error)), how);
        }
        let within = yamux::ConnectionError::Io(io::ErrorKind::ConnectionReset.into());
        assert_eq!(closed(&within), Some(Closed::Reset));
    }

    #[test]
    fn every_timeout_is_one_and_nothing_else_is() {
        let ours = || Error::timeout("the handshake", Duration::from_secs(4));
        assert!(timed_out(&io::Error::other(io::Error::other(ours()))));
        let named = Error::Unreachable {
            host: "relay.example.net".into(),
            failures: vec![("/ip4/192.0.2.1/tcp/1".parse().expect("an address"), ours())],
        };
        assert!(timed_out(&io::Error::other(named)));
        assert!(timed_out(&TransportTimeoutError::<io::Error>::Timeout));
        assert!(timed_out(&io::Error::from(io::ErrorKind::TimedOut)));
        assert!(!timed_out(&io::Error::other("timed out")));
        assert!(!timed_out(&io::Error::from(io::ErrorKind::ConnectionReset)));
    }
}
