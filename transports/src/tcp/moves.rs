//! The punch port follows a connection that had to leave from another port.
//!
//! A remote sees the mapping of the port from which it was dialed, so only the punch port's is of use for a punch. The kernel, a NAT or a
//! firewall may hold that port. If no connection has it, the punch port moves to the port that was answered.

use std::net::UdpSocket;

use futures::channel::mpsc;
use p2pnode_protocol::Family;

use crate::net::ports::Lease;

/// A port that was answered in place of the punch port.
pub(super) struct Move {
    pub(super) family: Family,
    pub(super) port: u16,
    /// Locks the number for as long as the punch socket lives.
    pub(super) lock: UdpSocket,
}

/// Where dials propose moves.
#[derive(Clone)]
pub(crate) struct Moves(mpsc::UnboundedSender<Move>);

impl Moves {
    /// One for each dial that was answered at another port, so it needs no bound.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Move>) {
        let (sender, receiver) = mpsc::unbounded();
        (Self(sender), receiver)
    }

    /// The port of a lease was answered, and the punch port was not.
    pub(super) fn propose(&self, family: Family, lease: &Lease) {
        match lease.lock() {
            Ok(lock) => {
                let port = lease.port();
                // An error means that the transport is gone.
                let _ = self.0.unbounded_send(Move { family, port, lock });
            }
            Err(error) => tracing::debug!(%error, "the punch port cannot follow a connection"),
        }
    }
}
