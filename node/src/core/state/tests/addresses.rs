//! Where this node is, for neighbours and for relays.

use libp2p::core::transport::ListenerId;
use p2pnode_protocol::mapping;
use p2pnode_transports::HostAddress;

use super::*;
use crate::core::{
    mappings::{Claim, Inside, MappingState, Method},
    state::ListenerEnd,
};

fn reserve(node: &mut Node, relay: &RelayAddr) -> ListenerId {
    let actions = node.actions();
    assert!(
        actions.contains(&Action::Reserve(relay.clone())),
        "{actions:?}"
    );
    let listener = ListenerId::next();
    node.state.handle_reserving(relay, listener);
    let address = relay
        .addr
        .clone()
        .with(Protocol::P2p(relay.peer))
        .with(Protocol::P2pCircuit);
    node.state.handle_listening(listener, address, node.now);
    node.state
        .handle_reserved(relay.peer, Family::Ip4, node.now);
    listener
}

/// A node that holds a reservation.
fn reserved() -> (Node, RelayAddr, ListenerId) {
    let (node, known, _, listener) = reserved_over();
    (node, known, listener)
}

/// The same, with the leg that carries the reservation.
pub(super) fn reserved_over() -> (Node, RelayAddr, ConnectionId, ListenerId) {
    let known = relay(1);
    let mut node = Node::new(Settings {
        reservations: 1,
        ..settings(std::slice::from_ref(&known))
    });
    let leg = node.connect_legs().remove(0);
    node.admit(leg);
    let listener = reserve(&mut node, &known);
    (node, known, leg.0, listener)
}

/// The record that is being registered. Whatever is asked for is answered: no relay has one of an earlier run.
fn registered(node: &mut Node) -> Option<Vec<Multiaddr>> {
    let mut record = None;
    loop {
        let actions = node.actions();
        let queries: Vec<_> = actions
            .into_iter()
            .filter_map(|action| {
                if let Action::LookUp { query, .. } = action {
                    return Some((query, None));
                }
                registration(&action).map(|(query, addrs)| (query, Some(addrs)))
            })
            .collect();
        if queries.is_empty() {
            return record;
        }
        for (query, addrs) in queries {
            match addrs {
                None => node.state.handle_lookup_ended(query, node.now),
                Some(addrs) => {
                    record = Some(addrs);
                    node.state.handle_registered(query, true, node.now);
                }
            }
        }
    }
}

fn registration(action: &Action) -> Option<(QueryId, Vec<Multiaddr>)> {
    let Action::Register { query, addrs, .. } = action else {
        return None;
    };
    Some((*query, addrs.clone()))
}

fn announced(actions: &[Action]) -> Option<&[Multiaddr]> {
    actions.iter().rev().find_map(|action| {
        let Action::Announce(addrs) = action else {
            return None;
        };
        Some(addrs.as_slice())
    })
}

#[test]
fn neighbours_and_relays_both_get_each_change_of_the_addresses() {
    let (mut node, ..) = reserved();
    registered(&mut node).unwrap();
    for port in [443, 444] {
        let public: Multiaddr = format!("/ip4/198.51.100.7/tcp/{port}").parse().unwrap();
        let listener = ListenerId::next();
        node.state
            .handle_listening(listener, public.clone(), node.now);
        let actions = node.actions();
        assert!(announced(&actions).unwrap().contains(&public));
        let (query, addrs) = actions.iter().find_map(registration).unwrap();
        assert!(addrs.contains(&public));
        node.state.handle_registered(query, true, node.now);
        node.actions();
        node.pass(Duration::from_secs(1));
        assert_eq!(node.actions(), [], "nothing has changed since");
        node.state
            .handle_listen_expired(listener, &public, node.now);
        let actions = node.actions();
        assert!(!announced(&actions).unwrap().contains(&public));
        let (query, addrs) = actions.iter().find_map(registration).unwrap();
        assert!(!addrs.contains(&public));
        node.state.handle_registered(query, true, node.now);
    }
}

#[test]
fn the_record_is_registered_where_a_reservation_is_held_and_names_it() {
    let (mut node, known, _) = reserved();
    let record = registered(&mut node).unwrap();
    assert!(
        record.iter().all(is_circuit) && record.len() == 1,
        "{record:?}"
    );
    let names = |part| part == Protocol::P2p(known.peer);
    assert!(record[0].iter().any(names), "{record:?}");
}

#[test]
fn the_interfaces_are_offered_at_the_punch_ports_of_their_families_also_if_those_come_later() {
    let mut node = Node::new(settings(&[]));
    node.actions();
    node.state.handle_punch_ports(BTreeMap::new(), node.now);
    let ip: std::net::IpAddr = "10.0.0.7".parse().unwrap();
    node.state
        .handle_interfaces(BTreeSet::from([HostAddress::plain(ip, 32)]), node.now);
    let offered = |node: &mut Node| {
        let mut actions = node.actions().into_iter().rev();
        let last = actions.find_map(|action| {
            let Action::SetInterfaces {
                addresses: addrs, ..
            } = action
            else {
                return None;
            };
            Some(addrs)
        });
        last.unwrap()
    };
    assert_eq!(offered(&mut node), []);
    let ports = [
        ((Transport::Tcp, Family::Ip4), 40_001),
        ((Transport::Tcp, Family::Ip6), 40_002),
    ];
    node.state
        .handle_punch_ports(BTreeMap::from(ports), node.now);
    let expected: Multiaddr = "/ip4/10.0.0.7/tcp/40001".parse().unwrap();
    assert_eq!(offered(&mut node), [expected]);
}

