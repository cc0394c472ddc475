//! How often peers may ask.

use std::time::Instant;

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::{Source, guarded::Verdict};

use super::{Action, RelayState};
use crate::core::{
    clock::Now,
    policy::Refusal,
    rates::{Asker, Request},
};

impl RelayState {
    /// Whether a request of `peer`, which is connected from `source`, is served. The other relays may ask for anything.
    pub fn judge(
        &mut self,
        request: Request,
        peer: &PeerId,
        source: Option<Source>,
        now: Instant,
    ) -> Verdict {
        if self.peer_relays.contains(peer) {
            return Verdict::Serve;
        }
        let asker = Asker {
            peer: *peer,
            source,
            holds: self.policy.holds(peer),
        };
        self.rates.judge(request, asker, now)
    }

    /// Where a connection comes from, if it is open.
    #[must_use]
    pub fn source_of(&self, connection: ConnectionId) -> Option<Source> {
        self.policy.source_of(connection)
    }

    /// Whether a record that `peer` offers is worth the check of its signature.
    pub fn admits_record(&mut self, peer: &PeerId, connection: ConnectionId, now: Now) -> bool {
        let source = self.source_of(connection);
        self.judge(Request::Record, peer, source, now.instant) == Verdict::Serve
    }

    /// A request of a peer is malformed. A peer that sends nothing else is disconnected.
    pub fn handle_malformed(&mut self, peer: PeerId, connection: ConnectionId, now: Now) {
        let _counted = self.measured(Request::Malformed, peer, connection, now);
    }

    /// Judges a request that is answered either way.
    pub(super) fn measured(
        &mut self,
        request: Request,
        peer: PeerId,
        connection: ConnectionId,
        now: Now,
    ) -> Result<(), Refusal> {
        let source = self.source_of(connection);
        match self.judge(request, &peer, source, now.instant) {
            Verdict::Serve => Ok(()),
            Verdict::Refuse => Err(Refusal::TooOften),
            Verdict::Close => {
                self.actions.push_back(Action::Disconnect(peer));
                Err(Refusal::Flood)
            }
        }
    }
}
