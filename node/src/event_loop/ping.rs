//! Round trip times, and connections that no longer answer.

use std::time::Instant;

use p2pnode_bin_shared::ping::{Event, Failure};

use super::EventLoop;

/// A connection that misses this many pings in a row is dead and is closed.
const MISSED_PINGS: u32 = 2;

impl EventLoop {
    pub(super) fn on_ping(&mut self, event: Event) {
        let Event {
            peer,
            connection,
            result,
            missed,
            asked: _,
        } = event;
        match result {
            Ok(rtt) => {
                self.peers.measured(connection, rtt);
                if self.peers.best(&peer) == Some(connection)
                    && let Some(best) = self.peers.path(connection)
                {
                    let now = Instant::now();
                    for dialer in self.dials_of(peer) {
                        dialer.handle_ping(rtt, best.clone(), now);
                    }
                }
            }
            // A peer without ping is not a dead one.
            Err(Failure::Unsupported) => {}
            Err(error @ (Failure::Timeout | Failure::Broken(_))) => {
                tracing::debug!(%peer, %connection, %error, missed, "a ping was not answered");
                if missed >= MISSED_PINGS {
                    tracing::info!(%peer, %connection, missed, "closing a connection that does not answer");
                    self.swarm.close_connection(connection);
                }
            }
        }
    }
}