#[test]
fn a_node_that_leaves_withdraws_its_record_and_does_nothing_else() {
    let (mut node, known, _) = reserved();
    registered(&mut node).unwrap();
    assert!(node.state.has_withdrawn());
    node.state.handle_dial(request(PeerId::random()), node.now);
    node.state.handle_shutdown();
    let actions = node.actions();
    let [
        Action::Register {
            query,
            relay,
            addrs,
        },
    ] = &actions[..]
    else {
        panic!("{actions:?}");
    };
    assert_eq!((*relay, addrs.len()), (known.peer, 0));
    assert!(!node.state.has_withdrawn());
    node.state.handle_registered(*query, true, node.now);
    assert!(node.state.has_withdrawn());
    node.pass(Duration::from_secs(60));
    assert_eq!(
        (node.actions(), node.state.poll_timeout()),
        (Vec::new(), None)
    );
}

#[test]
fn the_numbers_of_records_grow_even_if_the_clock_is_set_back() {
    let mut node = Node::new(settings(&[]));
    let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
    assert_eq!(node.state.next_seq(at(9)), 9000);
    assert_eq!(node.state.next_seq(at(3)), 9001);
}

#[test]
fn why_a_relay_gives_no_reservation_is_known_until_it_gives_one() {
    let (mut node, known, listener) = reserved();
    let of = |node: &Node| {
        let failure = node.state.relays().reservation_failure(&known.peer);
        failure.map(str::to_owned)
    };
    assert_eq!(of(&node), None);
    let now = node.now;
    let end = ListenerEnd::Failed("it names no address".to_owned());
    node.state.handle_listener_closed(listener, end, now);
    assert_eq!(of(&node).as_deref(), Some("it names no address"));
    node.pass(Duration::from_secs(2));
    reserve(&mut node, &known);
    assert_eq!(of(&node), None);
}

#[test]
fn the_address_that_leads_to_a_relay_is_offered_first() {
    let known = relay(1);
    let mut node = Node::new(settings(std::slice::from_ref(&known)));
    let ports = [((Transport::Quic, Family::Ip4), 40_001)];
    node.state
        .handle_punch_ports(BTreeMap::from(ports), node.now);
    let to_relay: std::net::IpAddr = "192.168.9.9".parse().unwrap();
    let other = "172.17.0.1".parse().unwrap();
    let interfaces = [to_relay, other].map(|ip| HostAddress::plain(ip, 24));
    node.state.handle_interfaces(interfaces.into(), node.now);
    node.state.addresses.to_relays = [to_relay].into();
    let first = node.state.addresses.at_punch_ports().remove(0);
    assert_eq!(first, "/ip4/192.168.9.9/udp/40001/quic-v1".parse().unwrap());
}

#[test]
fn a_mapping_is_in_the_record_and_offered_from_its_proof_to_its_end() {
    let (mut node, ..) = reserved();
    registered(&mut node).unwrap();
    let ports = BTreeMap::from([((Transport::Quic, Family::Ip4), 40_017)]);
    node.state.handle_punch_ports(ports, node.now);
    node.actions();
    node.events();
    let claim = |port, verified: Option<&str>| Claim {
        inside: Inside {
            protocol: mapping::Protocol::Udp,
            port,
        },
        method: Method::Pcp,
        external: "203.0.113.7:40017".parse().unwrap(),
        verified: verified.map(|at| at.parse().unwrap()),
    };
    let at = "198.51.100.7:40017";
    let mapped: Multiaddr = "/ip4/198.51.100.7/udp/40017/quic-v1".parse().unwrap();
    // A port that is exposed for other programs is no address of this node.
    let exposed = claim(40_018, Some(at));
    for (claims, offered, states) in [
        (
            vec![claim(40_017, None)],
            false,
            vec![MappingState::Claimed],
        ),
        (
            vec![claim(40_017, Some(at))],
            true,
            vec![MappingState::Verified],
        ),
        (
            vec![claim(40_017, None), exposed],
            false,
            vec![
                MappingState::Withdrawn,
                MappingState::Claimed,
                MappingState::Verified,
            ],
        ),
        (
            vec![claim(40_017, Some(at))],
            true,
            vec![MappingState::Lost, MappingState::Verified],
        ),
        (vec![], false, vec![MappingState::Lost]),
    ] {
        node.state.handle_mapped(claims, node.now);
        let actions = node.actions();
        let addrs: Vec<_> = offered.then(|| mapped.clone()).into_iter().collect();
        assert!(actions.contains(&Action::SetMapped(addrs)), "{actions:?}");
        for (query, addrs) in actions.iter().filter_map(registration) {
            assert_eq!(addrs.contains(&mapped), offered, "{addrs:?}");
            node.state.handle_registered(query, true, node.now);
        }
        let record = node.state.registrar.addrs();
        assert_eq!(record.contains(&mapped), offered);
        let events = node.events();
        let mappings = events.iter().filter_map(|event| {
            if let Event::Node(event::Event::Mapping { state, .. }) = event {
                return Some(*state);
            }
            None
        });
        assert_eq!(mappings.collect::<Vec<_>>(), states);
    }
}
