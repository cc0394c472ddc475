//! Circuits that bridge two IP families.

use p2pnode_protocol::hop::{HopReply, Leg};

use super::*;
use crate::punch::{self, Reason};

/// A relay with a leg in either family.
fn dual() -> [RelayAddr; 2] {
    let ip4 = relay(1);
    let ip6 = RelayAddr {
        peer: ip4.peer,
        addr: "/ip6/2001:db8::1/udp/443/quic-v1".parse().unwrap(),
    };
    [ip4, ip6]
}

fn over_ip6() -> HopReply {
    HopReply::Leg(Leg {
        transport: Transport::Quic,
        family: Family::Ip6,
        rtt: Some(Duration::from_millis(20)),
        near: Default::default(),
        seen: Vec::new(),
    })
}

/// A node with a circuit over the IPv4 leg of its relay. The relay has reported that it reaches the peer over IPv6.
fn bridged(punches: bool) -> (Node, [RelayAddr; 2], PeerId, ConnectionId) {
    let (relays, peer) = (dual(), PeerId::random());
    let (mut node, _) = Node::with_relays(Settings {
        family: FamilyPolicy::PreferIp4,
        punches,
        ..settings(&relays)
    });
    node.state.handle_dial(request(peer), node.now);
    let (circuit, addresses, _) = node.dials().remove(0);
    assert_eq!(addresses, [circuit_addr(&relays[0], peer)]);
    node.dialed(circuit, peer, &addresses[0]);
    let is_asked =
        |action: &Action| matches!(action, Action::AskHop(asked, _) if asked.connection == circuit);
    assert!(node.actions().iter().any(is_asked));
    node.state.handle_hop_reply(circuit, &over_ip6(), node.now);
    (node, relays, peer, circuit)
}

#[test]
fn a_circuit_that_bridges_families_is_made_again_in_the_far_one_when_the_punch_is_given_up() {
    let (mut node, relays, peer, circuit) = bridged(true);
    assert!(node.dials().is_empty(), "the punch comes first");
    node.state.handle_punch(
        punch::Event::GaveUp {
            peer,
            reason: Reason::SymmetricBoth,
            attempts: 3,
            retry_in: Some(Duration::from_secs(30)),
        },
        node.now,
    );
    let dials = node.dials();
    let (id, addresses, purpose) = &dials[0];
    assert_eq!(*purpose, Purpose::SameFamilyCircuit(peer));
    assert_eq!(*addresses, [circuit_addr(&relays[1], peer)]);
    let next = node.state.next_punch(&peer);
    assert_eq!(next, Some(node.now + Duration::from_secs(30)));
    node.dialed(*id, peer, &addresses[0]);
    assert!(node.actions().contains(&Action::Close(circuit)));
}

#[test]
fn where_nothing_punches_it_is_made_again_as_soon_as_the_relay_has_answered() {
    let (mut node, relays, peer, _) = bridged(false);
    let dials = node.dials();
    assert_eq!(dials[0].1, [circuit_addr(&relays[1], peer)]);
    node.ping_best(peer);
    assert_eq!(node.results(), [], "the dial waits for the far hop");
    let refused = failure(CircuitFailure::Refused, "full");
    node.state.handle_dial_failed(dials[0].0, refused, node.now);
    assert_eq!(node.results().len(), 1, "the circuit stays as it is");
}

#[test]
fn without_a_leg_of_the_far_family_the_circuit_stays() {
    let peer = PeerId::random();
    let (mut node, _) = Node::with_relays(Settings {
        punches: false,
        ..settings(&[relay(1)])
    });
    let circuit = node.dial_relayed(peer);
    node.ping_best(peer);
    node.state.handle_hop_reply(circuit, &over_ip6(), node.now);
    assert!(node.dials().is_empty());
    let results = node.results();
    assert!(results[0].path.as_ref().unwrap().bridges_families());
}

#[test]
fn a_circuit_goes_over_the_leg_that_has_identified_itself() {
    let (relays, peer) = (dual(), PeerId::random());
    let mut node = Node::new(Settings {
        family: FamilyPolicy::PreferIp4,
        ..settings(&relays)
    });
    let legs = node.connect_legs();
    // Both are up; the less preferred one has answered first.
    node.admit(legs[1]);
    node.actions();
    node.state.handle_dial(request(peer), node.now);
    assert_eq!(node.dials()[0].1, [circuit_addr(&relays[1], peer)]);
}
