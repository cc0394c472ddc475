//! Dials: their pings, the places where their peers may be, and their end.

use std::net::IpAddr;

use libp2p::core::transport::ListenerId;

use super::*;
use crate::core::{
    dialer::{Candidate, Standing},
    event::FoundBy,
};

const DNS: Sources = Sources {
    dns: true,
    mdns: false,
};

fn candidate(last: u8) -> Candidate {
    let addr: Multiaddr = format!("/ip4/10.0.0.{last}/tcp/443").parse().unwrap();
    Candidate {
        host: to_socket_addr(&addr).unwrap(),
        addrs: vec![addr],
        by: FoundBy::Dns,
        standing: Standing::New,
    }
}

/// A node without relays that looks for a peer in the DNS.
fn searching() -> (Node, PeerId) {
    let peer = PeerId::random();
    let mut node = Node::new(Settings {
        sources: DNS,
        ..settings(&[])
    });
    node.actions();
    node.state.handle_dial(request(peer), node.now);
    assert!(node.actions().contains(&Action::Search(peer)));
    (node, peer)
}

fn hosts(node: &mut Node) -> Vec<SocketAddr> {
    let dials = node.dials().into_iter();
    dials
        .map(|(_, addresses, _)| to_socket_addr(&addresses[0]).unwrap())
        .collect()
}

#[test]
fn a_place_where_another_peer_has_answered_is_not_dialed_for_a_while() {
    let (mut node, peer) = searching();
    let (other, none) = (PeerId::random(), BTreeSet::new());
    node.state
        .handle_candidates(peer, vec![candidate(5)], &none, node.now);
    let (id, _, purpose) = node.dials().remove(0);
    let host = candidate(5).host;
    assert_eq!(purpose, Purpose::Local { peer, host });
    let failure = DialFailure {
        answered_by: Some(AnsweredBy::Other(other)),
        ..failure(CircuitFailure::Refused, "another peer")
    };
    node.state.handle_dial_failed(id, failure, node.now);
    let next = PeerId::random();
    node.state.handle_dial(request(next), node.now);
    let both = vec![candidate(5), candidate(6)];
    node.state
        .handle_candidates(next, both.clone(), &none, node.now);
    assert_eq!(hosts(&mut node), [candidate(6).host]);
    // The one that is there is found there at once.
    node.state.handle_dial(request(other), node.now);
    node.state.handle_candidates(other, both, &none, node.now);
    assert_eq!(hosts(&mut node), [candidate(5).host]);
}

#[test]
fn a_node_does_not_dial_itself() {
    let (mut node, peer) = searching();
    let listen = "/ip4/0.0.0.0/tcp/443".parse().unwrap();
    node.state
        .handle_listening(ListenerId::next(), listen, node.now);
    let own: IpAddr = "10.0.0.5".parse().unwrap();
    let both = vec![candidate(5), candidate(6)];
    let own = BTreeSet::from([own]);
    node.state.handle_candidates(peer, both, &own, node.now);
    assert_eq!(hosts(&mut node), [candidate(6).host]);
}

#[test]
fn a_search_that_fails_says_why_in_the_result() {
    let (mut node, peer) = searching();
    node.state
        .handle_search_failed(peer, "no resolver", node.now);
    node.state.handle_search_ended(peer, node.now);
    let reason = node.results()[0].reason.clone().unwrap().to_string();
    assert!(reason.contains("no resolver"), "{reason}");
    assert!(node.actions().contains(&Action::EndSearch(peer)));
}

#[test]
fn the_ping_of_a_dial_whose_connection_closes_goes_over_the_next() {
    let peer = PeerId::random();
    let (mut node, _) = Node::with_relays(Settings {
        punches: false,
        ..settings(&[relay(1)])
    });
    let first = node.dial_relayed(peer);
    let ping = |connection| Action::Ping { peer, connection };
    assert!(node.actions().contains(&ping(first)));
    let second = node.accepted(peer, "/ip4/192.0.2.7/tcp/40000");
    node.closed(first, peer, Ended::Broken);
    assert!(node.actions().contains(&ping(second)));
    node.ping(peer, second, true);
    assert_eq!(node.results().len(), 1);
}

