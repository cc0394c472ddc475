//! The punch port follows a connection that had to leave from another port.
//!
//! A remote sees the mapping of the port from which it was dialed, so only the punch port's is of use for a punch. The kernel, a NAT or a
//! firewall may hold that port. If no connection has it, the punch port moves to the port that was answered, once the remote has proved who it
//! is. Any host can reset a handshake, so a handshake that is reset moves nothing.

use std::net::{SocketAddr, UdpSocket};

use futures::channel::{mpsc, oneshot};
use p2pnode_protocol::Family;

use crate::net::{ports::Lease, record::Sockets};

/// Why a dial left from another port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The punch port got no answer.
    Silent,
    /// It got none a few minutes ago.
    Resting,
    /// A connection has its 4-tuple, or has just had it.
    InUse,
}

impl Why {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Silent => "it gets no answer",
            Self::Resting => "it got no answer in the last 5 minutes",
            Self::InUse => "an earlier connection of it to the same remote has not ended",
        }
    }
}

/// Where a dial has left from.
pub(super) struct Source {
    pub(super) sockets: Sockets,
    /// Where the punch port may move, once the remote is authenticated.
    pub(super) proposal: Option<Proposal>,
}

/// A port that was connected in place of the punch port.
pub(super) struct Proposal {
    pub(super) port: u16,
    /// Locks the number for as long as the punch socket lives.
    pub(super) lock: UdpSocket,
    pub(super) remote: SocketAddr,
    pub(super) why: Why,
}

impl Proposal {
    pub(super) fn new(lease: &Lease, remote: SocketAddr, why: Why) -> Option<Self> {
        let lock = lease.lock().inspect_err(
            |error| tracing::debug!(%error, "the punch port cannot follow a connection"),
        );
        Some(Self {
            port: lease.port(),
            lock: lock.ok()?,
            remote,
            why,
        })
    }

    pub(super) fn family(&self) -> Family {
        self.remote.ip().into()
    }
}

/// A proposal; the sender is dropped once it is decided.
pub(super) type Proposed = (Proposal, oneshot::Sender<()>);

/// Where dials propose moves.
#[derive(Clone)]
pub(crate) struct Moves(mpsc::UnboundedSender<Proposed>);

impl Moves {
    /// One for each dial under way, so it needs no bound.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Proposed>) {
        let (sender, receiver) = mpsc::unbounded();
        (Self(sender), receiver)
    }

    /// The remote has proved who it is. Returns once the punch port has moved, or stays: who hears of the connection reads the punch port.
    pub(super) async fn propose(&self, proposal: Proposal) {
        let (sender, decided) = oneshot::channel();
        // An error means that the transport is gone.
        if self.0.unbounded_send((proposal, sender)).is_ok() {
            let _ = decided.await;
        }
    }
}
