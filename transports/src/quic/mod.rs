//! QUIC version 1 ([RFC 9000](https://www.rfc-editor.org/rfc/rfc9000)) as libp2p speaks it
//! ([spec](https://github.com/libp2p/specs/blob/master/quic/README.md)), on quinn: one bidirectional stream for each of libp2p's,
//! ALPN `libp2p`, certificates as over TCP.
//!
//! libp2p-quic chooses its sockets itself and dials from an ephemeral port whenever it finds none that suits. Here whoever dials
//! names the socket: a [`Dialer`] has one punch socket for each family, which dials and accepts, and [`Listeners`] have theirs,
//! which only accept. It also fixes what has to be measured (`docs/benchmarks.md`): the time to the first repetition, buffers,
//! windows, the number of streams, congestion control.
//!
//! From the top: [`dialer`] and [`listeners`] (whose socket), [`punch`] (both arms of a punch), [`socket`] (one UDP socket and
//! what comes in on it), [`reader`], [`backlog`] and
//! [`drivers`] (who reads it, how much, and which connection is next, where many share it), [`connection`] (the multiplexer), [`settings`] (quinn's, and why).

pub(crate) mod congestion;

mod backlog;
mod connection;
mod dialer;
mod drivers;
mod listeners;
mod punch;
mod reader;
mod settings;
mod socket;
mod streams;
mod turns;

pub(crate) use dialer::{Dial, Dialer};
pub(crate) use listeners::Listeners;
pub(crate) use settings::{Settings, Sharing};

use std::{net::SocketAddr, time::Duration};

use crate::{
    closed::{Closed, closed},
    error::{Error, chain},
};

/// How long a handshake may take. A first packet that nobody answers is repeated after 0.3, 0.9 and 2.1 s (in a punch sooner). A
/// dial that is not done by then will not be.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
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
    /// Of a dial.
    fn dialing(&self, remote: SocketAddr) -> Error {
        Error::Quic {
            remote: Some(remote),
            reason: chain(self),
            closed: match self {
                Self::TimedOut => Some(Closed::TimedOut),
                Self::Connection(error) => closed(error),
                Self::Socket(error) => closed(error),
                Self::Connect(_) | Self::Certificate(_) => None,
            },
        }
    }

    /// Of a connection that a remote has begun.
    fn accepting(&self, remote: SocketAddr) -> Error {
        match self {
            Self::TimedOut => Error::timeout("the QUIC handshake", HANDSHAKE_TIMEOUT),
            Self::Connect(_) | Self::Connection(_) | Self::Certificate(_) | Self::Socket(_) => {
                self.dialing(remote)
            }
        }
    }
}
