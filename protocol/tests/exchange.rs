//! Exchanges between two swarms on loopback, negotiated lazily as both programs do.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod party;

use std::time::Duration;

use futures::StreamExt as _;
use libp2p::{PeerId, Swarm, swarm::SwarmEvent};
use p2pnode_protocol::{
    exchange::{Handler, Protocol, Reply, Report},
    introduction::{Answer, Introduce, Introduction, Notice, Notify, Received, Refusal, Request},
};

use party::{MAX_CONCURRENT, Party, listens, swarm};

type Node = Swarm<Party<Notify, Introduce>>;
type Relay = Swarm<Party<Introduce, Notify>>;

/// The parties do not run identify.
fn party<S: Protocol, C: Protocol>(offers: bool) -> Party<S, C> {
    Party::new(match offers {
        true => || Handler::new(MAX_CONCURRENT).eager(),
        false => || Handler::new(MAX_CONCURRENT).offering(false).eager(),
    })
}

/// A node with a connection to a relay, each of which offers the protocol or not.
async fn connected(node_offers: bool, relay_offers: bool) -> (Node, Relay) {
    let mut node: Node = swarm(|_| party(node_offers));
    let mut relay: Relay = swarm(|_| party(relay_offers));
    let address = listens(&mut relay).await;
    node.dial(address).unwrap();
    let (mut dialed, mut accepted) = (false, false);
    while !dialed || !accepted {
        tokio::select! {
            event = node.select_next_some() => dialed |= matches!(event, SwarmEvent::ConnectionEstablished { .. }),
            event = relay.select_next_some() => accepted |= matches!(event, SwarmEvent::ConnectionEstablished { .. }),
        }
    }
    (node, relay)
}

enum Either {
    Node(Report<Notify, Introduce>),
    Relay(Report<Introduce, Notify>),
}

/// The next report of either.
async fn next(node: &mut Node, relay: &mut Relay) -> Either {
    let report = async {
        loop {
            tokio::select! {
                event = node.select_next_some() => if let SwarmEvent::Behaviour(report) = event {
                    return Either::Node(report);
                },
                event = relay.select_next_some() => if let SwarmEvent::Behaviour(report) = event {
                    return Either::Relay(report);
                },
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), report)
        .await
        .unwrap()
}

/// The end of the node's next request. The relay answers what it is asked, or drops the sender.
async fn reply(node: &mut Node, relay: &mut Relay, answer: Option<&Answer>) -> Reply<Answer> {
    loop {
        match next(node, relay).await {
            Either::Node(Report::Replied(_, reply)) => return reply,
            Either::Relay(Report::Asked(_, sender)) => {
                if let Some(answer) = answer {
                    sender.send(answer.clone()).unwrap();
                }
            }
            _ => panic!("another report"),
        }
    }
}

fn request() -> Request {
    Request {
        peer: PeerId::random(),
        addrs: Vec::new(),
        search: None,
    }
}

fn notice() -> Notice {
    Notice {
        peer: PeerId::random(),
        introduction: Introduction::default(),
        search: None,
    }
}

#[tokio::test]
async fn a_request_is_answered_as_often_as_it_is_made() {
    let (mut node, mut relay) = connected(true, true).await;
    let peer = *relay.local_peer_id();
    for answer in [
        Answer::Introduced(Introduction::default()),
        Answer::Refused(Refusal::TooOften),
    ] {
        node.behaviour_mut().ask(peer, request());
        let reply = reply(&mut node, &mut relay, Some(&answer)).await;
        assert_eq!(reply, Reply::Answer(answer));
    }
}

#[tokio::test]
async fn a_notice_is_received_and_its_end_is_the_answer() {
    let (mut node, mut relay) = connected(true, true).await;
    let (peer, sent) = (*node.local_peer_id(), notice());
    relay.behaviour_mut().ask(peer, sent.clone());
    let Either::Node(Report::Asked(notice, sender)) = next(&mut node, &mut relay).await else {
        panic!("no notice")
    };
    assert_eq!(notice, sent);
    sender.send(Received).unwrap();
    let Either::Relay(Report::Replied(_, reply)) = next(&mut node, &mut relay).await else {
        panic!("no reply")
    };
    assert_eq!(reply, Reply::Answer(Received));
}

#[tokio::test]
async fn a_remote_that_does_not_offer_the_protocol_is_unsupported_and_one_that_drops_it_has_no_answer()
 {
    let (mut node, mut relay) = connected(false, false).await;
    let peer = *relay.local_peer_id();
    node.behaviour_mut().ask(peer, request());
    let unsupported = reply(&mut node, &mut relay, None).await;
    assert_eq!(unsupported, Reply::Unsupported);

    let (mut node, mut relay) = connected(true, true).await;
    let peer = *relay.local_peer_id();
    node.behaviour_mut().ask(peer, request());
    let dropped = reply(&mut node, &mut relay, None).await;
    assert_eq!(dropped, Reply::NoAnswer);
}

#[tokio::test]
async fn requests_beyond_the_limit_have_no_answer_and_the_others_have_one() {
    let (mut node, mut relay) = connected(true, true).await;
    let peer = *relay.local_peer_id();
    for _ in 0..=MAX_CONCURRENT {
        node.behaviour_mut().ask(peer, request());
    }
    let answer = Answer::Refused(Refusal::NoReservation);
    let mut replies = Vec::new();
    for _ in 0..=MAX_CONCURRENT {
        replies.push(reply(&mut node, &mut relay, Some(&answer)).await);
    }
    let answered = replies
        .iter()
        .filter(|reply| **reply == Reply::Answer(answer.clone()));
    assert_eq!(answered.count(), MAX_CONCURRENT, "{replies:?}");
    assert!(replies.contains(&Reply::NoAnswer), "{replies:?}");
}
