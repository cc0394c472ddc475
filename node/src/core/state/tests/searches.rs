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

/// A node whose range a relay has looked at, and that has dialed a peer over it.
fn relayed(is_hard: bool) -> (Node, RelayAddr, PeerId, ConnectionId) {
    let (known, peer) = (relay(1), PeerId::random());
    let (mut node, _) = Node::with_relays(settings(std::slice::from_ref(&known)));
    node.state.handle_port_sample(sample(is_hard), node.now);
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
    let (mut node, known, peer, circuit) = relayed(true);
    let failed = attempt(peer, circuit, Role::Responder);
    node.state.handle_punch(failed, node.now);
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
    let (mut node, known, peer, circuit) = relayed(false);
    let other = notice(peer, offer("a", None, "random"));
    node.state
        .handle_introduction(known.peer, other.clone(), node.now);
    assert!(offered(&node.actions()).is_none());
    // The attempt ends a moment later on this side.
    let failed = attempt(peer, circuit, Role::Initiator);
    node.state.handle_punch(failed, node.now);
    let actions = node.actions();
    assert!(offered(&actions).unwrap().answers.is_some() && begun(&actions).is_some());

    // A relay that names a third party is not believed, whatever the peer lists.
    let (mut node, known, peer, circuit) = relayed(false);
    let mut lie = offer("a", None, "random");
    lie.side.mapped.set_ip([203, 0, 113, 3].into());
    node.state
        .handle_introduction(known.peer, notice(peer, lie), node.now);
    let failed = attempt(peer, circuit, Role::Initiator);
    node.state.handle_punch(failed, node.now);
    let actions = node.actions();
    let answers = offered(&actions).is_some_and(|own| own.answers.is_some());
    assert!(!answers && begun(&actions).is_none());

    // A peer without a circuit is not searched for.
    let stranger = notice(PeerId::random(), offer("b", None, "random"));
    let (mut node, known, ..) = relayed(false);
    node.state
        .handle_introduction(known.peer, stranger, node.now);
    assert!(offered(&node.actions()).is_none());
}

#[test]
fn the_range_is_looked_at_as_soon_as_there_is_a_relay() {
    let known = relay(1);
    let mut node = Node::new(settings(std::slice::from_ref(&known)));
    let legs = node.connect_legs();
    node.admit(legs[0]);
    let looks = node.actions();
    let look = Action::SamplePorts(known.peer);
    assert_eq!(looks.iter().filter(|action| **action == look).count(), 1);
    node.state.handle_port_sample(sample(false), node.now);
    assert!(!node.actions().contains(&look), "once per network");
}

#[test]
fn after_a_head_start_of_the_punch_a_symmetric_side_offers_a_search_and_an_easy_side_fresh_ports() {
    for is_hard in [true, false] {
        let (mut node, known, peer, _) = relayed(is_hard);
        let ips = vec![THEIRS.parse().unwrap()];
        node.state
            .handle_punch(punch::Event::Listed { peer, ips }, node.now);
        node.pass(Duration::from_millis(999));
        assert!(offered(&node.actions()).is_none());
        node.pass(Duration::from_millis(1));
        assert_eq!(offered(&node.actions()).is_some(), is_hard);
        node.pass(Duration::from_millis(500));
        let looks = Action::SampleNextPorts(known.peer, 2);
        assert_eq!(node.actions().contains(&looks), !is_hard);
        if !is_hard {
            let mut sample = next_port().unwrap();
            sample.ports.push((40008, 9_008));
            node.state.handle_port_sample(Some(sample), node.now);
            let own = offered(&node.actions()).unwrap().side;
            assert_eq!((own.ports, own.fresh), (None, Some([9_007, 9_008])));
        }
    }
}

/// A search that runs.
fn searching() -> (Node, PeerId, ConnectionId) {
    let (mut node, known, peer, circuit) = relayed(true);
    let failed = attempt(peer, circuit, Role::Responder);
    node.state.handle_punch(failed, node.now);
    let own = offered(&node.actions()).unwrap();
    let answer = notice(peer, offer("a", Some(&own), ""));
    node.state.handle_introduction(known.peer, answer, node.now);
    assert!(begun(&node.actions()).is_some());
    node.events();
    (node, peer, circuit)
}

fn is_needless(node: &mut Node) -> bool {
    let stops = node.actions().contains(&Action::StopPorts);
    let is_it = |event: &Event| matches!(event, Event::Searched(report) if report.outcome == SearchOutcome::Needless);
    stops && node.events().iter().any(is_it)
}

#[test]
fn another_path_and_the_loss_of_the_circuit_end_a_search_and_a_shutdown_leaves_nothing_to_do() {
    let (mut node, peer, _) = searching();
    node.accepted(peer, "/ip4/203.0.113.2/tcp/40000");
    assert!(is_needless(&mut node));

    let (mut node, peer, circuit) = searching();
    node.closed(circuit, peer, Ended::Broken);
    assert!(is_needless(&mut node));
    assert!(node.state.last_search(&peer).is_some(), "for `why`");

    let (mut node, ..) = searching();
    node.state.handle_shutdown();
    let actions = node.actions();
    assert!(offered(&actions).is_none() && begun(&actions).is_none());
    assert_eq!(node.state.poll_timeout(), None);
}

