//! Relays admit this node, or do not.

use std::time::{Instant, SystemTime};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::join::JoinReply;

use super::{Action, Event, JoinRequest, NodeState};
use crate::core::{dialer::CircuitFailure, event, refusal::refused, tokens::Tokens};

impl NodeState {
    /// A leg to a relay is up: asks the relay to admit this node. The node asks for nothing else before the answer. The exception
    /// is a circuit of a node without a token, because few relays require one.
    pub(super) fn join(&mut self, relay: PeerId, connection: ConnectionId) {
        self.relays
            .handle_joining(connection, self.has_token(&relay));
        self.present(relay, connection, false);
    }

    /// Whether this node has a token for a relay.
    pub(super) fn has_token(&self, relay: &PeerId) -> bool {
        let tokens = self.tokens.as_ref();
        tokens.is_some_and(|tokens| tokens.of(relay).is_some())
    }

    fn present(&mut self, relay: PeerId, connection: ConnectionId, again: bool) {
        let token = self.tokens.as_ref().and_then(|tokens| tokens.of(&relay));
        let token = token.map(|(_, text)| text.clone());
        self.joins.handle_asked(relay, connection);
        self.actions.push_back(Action::Join(JoinRequest {
            relay,
            connection,
            token,
            again,
        }));
    }

    /// The file of tokens has changed: presents what is new in it.
    pub(crate) fn handle_tokens(&mut self, tokens: Tokens, now: Instant) {
        let changed = match &mut self.tokens {
            Some(known) => known.replace(tokens),
            None => return,
        };
        for relay in changed {
            tracing::info!(%relay, "the token for a relay is a new one");
            self.relays.retry_refused(&relay, now);
            let connections = self.peers.connections_of(&relay).to_vec();
            for connection in connections {
                self.present(relay, connection, true);
            }
        }
        self.advance(now);
    }

    /// A request of [`Action::Join`] has ended. `again` is as there, `wall` the time of day.
    pub(crate) fn handle_join_reply(
        &mut self,
        relay: PeerId,
        connection: ConnectionId,
        again: bool,
        reply: JoinReply,
        now: Instant,
        wall: SystemTime,
    ) {
        tracing::debug!(%relay, %connection, ?reply, "asked a relay to admit this node");
        self.joins.handle_reply(relay, connection);
        match reply {
            JoinReply::Refused(refusal) => {
                let tokens = self.tokens.as_ref();
                let token = tokens.and_then(|tokens| tokens.of(&relay));
                let words = refused(
                    refusal,
                    &self.local,
                    token.map(|(token, _)| token),
                    tokens.map(Tokens::path),
                    wall,
                );
                // What was presented before may still be valid.
                if again {
                    tracing::warn!(%relay, "the relay does not take the new token: {words}");
                    self.end_withheld(relay, None, now);
                } else {
                    self.on_refused(relay, connection, &words, now);
                }
            }
            JoinReply::Admitted | JoinReply::Unsupported | JoinReply::NoAnswer => {
                self.relays.handle_joined(connection, now);
                self.events.push_back(Event::Admitted(relay));
                if self.is_found(&relay) {
                    self.on_found_leg(relay, connection, now);
                }
                self.end_withheld(relay, None, now);
            }
        }
        self.advance(now);
    }

    fn on_refused(&mut self, relay: PeerId, connection: ConnectionId, words: &str, now: Instant) {
        let (t, jitter) = (self.t(now), self.rng.f64());
        let reason = format!("relay {relay} refused us: {words}");
        let is_news = self
            .relays
            .handle_refused(relay, connection, words, now, jitter);
        if is_news {
            tracing::warn!(target: event::LOGGED, "{reason}");
            self.report(event::Event::RelayRefused {
                t,
                relay,
                reason: words.to_owned(),
            });
        }
        for dial in &mut self.dials {
            dial.dialer().handle_relay_refused(relay, t, words);
        }
        if self.is_found(&relay) {
            self.on_found_leg_failed(relay, connection, words, now);
        }
        self.end_withheld(relay, Some(&reason), now);
        self.actions.push_back(Action::Close(connection));
    }

    /// A relay has answered: the circuits that it has refused before are reported as failed, for this reason or each for its own.
    fn end_withheld(&mut self, relay: PeerId, reason: Option<&str>, now: Instant) {
        for (purpose, own) in self.joins.take_withheld(relay) {
            let reason = reason.map_or(own, str::to_owned);
            self.on_circuit_failed(purpose, CircuitFailure::Refused, reason, now);
        }
    }
}
