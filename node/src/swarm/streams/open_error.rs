//! Why a stream could not be opened.

use std::io;

use libp2p::core::upgrade::NegotiationError;

/// Why a stream could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// The peer does not support the protocol.
    #[error("the peer does not speak the protocol")]
    Unsupported,
    /// The peer did not answer in time.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The connection is gone, or was never there.
    #[error("the connection is closed")]
    Closed,
    /// Too many streams are being opened on this connection.
    #[error("too many streams are being opened on this connection")]
    Busy,
    /// The negotiation broke off.
    #[error("the negotiation broke off: {0}")]
    Broken(String),
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            // What `upgrade::is_refusal` recognizes.
            OpenError::Unsupported => NegotiationError::Failed.into(),
            OpenError::Timeout | OpenError::Closed | OpenError::Busy | OpenError::Broken(_) => {
                Self::other(error)
            }
        }
    }
}
