//! Connections that have missed a ping: something else is tried alongside before they are closed.

use std::time::Instant;

use libp2p::{PeerId, swarm::ConnectionId};

use super::{Action, NodeState, connections::NO_ANSWER};
use crate::core::event::LossCause;

impl NodeState {
    /// A connection has missed a ping. Its path is cut, or slower than before: an answer may still come.
    pub(super) fn on_doubtful(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        if self.relays.handle_doubt(connection) {
            tracing::debug!(relay = %peer, %connection, "a leg does not answer; dialing the relay alongside");
            return;
        }
        let mut others = self.peers.connections_of(&peer).iter();
        let is_replaced = others.any(|other| !self.liveness.is_doubtful(*other));
        if is_replaced || self.is_relay(&peer) {
            self.close_doubtful(connection, peer, now);
            return;
        }
        for dialer in self.dials_of(peer) {
            dialer.handle_doubt();
        }
        if !self.is_dialed(peer) && !self.reconnector.is_searched(&peer) {
            let jitter = self.rng.f64();
            self.reconnector.handle_lost(&peer, now, jitter);
        }
    }

    /// A connection has answered.
    pub(super) fn on_answered(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        self.relays.handle_answered(connection);
        self.refusals.handle_answered(&peer);
        for dialer in self.dials_of(peer) {
            dialer.handle_trust();
        }
        if self.reconnector.is_searched(&peer) {
            let relay = self.peers.path(connection).and_then(|path| path.relay);
            self.reconnector.handle_connected(&peer, relay, now);
        }
    }

    /// There is another connection to this peer: those that are doubtful are closed. Returns whether there was one.
    pub(super) fn close_doubtful_paths(&mut self, peer: PeerId, now: Instant) -> bool {
        let mut closes = false;
        for connection in self.peers.connections_of(&peer).to_vec() {
            if self.relays.relay_over(connection).is_none() {
                closes |= self.close_doubtful(connection, peer, now);
            }
        }
        closes
    }

    /// Closes a connection if it is doubtful. Returns whether it is.
    pub(super) fn close_doubtful(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        now: Instant,
    ) -> bool {
        let is_doubtful = self.liveness.handle_replaced(connection);
        if is_doubtful {
            self.close_dead(peer, connection, now);
        }
        is_doubtful
    }

    /// Closes a connection that counts as dead.
    pub(super) fn close_dead(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        tracing::info!(%peer, %connection, "closing a connection that does not answer");
        self.actions.push_back(Action::Close(connection));
        if self.is_relay(&peer) {
            self.on_leg_ended(connection, peer, LossCause::Silent, NO_ANSWER, now);
        }
    }
}
