//! Relays admit this node, or do not.

use std::{
    io,
    time::{Duration, Instant, SystemTime},
};

use futures::TryFutureExt as _;
use libp2p::{PeerId, swarm::ConnectionId};

use super::{EventLoop, Purpose, jitter};
use crate::{
    core::{dialer::CircuitFailure, event::Event},
    swarm::join::{self, Exchanges, JoinReply, Outcome, Tokens},
};

/// How often it is looked whether the file of tokens has changed. A Secret takes a minute to arrive, and a token is replaced
/// long before it ends.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// What is known of being admitted.
#[derive(Default)]
pub(crate) struct Joins {
    /// `None` if no file is configured.
    pub(super) tokens: Option<Tokens>,
    pub(super) exchanges: Exchanges,
    /// Circuits that a relay has refused before it has said whether it admits this node, which may be the reason.
    refused: Vec<(PeerId, Purpose, String)>,
}

impl Joins {
    /// No relay was asked yet; `tokens` are presented.
    pub(crate) fn new(tokens: Option<Tokens>) -> Self {
        Self {
            tokens,
            ..Self::default()
        }
    }
}

impl EventLoop {
    /// A leg to a relay is up: asks to be admitted. Nothing is asked of the relay before it has answered, but circuits of a node
    /// that has no token for it: a relay that wants one is the exception.
    pub(super) fn join(&mut self, relay: PeerId, connection: ConnectionId) {
        self.look_at_tokens();
        self.relays.await_join(connection, self.has_token(&relay));
        self.present(relay, connection, false);
    }

    pub(super) fn has_token(&self, relay: &PeerId) -> bool {
        let tokens = self.joins.tokens.as_ref();
        tokens.is_some_and(|tokens| tokens.of(relay).is_some())
    }

    fn present(&mut self, relay: PeerId, connection: ConnectionId, again: bool) {
        let tokens = self.joins.tokens.as_ref();
        let token = tokens.and_then(|tokens| tokens.of(&relay));
        let token = token.map(|(_, text)| text.clone());
        let streams = &mut self.swarm.behaviour_mut().streams;
        let stream = streams.open_lazily(relay, connection, join::PROTOCOL);
        self.joins.exchanges.present(
            relay,
            connection,
            token,
            again,
            stream.map_err(io::Error::from),
        );
    }

    /// Reads the file of tokens if it has changed, and presents what is new in it.
    pub(super) fn look_at_tokens(&mut self) {
        let changed = match self.joins.tokens.as_mut().map(Tokens::refresh) {
            None => return,
            Some(Ok(changed)) => changed,
            Some(Err(error)) => {
                for line in error.to_string().lines() {
                    tracing::error!("{line}; the tokens that were read before are used on");
                }
                return;
            }
        };
        for relay in changed {
            tracing::info!(%relay, "the token for a relay is a new one");
            self.relays.retry_refused(&relay, Instant::now());
            let connections = self.peers.connections_of(&relay).to_vec();
            for connection in connections {
                self.present(relay, connection, true);
            }
        }
    }

    pub(super) fn on_joined(&mut self, outcome: Outcome) {
        let Outcome {
            relay,
            connection,
            reply,
            again,
        } = outcome;
        tracing::debug!(%relay, %connection, ?reply, "asked a relay to admit this node");
        match reply {
            JoinReply::Refused(refusal) => {
                let token = self
                    .joins
                    .tokens
                    .as_ref()
                    .and_then(|tokens| tokens.of(&relay));
                let words = join::refused(
                    refusal,
                    self.swarm.local_peer_id(),
                    token.map(|(token, _)| token),
                    self.joins.tokens.as_ref().map(Tokens::path),
                    SystemTime::now(),
                );
                // What was presented before may be good still.
                if again {
                    tracing::warn!(%relay, "the relay does not take the new token: {words}");
                } else {
                    self.on_refused(relay, connection, words);
                }
            }
            JoinReply::Admitted | JoinReply::Unsupported | JoinReply::NoAnswer => {
                self.relays.handle_joined(connection, Instant::now());
                self.observers.touch();
                if self.is_found_leg(&relay) {
                    self.on_found_leg(relay, connection);
                }
                for (_, purpose, reason) in self.take_refused(relay) {
                    self.on_circuit_failed(purpose, CircuitFailure::Refused, reason);
                }
            }
        }
    }

    fn on_refused(&mut self, relay: PeerId, connection: ConnectionId, words: String) {
        let (now, t) = (Instant::now(), self.t());
        let reason = format!("relay {relay} refused us: {words}");
        if self
            .relays
            .handle_refused(relay, connection, &words, now, jitter())
        {
            tracing::warn!("{reason}");
            self.observers.tell(Event::RelayRefused {
                t,
                relay,
                reason: words.clone(),
            });
        }
        for dial in &mut self.dials {
            dial.dialer.handle_relay_refused(relay, t, &words);
        }
        if self.is_found_leg(&relay) {
            self.on_found_leg_failed(relay, connection, &words);
        }
        for (_, purpose, _) in self.take_refused(relay) {
            self.on_circuit_failed(purpose, CircuitFailure::Refused, reason.clone());
        }
        self.swarm.close_connection(connection);
    }

    fn is_found_leg(&self, relay: &PeerId) -> bool {
        !self.trusted.contains(relay) && self.found_relays.contains(relay)
    }

    /// A relay refuses a circuit. Whether that is told later, since it is yet to say whether it admits this node at all.
    pub(super) fn holds_back(&mut self, purpose: Purpose, reason: &str) -> bool {
        let relay = match purpose {
            Purpose::Circuit { relay, .. }
            | Purpose::Again {
                relay: Some(relay), ..
            } => relay,
            Purpose::Leg
            | Purpose::FoundLeg(_)
            | Purpose::Direct(_)
            | Purpose::Local { .. }
            | Purpose::Matched(_)
            | Purpose::Again { relay: None, .. } => return false,
        };
        let awaited = self.joins.exchanges.is_awaited(&relay);
        if awaited {
            self.joins.refused.push((relay, purpose, reason.to_owned()));
        }
        awaited
    }

    fn take_refused(&mut self, relay: PeerId) -> Vec<(PeerId, Purpose, String)> {
        // Another leg's answer may still be awaited; each says the same.
        self.joins
            .refused
            .extract_if(.., |(of, _, _)| *of == relay)
            .collect()
    }
}
