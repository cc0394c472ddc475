//! Round trip times, and connections that no longer answer.

use std::time::{Duration, Instant};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::ping::{Event, Failure};

use super::EventLoop;
use crate::{core::dialer::PingFailure, observe::metrics::Cause};

impl EventLoop {
    pub(super) fn on_ping(&mut self, event: Event) {
        let Event {
            peer,
            connection,
            result,
            missed,
            asked,
        } = event;
        let now = Instant::now();
        match &result {
            Ok(rtt) => self.peers.measured(connection, *rtt),
            Err(error) => {
                tracing::debug!(%peer, %connection, %error, missed, "a ping was not answered");
                if missed > 0 {
                    self.peers.missed(connection);
                }
            }
        }
        let cause = match &result {
            Ok(_) => Cause::Ranked,
            Err(_) => Cause::Missed,
        };
        self.observe_path(peer, cause, now);
        if asked {
            self.answer_dials(peer, connection, &result, now);
        }
        let dead = self
            .liveness
            .handle_ping(connection, result.as_ref().map(|_| ()), missed, now);
        if dead {
            tracing::info!(%peer, %connection, missed, "closing a connection that does not answer");
            self.swarm.close_connection(connection);
        }
    }

    /// Pings the best path of a dial's peer.
    pub(super) fn ping_for(&mut self, index: usize) {
        let peer = self.dials[index].dialer.peer();
        // Without a path there is nothing to ping, and the dial learns of the next one.
        if let Some(best) = self.peers.best(&peer) {
            self.dials[index].pinging = Some(best);
            self.swarm.behaviour_mut().ping.now(peer, best);
        }
    }

    /// Tells the dials that pinged over `connection` what came of it.
    fn answer_dials(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        result: &Result<Duration, Failure>,
        now: Instant,
    ) {
        let pinged = self.peers.path(connection);
        let best = self
            .peers
            .best(&peer)
            .and_then(|best| self.peers.kind(best));
        // Another path of the same kind may have become a little better meanwhile: that changes nothing of what was reached.
        let pinged = pinged.filter(|path| Some(path.kind) == best);
        for dial in &mut self.dials {
            let Some(dialer) = dial.take_ping(connection) else {
                continue;
            };
            match (&pinged, result) {
                (Some(path), Ok(rtt)) => dialer.handle_ping(*rtt, path.clone(), now),
                (Some(_), Err(Failure::Unsupported)) => {
                    dialer.handle_ping_failed(PingFailure::Unsupported);
                }
                (Some(_), Err(Failure::Timeout)) => dialer.handle_ping_failed(PingFailure::Missed),
                (Some(_), Err(Failure::Broken(_))) => {
                    dialer.handle_ping_failed(PingFailure::Broken);
                    // If the connection ends, the dial does not wait.
                    dial.pinging = Some(connection);
                }
                (None, _) => dialer.handle_ping_failed(PingFailure::Stale),
            }
        }
    }
}
