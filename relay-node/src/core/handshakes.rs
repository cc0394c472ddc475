//! Who may have how many of the handshakes that `limits.pending_connections` admits.

use libp2p::{Multiaddr, swarm::ConnectionId};
use p2pnode_daemon::shares;
use p2pnode_protocol::{Source, Transport};

use crate::core::{clock::Now, denied::Denied};

/// The handshakes of incoming connections that are not over; `None` without a limit, when there is nothing to share.
#[derive(Debug)]
pub(crate) struct Handshakes(Option<shares::Handshakes<ConnectionId>>);

impl Handshakes {
    /// None yet, of `limit` at once; 0 is no limit.
    pub(crate) fn new(limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self((limit > 0).then(|| shares::Handshakes::new(limit)))
    }

    /// There is memory for so many at once.
    pub(crate) fn set_room(&mut self, room: usize) {
        if let Some(handshakes) = &mut self.0 {
            handshakes.set_room(room);
        }
    }

    /// One begins, if it may; returns the one that has to end for it. What is no IP address is not counted.
    pub(crate) fn begin(
        &mut self,
        connection: ConnectionId,
        remote: &Multiaddr,
        now: Now,
    ) -> Result<Option<ConnectionId>, Denied> {
        let (Some(handshakes), Some(transport), Some(source)) =
            (&mut self.0, Transport::of(remote), Source::of(remote))
        else {
            return Ok(None);
        };
        handshakes
            .begin(connection, transport, source, now.instant)
            .or(Denied::Handshakes(transport, source))
    }

    /// One is over, one way or the other.
    pub(crate) fn end(&mut self, connection: ConnectionId) {
        if let Some(handshakes) = &mut self.0 {
            handshakes.end(&connection);
        }
    }
}