/// An offer of a search between one port of each side.
fn of_one_port(nonce: &str, answers: Option<&Offer>) -> Offer {
    let mut offer = offer(nonce, answers, "random");
    let ports = p2pnode_protocol::port_search::Ports::Block { from: 9, to: 9 };
    (offer.side.ports, offer.side.sockets) = (Some(ports), 1);
    offer
}

/// What a relay sees of the port to which a path moves.
fn next_port() -> Option<Sample> {
    Some(Sample {
        punch: vec![SocketAddr::from(([203, 0, 113, 1], 7))],
        ports: vec![(40007, 9_007)],
        free: 1,
    })
}

/// A search has found this pair, and the punch has made a connection of it.
fn moved(peer: PeerId, connection: ConnectionId) -> punch::Event {
    let punch::Event::Attempt(mut record) = attempt(peer, connection, Role::Initiator) else {
        unreachable!("an attempt")
    };
    record.circuit = None;
    record.found = true;
    record.outcome = PunchOutcome::Direct {
        connection,
        dialed: true,
    };
    punch::Event::Attempt(record)
}

#[test]
fn a_direct_path_moves_to_the_next_port_after_half_the_lifetime_of_its_mapping() {
    let (known, peer) = (relay(1), PeerId::random());
    let (mut node, _) = Node::with_relays(Settings {
        rotate: Rotate::After(Duration::from_secs(60)),
        ..settings(std::slice::from_ref(&known))
    });
    node.state.handle_port_sample(sample(false), node.now);
    let theirs: Multiaddr = format!("/ip4/{THEIRS}/udp/40000/quic-v1").parse().unwrap();
    let old = node.next_id();
    node.dialed(old, peer, &theirs);
    node.pass(Duration::from_secs(29));
    let next = Action::SampleNextPorts(known.peer, 1);
    assert!(!node.actions().contains(&next));
    node.pass(Duration::from_secs(1));
    assert!(node.actions().contains(&next));
    assert!(node.state.poll_timeout().is_some_and(|at| at > node.now));

    // The first offer goes over a leg that is dead.
    node.state.handle_port_sample(next_port(), node.now);
    assert!(offered(&node.actions()).is_some());
    node.pass(Duration::from_millis(2_500));
    node.pass(Duration::from_millis(500));
    assert!(node.actions().contains(&next), "another try");
    node.state.handle_port_sample(next_port(), node.now);
    let own = offered(&node.actions()).unwrap();
    assert_eq!((own.side.mapped.port(), own.side.sockets), (9_007, 1));
    let answer = notice(peer, of_one_port("a", Some(&own)));
    node.state.handle_introduction(known.peer, answer, node.now);
    let begin = begun(&node.actions()).unwrap();
    assert!(begin.moves && begin.plan.sockets == 1);

    let ended = port_search::Ended::Found {
        socket: port_search::Socket::Opened(0),
        remote: begin.plan.remote,
    };
    node.state
        .handle_ports_searched(peer, ended, Counts::default(), None, node.now);
    let new = node.next_id();
    node.established(new, peer, &theirs, Some(([10, 0, 0, 1], 40007).into()));
    assert_eq!(node.state.peers().best(&peer), Some(old));
    node.state.handle_punch(moved(peer, new), node.now);
    assert_eq!(
        node.state.peers().best(&peer),
        Some(new),
        "make before break"
    );
    node.pass(Duration::from_secs(29));
    assert!(!node.actions().contains(&next), "the new one is young");
}

#[test]
fn the_other_side_of_a_move_takes_offers_of_the_address_of_the_path_alone() {
    let (known, peer) = (relay(1), PeerId::random());
    for (address, takes) in [(THEIRS, true), ("203.0.113.3", false)] {
        let (mut node, _) = Node::with_relays(settings(std::slice::from_ref(&known)));
        node.state.handle_port_sample(sample(false), node.now);
        let at: Multiaddr = format!("/ip4/{address}/udp/40000/quic-v1").parse().unwrap();
        let direct = node.next_id();
        node.dialed(direct, peer, &at);
        let other = of_one_port("a", None);
        node.state
            .handle_introduction(known.peer, notice(peer, other), node.now);
        assert_eq!(
            node.actions()
                .contains(&Action::SampleNextPorts(known.peer, 1)),
            takes
        );
        node.state.handle_port_sample(next_port(), node.now);
        assert_eq!(
            begun(&node.actions()).is_some_and(|begin| begin.moves),
            takes
        );
    }
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
    let actions = node.actions();
    assert!(offered(&actions).is_none() && !actions.contains(&Action::SamplePorts(known.peer)));
}
