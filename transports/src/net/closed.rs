//! How an established connection ended, as a type: quinn, yamux and the kernel each report it with an error of their own.

use std::{borrow::Cow, error::Error as StdError, io};

use rustls::{AlertDescription, CertificateError};

use super::budget::Overuse;

/// How a connection of this crate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The remote closed the connection gracefully. Over QUIC that is a `CONNECTION_CLOSE` of its application ([RFC 9000, section
    /// 10.2](https://www.rfc-editor.org/rfc/rfc9000#section-10.2)), over TCP a GoAway of yamux or a `close_notify` of TLS.
    ByPeer,
    /// The connection ended without a graceful close. That is a reset of TCP or of QUIC, an abort by the remote's QUIC stack, or
    /// a TCP stream that ends without `close_notify`. The remote was killed or restarted, or a middlebox cut the connection.
    Reset,
    /// The remote's TLS has ended it, because this host's certificate is not valid at the time that the remote's clock shows.
    Clock,
    /// Nothing arrived from the remote for the idle timeout of the transport.
    TimedOut,
    /// This side closed it.
    Local,
    /// This side closed it because it held too much: see [`Overuse`](crate::Overuse).
    Overuse(Overuse),
}

/// What one error of a chain says, without its causes.
pub(crate) fn of_one(error: &(dyn StdError + 'static)) -> Option<Closed> {
    if wrong_clock(error) == Some(CLOCK_THERE) {
        return Some(Closed::Clock);
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
    if let Some(overuse) = error.downcast_ref() {
        return Some(Closed::Overuse(*overuse));
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

/// What one error of a chain says in this program's words, if it is a common end of a connection. The words of a library name
/// its functions, codes and documentation.
pub(crate) fn in_words(error: &(dyn StdError + 'static)) -> Option<Cow<'static, str>> {
    if let Some(words) = wrong_clock(error) {
        return Some(words.into());
    }
    if let Some(error) = error.downcast_ref::<quinn::ConnectionError>() {
        return of_quic(error);
    }
    if let Some(yamux::ConnectionError::Closed) = error.downcast_ref() {
        return Some(BY_PEER.into());
    }
    of_io(error.downcast_ref()?).map(Cow::from)
}

/// A graceful close.
const BY_PEER: &str = "closed by peer";

/// A certificate of libp2p is valid for decades around the moment at which it was made. So a clock is wrong if one is not valid now:
/// the one that was looked at, or the one by which the certificate was made.
const CLOCK_HERE: &str = "clock: the peer's certificate is not valid at the time that this host's clock shows; set the clock of this host right, or that of the peer";

/// The same, as the peer reports it.
const CLOCK_THERE: &str = "clock: this host's certificate is not valid at the time that the peer's clock shows; set the clock of the peer right, or that of this host";

/// What stands for an alert of TLS in the codes of QUIC ([RFC 9001, section 4.8](https://www.rfc-editor.org/rfc/rfc9001#section-4.8)).
const CERTIFICATE_EXPIRED: u8 = 45;

/// Whose clock is wrong, if TLS on this side or on the other has found that a certificate is not valid now.
fn wrong_clock(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    // The system's kind of error hides the one in it.
    let boxed = error.downcast_ref().and_then(io::Error::get_ref);
    let error = boxed.map_or(error, |boxed| boxed as &(dyn StdError + 'static));
    if let Some(error) = error.downcast_ref::<quinn::ConnectionError>() {
        let expired = quinn::TransportErrorCode::crypto(CERTIFICATE_EXPIRED);
        return match error {
            quinn::ConnectionError::TransportError(error) => {
                (error.code == expired).then_some(CLOCK_HERE)
            }
            quinn::ConnectionError::ConnectionClosed(close) => {
                (close.error_code == expired).then_some(CLOCK_THERE)
            }
            quinn::ConnectionError::VersionMismatch
            | quinn::ConnectionError::ApplicationClosed(_)
            | quinn::ConnectionError::Reset
            | quinn::ConnectionError::TimedOut
            | quinn::ConnectionError::LocallyClosed
            | quinn::ConnectionError::CidsExhausted => None,
        };
    }
    let error: &rustls::Error = error.downcast_ref()?;
    let here = rustls::Error::InvalidCertificate(CertificateError::Expired);
    let there = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
    let words = [(here, CLOCK_HERE), (there, CLOCK_THERE)];
    let mut words = words.into_iter();
    words.find_map(|(of, words)| (of == *error).then_some(words))
}

fn of_quic(error: &quinn::ConnectionError) -> Option<Cow<'static, str>> {
    Some(match error {
        quinn::ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == 0 => {
            BY_PEER.into()
        }
        quinn::ConnectionError::ApplicationClosed(close) => {
            format!("{BY_PEER} with code {}", close.error_code).into()
        }
        quinn::ConnectionError::Reset => "reset: the peer no longer knows the connection".into(),
        quinn::ConnectionError::TimedOut => "no packet came within the idle timeout".into(),
        quinn::ConnectionError::LocallyClosed => "closed by this node".into(),
        quinn::ConnectionError::ConnectionClosed(_)
        | quinn::ConnectionError::VersionMismatch
        | quinn::ConnectionError::TransportError(_)
        | quinn::ConnectionError::CidsExhausted => return None,
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds of errors are many and not all stable"
)]
fn of_io(error: &io::Error) -> Option<&'static str> {
    let is_of_kernel = error.raw_os_error().is_some();
    Some(match error.kind() {
        io::ErrorKind::ConnectionReset => "reset by the peer or by a device on the way",
        io::ErrorKind::ConnectionAborted => "aborted",
        io::ErrorKind::BrokenPipe => "the connection had ended when this node wrote to it",
        io::ErrorKind::UnexpectedEof => {
            "ended without a graceful close: the peer's program ended, or a device on the way cut it"
        }
        // A library's error of another kind may say more than its kind.
        _ if !is_of_kernel => return None,
        io::ErrorKind::TimedOut => "no answer in time",
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::HostUnreachable => "host unreachable",
        _ => return None,
    })
}

/// What a multiplexer returns after its own close. quinn has its own error for that, yamux has none.
#[derive(Debug, thiserror::Error)]
#[error("closed by this node")]
pub(crate) struct ClosedHere;

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
