//! Which connections are refused, and in which order the reasons come.

use super::*;
use crate::{config::PerSource, core::denied::Denied};

fn begin(
    relay: &mut Relay,
    connection: usize,
    from: &Multiaddr,
) -> Result<Option<ConnectionId>, Denied> {
    relay
        .state
        .handle_incoming(id(connection), from, || Some(1), relay.now)
}

#[test]
fn handshakes_are_bounded_in_all_and_each_that_ends_makes_room() {
    let mut relay = Relay::limited(Limits {
        pending_connections: 4,
        ..Limits::UNLIMITED
    });
    let quic = addr("/ip4/198.51.100.9/udp/9/quic-v1");
    for number in 1..=3 {
        assert_eq!(begin(&mut relay, number, &host(number as u8)), Ok(None));
    }
    let full = begin(&mut relay, 4, &host(4));
    assert!(matches!(full, Err(Denied::Handshakes(..))), "{full:?}");
    let text = full.unwrap_err().to_string();
    assert!(
        text.contains("TCP") && text.contains("limits.pending_connections"),
        "{text}"
    );
    assert_eq!(begin(&mut relay, 5, &quic), Ok(None));
    assert!(begin(&mut relay, 6, &quic).is_err());
    relay.state.handle_incoming_failed(id(1));
    assert_eq!(begin(&mut relay, 7, &host(7)), Ok(None));
    relay.connect(2, PeerId::random(), 2);
    assert_eq!(begin(&mut relay, 8, &host(8)), Ok(None));
    // Two of one source, of which the older one goes for somebody else.
    relay.state.handle_incoming_failed(id(3));
    assert_eq!(begin(&mut relay, 9, &host(8)), Ok(None));
    assert_eq!(begin(&mut relay, 10, &host(9)), Ok(Some(id(8))));
}

#[test]
fn a_source_that_has_its_connections_is_spared_the_handshake_and_refused_after_one() {
    let mut relay = Relay::limited(Limits {
        connections_per_source: PerSource { ip4: 1, ip6_net: 1 },
        pending_connections: 4,
        ..Limits::UNLIMITED
    });
    let [one, two] = peers();
    // Both begin while neither counts.
    assert_eq!(begin(&mut relay, 1, &host(1)), Ok(None));
    assert_eq!(begin(&mut relay, 2, &host(1)), Ok(None));
    assert_eq!(
        relay
            .state
            .handle_authenticated(&one, Some(&host(1)), relay.now),
        Ok(())
    );
    relay.connect(1, one, 1);
    let full = relay
        .state
        .handle_authenticated(&two, Some(&host(1)), relay.now);
    assert!(
        matches!(full, Err(Denied::SourceConnections(_))),
        "{full:?}"
    );
    relay.state.handle_incoming_failed(id(2));
    for number in 3..20 {
        let full = begin(&mut relay, number, &host(1));
        assert!(
            matches!(full, Err(Denied::SourceConnections(_))),
            "{full:?}"
        );
    }
    assert_eq!(
        begin(&mut relay, 20, &host(2)),
        Ok(None),
        "they hold nothing"
    );
    relay.close(1, one);
    assert_eq!(
        relay
            .state
            .handle_authenticated(&two, Some(&host(1)), relay.now),
        Ok(())
    );
}

#[test]
fn a_full_relay_closes_a_connection_without_reservation_and_circuit_for_a_newcomer() {
    let mut relay = Relay::limited(Limits {
        connections: 4,
        ..Limits::UNLIMITED
    });
    let [caller, idle] = peers();
    let member = relay.member(1, 1);
    relay.connect(2, caller, 1);
    relay.open(2, caller, member);
    relay.connect(3, idle, 1);
    relay.member(4, 1);
    relay.actions();
    let admit = |relay: &mut Relay| {
        let (peer, from, now) = (PeerId::random(), host(2), relay.now);
        relay.state.handle_authenticated(&peer, Some(&from), now)
    };
    assert_eq!(admit(&mut relay), Ok(()));
    assert_eq!(relay.actions(), [Action::Close(id(3))]);
    // The rest is in use.
    relay.connect(5, PeerId::random(), 2);
    relay.close(3, idle);
    assert_eq!(admit(&mut relay), Err(Denied::Connections));
}

#[test]
fn memory_is_measured_before_anything_else_and_refuses_only_what_is_new() {
    let mut relay = Relay::limited(Limits {
        memory: 100,
        pending_connections: 1,
        ..Limits::UNLIMITED
    });
    let member = relay.member(1, 1);
    let now = relay.now;
    let refused = relay
        .state
        .handle_incoming(id(2), &host(2), || Some(101), now);
    assert!(matches!(refused, Err(Denied::Memory { .. })), "{refused:?}");
    assert!(relay.reserve(1, member).unwrap().renewed);
}

#[test]
fn a_connection_that_misses_two_pings_is_closed() {
    let mut relay = Relay::new(Settings::default());
    let peer = relay.member(1, 1);
    relay.actions();
    relay.state.handle_missed_pings(peer, id(1), 1);
    assert_eq!(relay.actions(), []);
    relay.state.handle_missed_pings(peer, id(1), 2);
    assert_eq!(relay.actions(), [Action::Close(id(1))]);
}

#[test]
fn when_all_are_gone_nothing_is_left() {
    let mut relay = Relay::new(Settings::default());
    let members: Vec<PeerId> = (1..5).map(|number| relay.member(number, 1)).collect();
    let circuit = relay.open(1, members[0], members[1]);
    for (number, peer) in (1..).zip(&members) {
        relay.close(number, *peer);
    }
    relay.state.handle_circuit_ended(circuit, None, relay.now);
    let Totals {
        reservations,
        circuits,
        records,
        translated_peers,
        shared_keys,
    } = relay.state.totals();
    assert_eq!((reservations, circuits, records), (0, 0, 0));
    assert_eq!((translated_peers, shared_keys), (0, 0));
    assert_eq!(relay.state.connection_legs().count(), 0);
    assert!(relay.state.records_awaiting_reservation.is_empty());
    assert_eq!(relay.state.poll_timeout(), None);
}
