//! What ping reports: round trip times, and connections that are dead.

use p2pnode_protocol::ping::{Event, Failure};
use tracing::{debug, trace};

use super::EventLoop;

/// A connection that misses this many pings in a row is dead.
const MISSED_PINGS: u32 = 2;

impl EventLoop {
    /// Closes a connection that does not answer, so that its reservation does not wait for circuits that cannot arrive.
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
                trace!(%peer, %connection, ?rtt, "pong");
                self.legs.measured(connection, rtt);
            }
            // A peer that does not speak ping is not dead.
            Err(Failure::Unsupported) => debug!(%peer, %connection, "does not speak ping"),
            Err(error @ (Failure::Timeout | Failure::Broken(_))) => {
                debug!(%peer, %connection, %error, missed, "a ping was not answered");
                if missed >= MISSED_PINGS {
                    debug!(%peer, %connection, "closing a connection that answers no ping");
                    // False if it is closed already.
                    let _ = self.swarm.close_connection(connection);
                }
            }
        }
    }
}
