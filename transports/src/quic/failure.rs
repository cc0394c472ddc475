//! Why a QUIC connection was not established.

use std::{net::SocketAddr, time::Duration};

use crate::net::{
    closed::Closed,
    error::{Error, chain, closed},
};

/// How long a handshake may take. A first packet without an answer is repeated after 0.3, 0.9 and 2.1 s, in a punch sooner. A
/// dial that is not done by then never is.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the handshake timed out")]
    TimedOut,
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error("no certificate of a peer: {0}")]
    Certificate(rustls::Error),
    #[error("{0}")]
    Socket(#[from] std::io::Error),
}

impl Failure {
    /// The error of a dial.
    pub(super) fn dialing(&self, remote: SocketAddr) -> Error {
        Error::Quic {
            remote: Some(remote),
            reason: match self {
                // Its own words, which the chain of the transparent error leaves out.
                Self::Connection(error) => chain(error),
                Self::TimedOut | Self::Connect(_) | Self::Certificate(_) | Self::Socket(_) => {
                    chain(self)
                }
            },
            closed: match self {
                Self::TimedOut => Some(Closed::TimedOut),
                Self::Connection(error) => closed(error),
                Self::Socket(error) => closed(error),
                Self::Connect(_) | Self::Certificate(_) => None,
            },
        }
    }

    /// The error of a connection that a remote began.
    pub(super) fn accepting(&self, remote: SocketAddr) -> Error {
        match self {
            Self::TimedOut => Error::timeout("the QUIC handshake", HANDSHAKE_TIMEOUT),
            Self::Connect(_) | Self::Connection(_) | Self::Certificate(_) | Self::Socket(_) => {
                self.dialing(remote)
            }
        }
    }
}
