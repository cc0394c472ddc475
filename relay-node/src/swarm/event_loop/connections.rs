//! What the swarm reports about connections.

use libp2p::{
    Multiaddr, TransportError,
    connection_limits::Exceeded,
    swarm::{ConnectionDenied, ListenError},
};
use p2pnode_transports::timed_out;
use tracing::debug;

use super::EventLoop;
use crate::{
    core::{admission::NotAdmitted, handshakes},
    observe::metrics::{HandshakeFailure, Reason},
    swarm::{connection_sources, memory},
};

impl EventLoop {
    /// An inbound connection did not come about.
    ///
    /// Anybody on the internet can cause these, so they are counted and not logged by default.
    pub(super) fn on_incoming_error(&self, from: &Multiaddr, error: ListenError) {
        match error {
            ListenError::Denied { cause } => {
                let reason = reason(&cause);
                if let Some(reason) = reason {
                    self.metrics.denied(reason);
                }
                let cause = std::error::Error::source(&cause);
                debug!(%from, reason = reason.map(Reason::as_str), cause, "connection denied");
            }
            // Scanners, broken clients, lost packets.
            ListenError::Transport(error) => {
                let reason = if timed_out(&error) {
                    HandshakeFailure::Timeout
                } else {
                    HandshakeFailure::Broken
                };
                self.metrics.handshake_failed(reason);
                // The error of a transport shows nothing of what is in it.
                let error = match error {
                    TransportError::Other(error) => error.to_string(),
                    unsupported @ TransportError::MultiaddrNotSupported(_) => {
                        unsupported.to_string()
                    }
                };
                debug!(%from, ?reason, error, "inbound connection failed");
            }
            // Our own doing: a relay that ends, and one that dials itself.
            ListenError::Aborted => debug!(%from, "inbound connection aborted"),
            ListenError::WrongPeerId { obtained, .. } => {
                debug!(%from, %obtained, "unexpected peer id");
            }
            ListenError::LocalPeerId { .. } => debug!(%from, "connection to ourselves"),
        }
    }
}

/// Which of the behaviours denied it.
fn reason(cause: &ConnectionDenied) -> Option<Reason> {
    if let Some(NotAdmitted(refused)) = cause.downcast_ref() {
        Some(refused.reason())
    } else if cause.downcast_ref::<memory::Exceeded>().is_some() {
        Some(Reason::Memory)
    } else if cause.downcast_ref::<Exceeded>().is_some() {
        Some(Reason::ConnectionLimit)
    } else if let Some(exceeded) = cause.downcast_ref() {
        Some(match exceeded {
            handshakes::Exceeded::Transport(_) => Reason::ConnectionLimit,
            handshakes::Exceeded::Source(..) => Reason::SourceConnectionLimit,
        })
    } else if cause
        .downcast_ref::<connection_sources::Exceeded>()
        .is_some()
    {
        Some(Reason::SourceConnectionLimit)
    } else {
        None
    }
}
