//! Whether relays admit this node, and when one that does not is asked again.

use std::time::{Duration, Instant};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_daemon::backoff::full_jitter;

use super::{
    RelayKeeper,
    leg::{Join, RETRY_MAX, State},
};

/// First wait after a relay did not admit this node.
const REFUSED_BACKOFF_MIN: Duration = Duration::from_secs(1);

impl RelayKeeper {
    /// The node asks the relay on this connection to admit it. Until the answer, the node asks for no reservation there. If the
    /// node has a token for the relay, the node asks for no circuit either.
    pub(crate) fn handle_joining(&mut self, connection: ConnectionId, has_token: bool) {
        if let Some(State::Up { join, .. }) = self.leg_over(connection).map(|leg| &mut leg.state) {
            *join = Join::Awaited { has_token };
        }
    }

    /// The relay admits this node, or admits every node.
    pub(crate) fn handle_joined(&mut self, connection: ConnectionId, now: Instant) {
        let Some(leg) = self.leg_over(connection) else {
            return;
        };
        leg.refusals = 0;
        if let State::Up { join, .. } = &mut leg.state {
            *join = Join::Done;
        }
        let peer = leg.relay.peer;
        self.refused.remove(&peer);
        self.retry_refused(&peer, now);
    }

    /// The relay does not admit this node, in these words. Whether that is news.
    pub(crate) fn handle_refused(
        &mut self,
        relay: PeerId,
        connection: ConnectionId,
        words: &str,
        now: Instant,
        jitter: f64,
    ) -> bool {
        if let Some(leg) = self.leg_over(connection) {
            leg.refusals = leg.refusals.saturating_add(1);
            leg.state = State::Down {
                retry_at: now + full_jitter(REFUSED_BACKOFF_MIN, RETRY_MAX, leg.refusals, jitter),
            };
        }
        self.refused.insert(relay, words.to_owned()).as_deref() != Some(words)
    }

    /// Something has changed, so that the relay may admit this node now: legs on which it did not are dialed at once.
    pub(crate) fn retry_refused(&mut self, relay: &PeerId, now: Instant) {
        let legs = self.legs.iter_mut();
        for leg in legs.filter(|leg| leg.relay.peer == *relay && leg.refusals > 0) {
            if let State::Down { retry_at } = &mut leg.state {
                *retry_at = now;
            }
        }
    }

    /// Why this relay does not admit this node, if it does not.
    pub(crate) fn refusal(&self, relay: &PeerId) -> Option<&str> {
        self.refused.get(relay).map(String::as_str)
    }
}
