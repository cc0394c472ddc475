//! One dial that was requested.

use std::time::Instant;

use libp2p::swarm::ConnectionId;

use super::interface::DialId;
use crate::core::dialer::Dialer;

/// A dial that was requested.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) id: DialId,
    pub(super) dialer: Dialer,
    /// The connection that is being pinged for it.
    pub(super) pinging: Option<ConnectionId>,
    /// Whether its reader is gone.
    pub(super) is_abandoned: bool,
}

impl Dial {
    /// Its course.
    pub(super) const fn dialer(&mut self) -> &mut Dialer {
        &mut self.dialer
    }

    /// When it may have something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.dialer.poll_timeout()
    }

    /// The dialer, if a ping over that connection is under way for it, and from now on none.
    pub(super) fn take_ping(&mut self, connection: ConnectionId) -> Option<&mut Dialer> {
        self.pinging.take_if(|pinging| *pinging == connection)?;
        Some(&mut self.dialer)
    }

    pub(super) fn is_over(&self) -> bool {
        self.dialer.is_finished() || self.is_abandoned
    }
}