#[test]
fn an_answer_over_a_relayed_path_says_nothing_of_the_direct_one_that_took_its_place() {
    let peer = PeerId::random();
    let (mut node, _) = Node::with_relays(Settings {
        punches: false,
        ..settings(&[relay(1)])
    });
    let circuit = node.dial_relayed(peer);
    node.actions();
    let direct = node.accepted(peer, "/ip4/192.0.2.7/tcp/40000");
    node.ping(peer, circuit, true);
    assert_eq!(node.results(), []);
    let connection = direct;
    assert!(node.actions().contains(&Action::Ping { peer, connection }));
}

#[test]
fn a_dial_that_nobody_waits_for_any_more_reports_nothing() {
    let (mut node, peer) = searching();
    let dial = node.state.handle_dial(request(peer), node.now);
    node.events();
    node.state.handle_dial_abandoned(dial, node.now);
    assert_eq!(node.events(), [], "another one of the peer goes on");
    assert!(!node.actions().contains(&Action::EndSearch(peer)));
    node.pass(Duration::from_secs(31));
    assert_eq!(node.results().len(), 1);
    assert!(node.actions().contains(&Action::EndSearch(peer)));
}

#[test]
fn a_dial_that_reached_nothing_ends_the_count_of_the_time_to_a_direct_path() {
    let (mut node, peer) = searching();
    assert!(node.events().contains(&Event::Wanted(peer)));
    node.pass(Duration::from_secs(31));
    assert!(node.events().contains(&Event::Unwanted(peer)));
}

#[test]
fn a_dial_of_a_peer_that_is_connected_already_ends_with_a_ping_over_that_connection() {
    let (mut node, peer) = (Node::new(settings(&[])), PeerId::random());
    let open = node.accepted(peer, "/ip4/192.0.2.7/tcp/40000");
    node.state.handle_dial(request(peer), node.now);
    node.ping(peer, open, true);
    assert_eq!(node.results()[0].found_by, Some(FoundBy::Open));
}

#[test]
fn a_dial_that_left_from_outside_of_the_range_is_reported() {
    let (mut node, peer) = (Node::new(settings(&[])), PeerId::random());
    let address = "/ip4/192.0.2.7/tcp/443".parse().unwrap();
    let id = node.next_id();
    node.state.handle_dialing(id, Purpose::Direct(peer));
    let local = Some("10.0.0.1:50000".parse().unwrap());
    node.established(id, peer, &address, local);
    assert!(node.events().contains(&Event::OutOfRange));
    let id = node.next_id();
    node.state.handle_dialing(id, Purpose::Direct(peer));
    node.dialed(id, peer, &address);
    assert!(!node.events().contains(&Event::OutOfRange));
}

#[test]
fn a_peer_that_refuses_and_was_never_reached_is_known_with_the_reason_until_it_answers() {
    let known = relay(1);
    let peer = PeerId::random();
    let (mut node, _) = Node::with_relays(settings(std::slice::from_ref(&known)));
    node.state.handle_dial(request(peer), node.now);
    for _ in 0..2 {
        let dials = node.dials();
        let of =
            |purpose: &Purpose| matches!(purpose, Purpose::Circuit { peer: of, .. } if *of == peer);
        let (id, addresses, _) = dials.iter().find(|dial| of(&dial.2)).unwrap();
        node.dialed(*id, peer, &addresses[0]);
        node.closed(*id, peer, Ended::Theirs);
    }
    let reason = node.results()[0].reason.clone().unwrap().to_string();
    assert!(reason.contains(&node.state.local().to_string()), "{reason}");
    let refused: Vec<_> = node.state.refusals().collect();
    assert_eq!(refused.len(), 1);
    assert_eq!((*refused[0].0, &refused[0].1.reason), (peer, &reason));
    let connection = node.accepted(peer, "/ip4/192.0.2.7/tcp/40000");
    assert_eq!(node.state.refusals().count(), 0, "it is connected");
    node.ping(peer, connection, true);
    node.closed(connection, peer, Ended::Theirs);
    assert_eq!(node.state.refusals().count(), 0, "it has answered");
}
