//! Relays that the record of a dialed peer names, and who may connect.

use p2pnode_protocol::directory::Registration;

use super::*;

/// A node that lets only its relay connect and dials a peer whose record names another relay, found at the second address.
fn found() -> (Node, RelayAddr, PeerId) {
    found_at(relay(1), relay(2))
}

/// The same with these two relays.
fn found_at(own: RelayAddr, other: RelayAddr) -> (Node, RelayAddr, PeerId) {
    let key = libp2p::identity::Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let (mut node, _) = Node::with_relays(Settings {
        allowed: Some(BTreeSet::from([own.peer])),
        ..settings(&[own])
    });
    node.state.handle_dial(request(peer), node.now);
    let addrs = [circuit_addr(&other, peer)];
    let record = Registration::sign(&key, 1, &addrs).unwrap();
    let record = Registration::read(&peer.to_bytes(), &record).unwrap();
    let asked = node.actions().into_iter().find_map(|action| {
        let Action::LookUp { query, .. } = action else {
            return None;
        };
        Some(query)
    });
    node.state.handle_record(asked.unwrap(), &record, node.now);
    (node, other, peer)
}

#[test]
fn a_record_leads_to_a_private_address_only_where_a_relay_of_the_own_is_at_one() {
    let at = |addr: &str| RelayAddr {
        addr: addr.parse().unwrap(),
        ..relay(1)
    };
    for (own, other, is_dialed) in [
        ("/ip4/203.0.113.1/tcp/443", "/ip4/203.0.113.2/tcp/443", true),
        ("/ip4/203.0.113.1/tcp/443", "/dns/r.example/tcp/443", true),
        ("/ip4/203.0.113.1/tcp/443", "/ip4/10.0.0.2/tcp/443", false),
        ("/ip4/203.0.113.1/tcp/443", "/ip4/127.0.0.1/tcp/443", false),
        (
            "/ip4/203.0.113.1/tcp/443",
            "/ip6/fd00::2/udp/443/quic-v1",
            false,
        ),
        ("/ip4/10.0.0.1/tcp/443", "/ip4/10.0.0.2/tcp/443", true),
        ("/ip4/10.0.0.1/tcp/443", "/ip4/127.0.0.1/tcp/443", false),
        (
            "/ip4/10.0.0.1/tcp/443",
            "/ip4/169.254.169.254/tcp/80",
            false,
        ),
    ] {
        let (mut node, other_relay, _) = found_at(at(own), at(other));
        let dials = node.actions().into_iter().any(|action| {
            matches!(action, Action::Dial { purpose: Purpose::FoundLeg(of), .. } if of == other_relay.peer)
        });
        assert_eq!(dials, is_dialed, "{own} and {other}");
    }
}

#[test]
fn a_name_in_a_record_leads_where_an_address_may_and_a_configured_relay_anywhere() {
    let at = |addr: &str| RelayAddr {
        addr: addr.parse().unwrap(),
        ..relay(1)
    };
    let [near, private] = [false, true].map(|private| Reach {
        private,
        host: false,
    });
    for (own, expected) in [
        ("/ip4/203.0.113.1/tcp/443", near),
        ("/ip4/10.0.0.1/tcp/443", private),
    ] {
        let (mut node, other, _) = found_at(at(own), at("/dns/r.example/udp/443/quic-v1"));
        let found = node.actions().into_iter().find_map(|action| {
            let Action::Dial { purpose, reach, .. } = action else {
                return None;
            };
            (purpose == Purpose::FoundLeg(other.peer)).then_some(reach?)
        });
        assert_eq!(found, Some(expected), "{own}");
        node.state.handle_timeout(node.now);
        let legs = node.actions().into_iter().filter(|action| {
            matches!(
                action,
                Action::Dial {
                    purpose: Purpose::Leg(_),
                    reach: Some(_),
                    ..
                }
            )
        });
        assert_eq!(legs.count(), 0);
    }
}

#[test]
fn a_relay_that_a_record_names_may_connect_while_it_is_dialed_and_no_longer_if_it_is_not_there() {
    let (mut node, other, _) = found();
    assert!(!node.state.relays().is_configured(&other.peer));
    let actions = node.actions();
    let allowed = actions
        .iter()
        .position(|action| *action == Action::Allow(other.peer));
    let dialed = actions.iter().position(|action| {
        matches!(action, Action::Dial { purpose: Purpose::FoundLeg(of), .. } if *of == other.peer)
    });
    assert!(allowed.unwrap() < dialed.unwrap(), "{actions:?}");
    assert!(node.state.is_allowed(&other.peer));
    let id = node.next_id();
    node.state.handle_dialing(id, Purpose::FoundLeg(other.peer));
    let silent = failure(CircuitFailure::Broken, "no answer");
    node.state.handle_dial_failed(id, silent, node.now);
    assert!(node.actions().contains(&Action::Disallow(other.peer)));
    assert!(!node.state.is_allowed(&other.peer));
}

#[test]
fn a_relay_that_a_record_names_may_connect_until_its_last_connection_closes() {
    let (mut node, other, _) = found();
    let (id, addresses, _) = node.dials().remove(0);
    node.dialed(id, other.peer, &addresses[0]);
    let second = node.accepted(other.peer, "/ip4/203.0.113.2/tcp/50001");
    node.closed(id, other.peer, Ended::Broken);
    assert!(!node.actions().contains(&Action::Disallow(other.peer)));
    node.closed(second, other.peer, Ended::Broken);
    assert!(node.actions().contains(&Action::Disallow(other.peer)));
}

#[test]
fn the_circuit_waits_for_the_relay_and_goes_over_the_connection_that_this_node_has_made() {
    let (mut node, other, peer) = found();
    // The relay has dialed this node: its address there is a stranger's port.
    node.accepted(other.peer, "/ip4/203.0.113.2/tcp/50001");
    let (id, addresses, purpose) = node.dials().remove(0);
    assert_eq!(purpose, Purpose::FoundLeg(other.peer));
    assert_eq!(addresses, std::slice::from_ref(&other.addr));
    node.dialed(id, other.peer, &other.addr);
    let (_, addresses, purpose) = node.dials().remove(0);
    let relay = other.peer;
    assert_eq!(purpose, Purpose::Circuit { peer, relay });
    assert_eq!(addresses, [circuit_addr(&other, peer)]);
}

#[test]
fn a_circuit_whose_relay_cannot_be_reached_fails_with_the_relay_named() {
    let (mut node, other, _) = found();
    let dials = node.dials();
    let (id, _, _) = dials
        .iter()
        .find(|(_, _, purpose)| *purpose == Purpose::FoundLeg(other.peer))
        .unwrap();
    let silent = failure(CircuitFailure::Broken, "no answer");
    node.state.handle_dial_failed(*id, silent, node.now);
    node.pass(Duration::from_secs(31));
    let reason = node.results()[0].reason.clone().unwrap().to_string();
    let expected = format!("relay {}: no answer", other.peer);
    assert!(reason.contains(&expected), "{reason}");
}
