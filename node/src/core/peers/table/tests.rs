#![allow(clippy::unwrap_used, reason = "a test may panic")]

use libp2p::core::{Endpoint, transport::PortUse};

use super::{super::Axis, *};

const RELAY_ADDR: &str = "/ip4/203.0.113.10/udp/443/quic-v1";

fn dialer(address: &str) -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address: address.parse().unwrap(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

fn id(n: usize) -> ConnectionId {
    ConnectionId::new_unchecked(n)
}

fn relay_sockets() -> Sockets {
    Sockets {
        transport: Transport::Quic,
        local: "10.0.1.2:40017".parse().unwrap(),
        remote: "203.0.113.10:443".parse().unwrap(),
    }
}

/// A table with a relay connection as id 1.
fn with_relay(relay: PeerId) -> (PeerTable, Instant) {
    let now = Instant::now();
    let mut table = PeerTable::new(FamilyPolicy::Auto);
    table.handle_established(
        id(1),
        relay,
        &dialer(RELAY_ADDR),
        Some(relay_sockets()),
        now,
    );
    (table, now)
}

#[test]
fn an_accepted_circuit_is_relayed_though_its_sender_address_names_no_relay() {
    let (relay, peer) = (PeerId::random(), PeerId::random());
    let (mut table, now) = with_relay(relay);
    let endpoint = ConnectedPoint::Listener {
        local_addr: format!("{RELAY_ADDR}/p2p/{relay}/p2p-circuit")
            .parse()
            .unwrap(),
        send_back_addr: format!("/p2p/{peer}").parse().unwrap(),
    };
    table.handle_established(id(2), peer, &endpoint, None, now);
    table.handle_rtt(id(1), Duration::from_millis(20));
    let path = table.path(id(2)).unwrap();
    assert_eq!(path.kind, PathKind::Relayed);
    assert_eq!(path.relay, Some(relay));
    assert_eq!(path.hops[0].local, Some(relay_sockets().local));
    assert_eq!(path.hops[0].rtt, Some(Duration::from_millis(20)));
    assert_eq!(path.hops[1], Hop::default());
    assert_eq!(table.directs(&peer), 0);
}

#[test]
fn the_far_hop_is_what_the_relay_reports_and_the_near_one_stays_what_is_seen() {
    let (relay, peer) = (PeerId::random(), PeerId::random());
    let (mut table, now) = with_relay(relay);
    let circuit = dialer(&format!("{RELAY_ADDR}/p2p/{relay}/p2p-circuit/p2p/{peer}"));
    table.handle_established(id(2), peer, &circuit, None, now);
    let reported = Hop {
        transport: Some(Transport::Tcp),
        family: Some(p2pnode_transports::Family::Ip6),
        reported_by: Some(crate::core::peers::ReportedBy::Relay),
        ..Hop::default()
    };
    table.handle_far_hop(id(2), reported.clone());
    table.handle_rtt(id(1), Duration::from_millis(20));
    let path = table.path(id(2)).unwrap();
    assert_eq!(path.hops[0].local, Some(relay_sockets().local));
    assert_eq!(path.hops[1], reported);
    assert_eq!(
        serde_json::to_string(&path.hops[1]).unwrap(),
        r#"{"transport":"tcp","family":"ip6","reported_by":"relay"}"#
    );
    table.handle_far_hop(id(1), reported);
    assert_eq!(
        table.path(id(1)).unwrap().hops.len(),
        1,
        "a direct path has no far hop"
    );
}

#[test]
fn a_dialed_circuit_runs_over_the_oldest_connection_to_its_relay() {
    let (relay, peer) = (PeerId::random(), PeerId::random());
    let (mut table, now) = with_relay(relay);
    let tcp = Sockets {
        transport: Transport::Tcp,
        ..relay_sockets()
    };
    table.handle_established(
        id(3),
        relay,
        &dialer("/ip4/203.0.113.10/tcp/443"),
        Some(tcp),
        now,
    );
    table.handle_established(
        id(2),
        peer,
        &dialer(&format!(
            "/ip4/203.0.113.10/tcp/443/p2p/{relay}/p2p-circuit/p2p/{peer}"
        )),
        None,
        now,
    );
    assert_eq!(
        table.path(id(2)).unwrap().hops[0].transport,
        Some(Transport::Quic)
    );
    assert_eq!(table.connection(id(2)).unwrap().via, Some(id(1)));
}

#[test]
fn the_best_path_is_the_direct_one_until_it_closes() {
    let (relay, peer) = (PeerId::random(), PeerId::random());
    let (mut table, now) = with_relay(relay);
    let circuit = dialer(&format!("{RELAY_ADDR}/p2p/{relay}/p2p-circuit/p2p/{peer}"));
    table.handle_established(id(2), peer, &circuit, None, now);
    table.handle_established(
        id(3),
        peer,
        &dialer("/ip4/198.51.100.7/udp/51234/quic-v1"),
        None,
        now + Duration::from_secs(1),
    );
    assert_eq!(table.best(&peer), Some(id(3)));
    assert_eq!(table.handle_closed(id(3)).unwrap().peer, peer);
    assert_eq!(table.best(&peer), Some(id(2)));
    table.handle_closed(id(2));
    assert_eq!(table.best(&peer), None);
    assert!(table.connections_of(&peer).is_empty());
}

/// A table with two circuits to a peer over two relays, 2 and 3, both of which have a leg with 1 and 4.
fn with_two_circuits() -> (PeerTable, PeerId) {
    let (relay, other, peer) = (PeerId::random(), PeerId::random(), PeerId::random());
    let (mut table, now) = with_relay(relay);
    let second = "/ip4/203.0.113.11/udp/443/quic-v1";
    table.handle_established(id(4), other, &dialer(second), None, now);
    for (number, relay, address) in [(2, relay, RELAY_ADDR), (3, other, second)] {
        let circuit = format!("{address}/p2p/{relay}/p2p-circuit/p2p/{peer}");
        let now = now + Duration::from_secs(number);
        let id = id(usize::try_from(number).unwrap());
        table.handle_established(id, peer, &dialer(&circuit), None, now);
    }
    (table, peer)
}

fn hop(family: Family) -> Hop {
    Hop {
        family: Some(family),
        ..Hop::default()
    }
}

#[test]
fn the_path_in_use_stays_until_another_is_better_by_more_than_jitter() {
    let (mut table, peer) = with_two_circuits();
    assert_eq!(table.best(&peer), Some(id(2)), "the older");
    let millis = Duration::from_millis;
    table.handle_rtt(id(2), millis(19));
    for (rtt, best) in [(21, 2), (14, 2), (11, 2), (9, 3)] {
        table.handle_rtt(id(3), millis(rtt));
        assert_eq!(table.best(&peer), Some(id(best)), "after {rtt} ms");
    }
    // Nor does it move back because its own round trip has become a little longer.
    table.handle_rtt(id(3), millis(24));
    assert_eq!(table.best(&peer), Some(id(3)));
    assert_eq!(
        table.ranked(&peer)[0].1,
        id(3),
        "the one in use is the first"
    );
}

#[test]
fn a_missed_ping_moves_the_path_and_an_answered_one_does_not_move_it_back() {
    let (mut table, peer) = with_two_circuits();
    table.handle_missed(id(2));
    assert_eq!(table.best(&peer), Some(id(3)));
    table.handle_rtt(id(2), Duration::from_millis(4));
    table.handle_rtt(id(3), Duration::from_millis(4));
    assert_eq!(table.best(&peer), Some(id(3)));
    table.handle_missed(id(3));
    assert_eq!(table.best(&peer), Some(id(2)));
    table.handle_missed(id(2));
    assert!(
        table.best(&peer).is_some(),
        "a bad path is better than none"
    );
    table.handle_closed(id(2));
    table.handle_closed(id(3));
    assert_eq!(table.best(&peer), None);
}

#[test]
fn a_relay_that_changes_the_family_is_the_last_choice() {
    let (mut table, peer) = with_two_circuits();
    table.handle_rtt(id(2), Duration::from_millis(4));
    table.handle_far_hop(id(2), hop(Family::Ip6));
    assert_eq!(
        table.best(&peer),
        Some(id(3)),
        "what is unknown counts as matched"
    );
    table.handle_far_hop(id(3), hop(Family::Ip4));
    assert_eq!(table.best(&peer), Some(id(3)));
    let ranked = table.ranked(&peer);
    assert_eq!(
        ranked[0].0.decided_by(&ranked[1].0),
        Some(Axis::BridgesFamilies)
    );
}

#[test]
fn a_circuit_is_asked_for_in_the_family_then_on_a_leg_that_has_answered_then_by_round_trip() {
    let (mut table, now) = with_relay(PeerId::random());
    let addr: Multiaddr = RELAY_ADDR.parse().unwrap();
    for number in 2..4 {
        table.handle_established(id(number), PeerId::random(), &dialer(RELAY_ADDR), None, now);
    }
    let leg = |number, family, is_ready| Up {
        addr: &addr,
        family,
        connection: id(number),
        is_ready,
    };
    let best = |table: &PeerTable, legs: [Up<'_>; 2]| {
        table.best_leg(legs.into_iter()).map(|leg| leg.connection)
    };
    let (ip4, ip6) = (Family::Ip4, Family::Ip6);
    table.handle_rtt(id(2), Duration::from_millis(40));
    table.handle_rtt(id(3), Duration::from_millis(4));
    let both = [leg(2, ip4, true), leg(3, ip6, true)];
    assert_eq!(best(&table, both), Some(id(3)), "the shorter round trip");
    let unready = [leg(2, ip4, true), leg(3, ip6, false)];
    assert_eq!(best(&table, unready), Some(id(2)), "it has answered");
    table.policy = FamilyPolicy::PreferIp4;
    assert_eq!(best(&table, both), Some(id(2)), "the configured family");
    let unready = [leg(2, ip4, false), leg(3, ip6, true)];
    assert_eq!(best(&table, unready), Some(id(2)));
    assert_eq!(table.best_leg(std::iter::empty()), None);
}

#[test]
fn a_dialed_circuit_that_changes_families_is_reported_if_the_far_one_may_be_used() {
    let (relay, peer) = (PeerId::random(), PeerId::random());
    let (mut table, now) = with_relay(relay);
    let circuit = format!("{RELAY_ADDR}/p2p/{relay}/p2p-circuit/p2p/{peer}");
    table.handle_established(id(2), peer, &dialer(&circuit), None, now);
    assert_eq!(table.bridged(&peer), None, "the far hop is unknown");
    table.handle_far_hop(id(2), hop(Family::Ip4));
    assert_eq!(table.bridged(&peer), None);
    table.handle_far_hop(id(2), hop(Family::Ip6));
    assert_eq!(table.bridged(&peer), Some((relay, Family::Ip6)));
    table.policy = FamilyPolicy::OnlyIp4;
    assert_eq!(table.bridged(&peer), None);
}
