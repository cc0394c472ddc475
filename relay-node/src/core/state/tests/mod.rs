//! Every decision of a relay, against [`RelayState`] and under virtual time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks at the actions and events that it is about"
)]

mod access;
mod autonat;
mod circuits;
mod classes;
mod connections;
mod draining;
mod introductions;
mod peer_relays;
mod probes;
mod rates;
mod records;
mod schedules;

use std::time::{Duration, Instant, UNIX_EPOCH};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    identity::Keypair,
    swarm::ConnectionId,
};

use super::*;
use crate::core::{
    circuits::CircuitId,
    policy::{Refusal, Route},
};

const LOCAL4: &str = "/ip4/192.0.2.1/tcp/443";

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

/// The address of host `host` over TCP.
fn host(host: u8) -> Multiaddr {
    addr(&format!("/ip4/198.51.100.{host}/tcp/9"))
}

fn incoming(from: &Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: addr(LOCAL4),
        send_back_addr: from.clone(),
    }
}

fn dialed(to: &Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address: to.clone(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

fn peers<const N: usize>() -> [PeerId; N] {
    [(); N].map(|()| PeerId::random())
}

/// A relay that takes reservations, and its clocks.
struct Relay {
    key: Keypair,
    state: RelayState,
    now: Now,
}

impl Relay {
    fn new(settings: Settings) -> Self {
        let now = Now {
            instant: Instant::now(),
            wall: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        let key = Keypair::generate_ed25519();
        let mut state = RelayState::new(key.public().to_peer_id(), &settings, now);
        state.handle_listening(&addr(LOCAL4));
        let mut relay = Self { key, state, now };
        relay.actions();
        relay.events();
        relay
    }

    fn limited(limits: Limits) -> Self {
        Self::new(Settings {
            limits,
            ..Settings::default()
        })
    }

    /// Both clocks go on, and whatever becomes due in between is done when it is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while let Some(due) = self.state.poll_timeout().filter(|due| *due <= end) {
            self.advance(due.saturating_duration_since(self.now.instant));
            self.state.handle_timeout(self.now);
            let next = self.state.poll_timeout();
            assert!(
                next.is_none_or(|next| next > self.now.instant),
                "what is due is done"
            );
        }
        self.advance(end - self.now.instant);
    }

    fn advance(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall += time;
    }

    fn actions(&mut self) -> Vec<Action> {
        let actions = std::iter::from_fn(|| self.state.poll_action());
        // They have tests of their own.
        let others = actions.filter(|action| !matches!(action, Action::Classify { .. }));
        others.collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.state.poll_event()).collect()
    }

    /// A peer connects from host `from`.
    fn connect(&mut self, connection: usize, peer: PeerId, from: u8) {
        self.established(connection, peer, &incoming(&host(from)));
    }

    fn established(&mut self, connection: usize, peer: PeerId, endpoint: &ConnectedPoint) {
        self.state
            .handle_established(peer, id(connection), endpoint, self.now);
    }

    fn close(&mut self, connection: usize, peer: PeerId) {
        self.state
            .handle_closed(peer, id(connection), self.now, 0.0);
    }

    fn reserve(&mut self, connection: usize, peer: PeerId) -> Result<Reservation, Refusal> {
        self.state
            .handle_reservation_request(peer, id(connection), self.now)
    }

    /// A peer connects from host `from` and reserves.
    fn member(&mut self, connection: usize, from: u8) -> PeerId {
        let peer = PeerId::random();
        self.connect(connection, peer, from);
        self.reserve(connection, peer).unwrap();
        peer
    }

    fn circuit(&mut self, on: usize, from: PeerId, to: PeerId) -> Result<Route, Refusal> {
        self.state
            .handle_circuit_request(from, id(on), to, self.now)
    }

    /// A circuit that is open.
    fn open(&mut self, on: usize, from: PeerId, to: PeerId) -> CircuitId {
        let route = self.circuit(on, from, to).unwrap();
        assert!(
            self.state
                .handle_circuit_ready(route.id, self.now)
                .is_some()
        );
        route.id
    }
}
