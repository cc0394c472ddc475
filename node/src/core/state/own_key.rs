//! Whether another host uses the key of this node.

use std::{net::SocketAddr, time::Instant};

use libp2p::{PeerId, swarm::ConnectionId};

use super::NodeState;
use crate::core::{event, own_key::OtherHost};

impl NodeState {
    /// An inbound connection was this node's own.
    pub(crate) fn handle_met_itself(&mut self, now: Instant) {
        self.own_key.handle_met_itself(now);
    }

    /// A peer reports that another host uses the key of this node. Only the relays of this node matter.
    pub(crate) fn handle_shared_key(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        at: SocketAddr,
        now: Instant,
    ) {
        match self.relays.relay_over(connection) {
            Some(relay) => self.own_key.handle_notice(relay, connection, at, now),
            None => tracing::debug!(%peer, %at, "a peer says that another host uses the key"),
        }
        self.advance(now);
    }

    pub(super) fn report_key(&mut self, now: Instant) {
        let Some(other) = self.own_key.handle_timeout(now) else {
            return;
        };
        let t = self.t(now);
        let Some(OtherHost { at, relay }) = other else {
            tracing::info!(target: event::LOGGED, own = tracing::field::Empty, "no other host is seen with the key of this node any more");
            return self.report(event::Event::KeyAlone { t });
        };
        let seen_by = relay.map_or_else(
            || "a dial of this node".to_owned(),
            |relay| relay.to_string(),
        );
        tracing::warn!(target: event::LOGGED, own = tracing::field::Empty, %at, %seen_by, "another host uses the key of this node: callers reach either. Give each host a key of its own: stop the node on one of them, move its key file away, and start it again");
        self.report(event::Event::KeyShared { t, at, relay });
    }
}
