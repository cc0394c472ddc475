//! What ping reports: connections that are dead.

use libp2p::ping;
use tracing::{debug, trace};

use super::EventLoop;

impl EventLoop {
    /// Closes a connection that does not answer, so that its reservation does not wait for circuits that cannot arrive.
    ///
    /// libp2p keeps the first failure to itself; the one that it reports is the second in a row.
    pub(super) fn on_ping(
        &mut self,
        ping::Event {
            peer,
            connection,
            result,
        }: ping::Event,
    ) {
        match result {
            Ok(rtt) => {
                trace!(%peer, %connection, ?rtt, "pong");
                self.legs.measured(connection, rtt);
            }
            // A peer that does not speak ping is not dead.
            Err(ping::Failure::Unsupported) => debug!(%peer, %connection, "does not speak ping"),
            Err(error @ (ping::Failure::Timeout | ping::Failure::Other { .. })) => {
                debug!(%peer, %connection, %error, "closing a connection that answers no ping");
                // False if it is closed already.
                let _ = self.swarm.close_connection(connection);
            }
        }
    }
}
