//! Searches for ports: when they begin, and what they do to dials.

use p2pnode_protocol::{hop::HopReply, introduction::Notice, port_search::Offer};

use super::*;
use crate::{
    core::port_search::{self, Begin, Counts, Sample, SearchOutcome},
    punch::{
        self, CandidateOutcome, CandidateRecord, Reason, Record, Role,
        record::Outcome as PunchOutcome,
    },
};

const THEIRS: &str = "203.0.113.2";

/// A node that has dialed a peer over its relay.
fn relayed() -> (Node, RelayAddr, PeerId, ConnectionId) {
    let (known, peer) = (relay(1), PeerId::random());
    let (mut node, _) = Node::with_relays(settings(std::slice::from_ref(&known)));
    let circuit = node.dial_relayed(peer);
    node.actions();
    node.events();
    (node, known, peer, circuit)
}

/// A punch over the circuit has failed, in which the peer has listed its address.
fn attempt(peer: PeerId, circuit: ConnectionId, role: Role) -> punch::Event {
    punch::Event::Attempt(Box::new(Record {
        peer,
        circuit: Some(circuit),
        found: false,
        role,
        attempt: 1,
        locals: Vec::new(),
        sent: Vec::new(),
        received: vec![CandidateRecord {
            addr: format!("/ip4/{THEIRS}/udp/40000/quic-v1").parse().unwrap(),
            outcome: CandidateOutcome::Timeout,
        }],
        skipped: 0,
        rtt: None,
        took: Duration::from_secs(4),
        outcome: PunchOutcome::Failed(Reason::Timeout),
        via: None,
    }))
}

fn sample(is_hard: bool) -> Option<Sample> {
    let at = |port| SocketAddr::from(([203, 0, 113, 1], port));
    Some(Sample {
        punch: vec![at(7), at(if is_hard { 8 } else { 7 })],
        ports: vec![
            (40001, 5_000),
            (40002, 60_000),
            (40003, 9_000),
            (40004, 30_000),
        ],
        free: 40,
    })
}

fn offer(nonce: &str, answers: Option<&Offer>, ports: &str) -> Offer {
    let mut json = serde_json::json!({
        "nonce": nonce.repeat(32),
        "side": { "mapped": format!("{THEIRS}:40000"), "sockets": 40 },
    });
    if let Some(offer) = answers {
        json["answers"] = offer.nonce.to_string().into();
    }
    if !ports.is_empty() {
        json["side"]["ports"] = serde_json::json!({ "kind": ports });
    }
    serde_json::from_value(json).unwrap()
}

fn notice(peer: PeerId, offer: Offer) -> Notice {
    Notice {
        peer,
        introduction: Default::default(),
        search: Some(offer),
    }
}

/// The only offer among these actions.
fn offered(actions: &[Action]) -> Option<Offer> {
    let mut offers = actions.iter().filter_map(|action| {
        let Action::OfferSearch(ask, _) = action else {
            return None;
        };
        Some(ask.offer)
    });
    offers.next()
}

fn begun(actions: &[Action]) -> Option<Begin> {
    let mut begun = actions.iter().filter_map(|action| {
        let Action::SearchPorts(begin) = action else {
            return None;
        };
        Some(begin.clone())
    });
    begun.next()
}

#[test]
fn after_a_failed_punch_the_side_that_dialed_asks_and_its_dial_waits_for_the_end() {
    let (mut node, known, peer, circuit) = relayed();
    let failed = attempt(peer, circuit, Role::Responder);
    node.state.handle_punch(failed, node.now);
    assert!(node.actions().contains(&Action::SamplePorts(known.peer)));
    node.state.handle_port_sample(sample(true), node.now);
    let own = offered(&node.actions()).unwrap();
    assert_eq!(own.side.sockets, 40);

    let gave_up = punch::Event::GaveUp {
        peer,
        reason: Reason::Timeout,
        attempts: 3,
        retry_in: None,
    };
    node.state.handle_punch(gave_up, node.now);
    let nothing = HopReply::Unsupported;
    node.state.handle_hop_reply(circuit, &nothing, node.now);
    node.ping_best(peer);
    assert!(node.results().is_empty(), "the search may find a path");

    let answer = notice(peer, offer("a", Some(&own), ""));
    node.state.handle_introduction(known.peer, answer, node.now);
    let begin = begun(&node.actions()).unwrap();
    assert_eq!(begin.peer, peer);

    let (ended, counts) = (port_search::Ended::NotFound, Counts::default());
    node.state
        .handle_ports_searched(peer, ended, counts, None, node.now);
    let events = node.events();
    let searched = |event: &Event| matches!(event, Event::Searched(report) if report.outcome == SearchOutcome::NotFound);
    assert!(events.iter().any(searched));
    node.ping_best(peer);
    assert_eq!(node.results().len(), 1);
}

#[test]
fn an_offer_counts_only_if_the_peer_lists_that_address_over_the_circuit_too() {
    let (mut node, known, peer, circuit) = relayed();
    let other = notice(peer, offer("a", None, "random"));
    node.state
        .handle_introduction(known.peer, other.clone(), node.now);
    assert!(!node.actions().contains(&Action::SamplePorts(known.peer)));
    // The attempt ends a moment later on this side.
    let failed = attempt(peer, circuit, Role::Initiator);
    node.state.handle_punch(failed, node.now);
    assert!(node.actions().contains(&Action::SamplePorts(known.peer)));
    node.state.handle_port_sample(sample(false), node.now);
    let actions = node.actions();
    assert!(offered(&actions).unwrap().answers.is_some() && begun(&actions).is_some());

    // A peer without a circuit is not searched for.
    let stranger = notice(PeerId::random(), offer("b", None, "random"));
    let (mut node, known, ..) = relayed();
    node.state
        .handle_introduction(known.peer, stranger, node.now);
    assert!(!node.actions().contains(&Action::SamplePorts(known.peer)));
}

#[test]
fn with_search_off_nothing_is_asked_and_nothing_answered() {
    let (known, peer) = (relay(1), PeerId::random());
    let (mut node, _) = Node::with_relays(Settings {
        searches: false,
        ..settings(std::slice::from_ref(&known))
    });
    let circuit = node.dial_relayed(peer);
    node.state
        .handle_punch(attempt(peer, circuit, Role::Responder), node.now);
    let other = notice(peer, offer("a", None, "random"));
    node.state.handle_introduction(known.peer, other, node.now);
    assert!(!node.actions().contains(&Action::SamplePorts(known.peer)));
}
