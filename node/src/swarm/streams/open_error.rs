//! What became of a stream that was asked for.

use std::io;

use libp2p::{
    Stream,
    core::upgrade::NegotiationError,
    swarm::{
        StreamUpgradeError,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedOutbound, InboundUpgradeSend},
    },
};
use p2pnode_protocol::{
    from_remote,
    upgrade::{Confirmed, Unsupported},
};

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

/// What became of the stream that was asked for with the returned value; `None`: the event is about something else.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "a stream is opened or not; other events are about something else"
)]
pub(crate) fn opened<In: InboundUpgradeSend, InInfo, Asked>(
    event: ConnectionEvent<'_, In, Confirmed, InInfo, Asked>,
) -> Option<(Asked, Result<Stream, OpenError>)> {
    match event {
        ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
            Some((info, Ok(protocol)))
        }
        ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
            let error = match error {
                StreamUpgradeError::NegotiationFailed | StreamUpgradeError::Apply(Unsupported) => {
                    OpenError::Unsupported
                }
                StreamUpgradeError::Timeout => OpenError::Timeout,
                StreamUpgradeError::Io(error) => OpenError::Broken(from_remote(error)),
            };
            Some((info, Err(error)))
        }
        _ => None,
    }
}
