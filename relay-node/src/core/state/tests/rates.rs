//! Who asks too often, and who comes back after a restart.

use p2pnode_protocol::{Source, guarded::Verdict};

use super::*;
use crate::{
    config::PerSource,
    core::{denial::DenialReason, rates::Request},
};

/// The defaults.
const LIMITS: Limits = Limits {
    reservations: 4096,
    reservations_per_peer: 8,
    reservations_per_source: PerSource {
        ip4: 1024,
        ip6_net: 1024,
    },
    circuits: 4096,
    circuits_per_peer: 1024,
    records: 40_960,
    ..Limits::UNLIMITED
};

#[test]
fn two_peers_that_ask_thousands_of_times_are_disconnected_and_others_are_served() {
    let mut relay = Relay::limited(LIMITS);
    let honest = relay.member(1, 1);
    let flood = [relay.member(2, 2), relay.member(3, 2)];
    relay.events();
    relay.actions();
    let mut served = 0;
    for number in 0..6000 {
        let (on, peer) = (2 + number % 2, flood[number % 2]);
        served += usize::from(relay.reserve(on, peer).is_ok());
        let _ = relay.circuit(on, peer, PeerId::random());
        relay.advance(Duration::from_micros(166));
    }
    assert!(served <= 2 * 33, "{served}");
    let denied: Vec<_> = relay
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::ReservationDenied { reason, .. } => Some(reason),
            _ => None,
        })
        .collect();
    let count = |reason| denied.iter().filter(|is| **is == reason).count();
    assert!(count(DenialReason::RequestRate) >= 1000 && count(DenialReason::Flood) > 0);
    let actions = relay.actions();
    for peer in flood {
        assert!(actions.contains(&Action::Disconnect(peer)));
    }
    assert!(!actions.contains(&Action::Disconnect(honest)));
    assert!(relay.reserve(1, honest).is_ok());
    let neighbour = relay.member(4, 2);
    assert!(relay.circuit(4, neighbour, honest).is_ok());
}

#[test]
fn requests_that_are_malformed_are_measured_alike() {
    let mut relay = Relay::limited(LIMITS);
    let peer = relay.member(1, 1);
    relay.actions();
    for _ in 0..64 + 1024 {
        relay.state.handle_malformed(peer, id(1), relay.now);
    }
    assert_eq!(relay.actions(), []);
    relay.state.handle_malformed(peer, id(1), relay.now);
    assert_eq!(relay.actions(), [Action::Disconnect(peer)]);
}

#[test]
fn another_relay_may_ask_for_anything() {
    let other = PeerId::random();
    let mut relay = Relay::new(Settings {
        limits: LIMITS,
        relays: vec![(other, host(9))],
        ..Settings::default()
    });
    relay.connect(1, other, 9);
    let source = Source::of(&host(9));
    let now = relay.now.instant;
    assert!((0..50_000).all(|_| {
        relay.state.judge(Request::Directory, &other, source, now) == Verdict::Serve
            && relay.state.admits_record(&other, id(1), relay.now)
    }));
}

/// A client of a relay: when it tries next, and how often it has failed.
struct Client {
    peer: PeerId,
    at: Duration,
    from: Multiaddr,
}

/// Clients that come back to a relay that was started again, each over four connections. `window` is how far their own backoff
/// spreads them. Returns how long it took until all had their reservations, and how many requests were refused.
fn returns(clients: usize, sources: usize, limits: Limits, window: Duration) -> (Duration, usize) {
    /// One processor does so many handshakes in a second.
    const HANDSHAKES: u32 = 1000;
    let mut relay = Relay::limited(limits);
    let mut clients: Vec<Client> = (0..clients)
        .map(|number| {
            let at = number % sources;
            Client {
                peer: PeerId::random(),
                at: window.mul_f64(fastrand::f64()),
                from: addr(&format!("/ip4/100.{}.{}.7/tcp/9", at >> 8 & 255, at & 255)),
            }
        })
        .collect();
    clients.sort_by_key(|client| client.at);
    let (start, mut refused, mut busy) = (relay.now.instant, 0, Duration::ZERO);
    for (number, client) in clients.iter().enumerate() {
        for leg in 0..4 {
            let connection = number * 4 + leg;
            // Handshakes wait for their turn.
            busy = busy.max(client.at) + Duration::from_secs(1) / HANDSHAKES;
            let now = start.max(relay.now.instant);
            relay.advance((start + busy).saturating_duration_since(now));
            let begun =
                relay
                    .state
                    .handle_incoming(id(connection), &client.from, || None, relay.now);
            let authenticated =
                relay
                    .state
                    .handle_authenticated(&client.peer, Some(&client.from), relay.now);
            refused +=
                usize::from(!matches!(begun, Ok(None))) + usize::from(authenticated.is_err());
            relay.established(connection, client.peer, &incoming(&client.from));
            let (source, now) = (Source::of(&client.from), relay.now.instant);
            for request in [
                Request::Identify,
                Request::Identify,
                Request::Join,
                Request::CircuitStream,
                Request::Directory,
                Request::Directory,
            ] {
                let verdict = relay.state.judge(request, &client.peer, source, now);
                refused += usize::from(verdict != Verdict::Serve);
            }
            refused += usize::from(relay.reserve(connection, client.peer).is_err());
            let put = relay
                .state
                .admits_record(&client.peer, id(connection), relay.now);
            refused += usize::from(!put);
        }
        relay.actions();
        relay.events();
    }
    (relay.now.instant - start, refused)
}

#[test]
fn ten_thousand_clients_come_back_after_a_restart_and_none_is_refused() {
    let limits = Limits {
        reservations: 65_536,
        connections: 65_536,
        connections_per_peer: 16,
        ..LIMITS
    };
    // Each address has as many as there may be behind one NAT with four reservations each, or a single one.
    for sources in [40, 10_000] {
        let (took, refused) = returns(10_000, sources, limits, Duration::from_secs(60));
        assert_eq!(refused, 0, "{sources} addresses");
        assert!(took < Duration::from_secs(180), "{took:?}");
    }
}

#[test]
fn a_cluster_of_sixteen_thousand_behind_one_address_comes_back_if_its_limits_say_so() {
    const CLIENTS: usize = 16_384;
    let many = 4 * CLIENTS;
    let raised = Limits {
        reservations: many,
        reservations_per_source: PerSource {
            ip4: many,
            ip6_net: many,
        },
        connections_per_source: PerSource {
            ip4: many,
            ip6_net: many,
        },
        ..LIMITS
    };
    let (took, refused) = returns(CLIENTS, 1, raised, Duration::from_secs(60));
    assert_eq!(refused, 0);
    assert!(took < Duration::from_secs(180), "{took:?}");
    // At the defaults an address has the reservations that it may have, and the rest are refused.
    let (_, refused) = returns(CLIENTS, 1, LIMITS, Duration::from_secs(60));
    assert!(refused >= many - 1024, "{refused}");
}
