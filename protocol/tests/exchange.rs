//! Exchanges between two swarms on loopback, negotiated lazily as both programs do.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

use std::{collections::VecDeque, time::Duration};

use futures::StreamExt as _;
use libp2p::{
    PeerId, Swarm, SwarmBuilder, noise,
    swarm::{ConnectionId, NetworkBehaviour, NotifyHandler, SwarmEvent, THandlerOutEvent, ToSwarm},
    tcp, yamux,
};
use p2pnode_protocol::{
    exchange::{Handler, Protocol, Reply, Report},
    introduction::{Answer, Introduce, Introduction, Notice, Notify, Received, Refusal, Request},
    upgrade::LAZY,
};

const MAX_CONCURRENT: usize = 2;

/// Serves `S` and asks `C`, as the test commands.
struct Party<S: Protocol, C: Protocol> {
    offers: bool,
    queue: VecDeque<ToSwarm<Report<S, C>, C::Request>>,
}

impl<S: Protocol, C: Protocol> Party<S, C> {
    fn new(offers: bool) -> Self {
        Self {
            offers,
            queue: VecDeque::new(),
        }
    }

    fn handler(&self) -> Handler<S, C> {
        let handler = Handler::new(MAX_CONCURRENT).offering(self.offers);
        // The parties do not run identify.
        handler.eager()
    }

    fn ask(&mut self, peer_id: PeerId, request: C::Request) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::Any,
            event: request,
        });
    }
}

impl<S: Protocol, C: Protocol> NetworkBehaviour for Party<S, C> {
    type ConnectionHandler = Handler<S, C>;
    type ToSwarm = Report<S, C>;

    p2pnode_protocol::handlers!(self => self.handler());
    p2pnode_protocol::no_swarm_events!();

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        self.queue.push_back(ToSwarm::GenerateEvent(report));
    }

    p2pnode_protocol::polls!(self.queue);
}

type Node = Swarm<Party<Notify, Introduce>>;
type Relay = Swarm<Party<Introduce, Notify>>;

fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(Duration::from_secs(60))
                .with_substream_upgrade_protocol_override(LAZY)
        })
        .build()
}

/// A node with a connection to a relay, each of which offers the protocol or not.
async fn connected(node_offers: bool, relay_offers: bool) -> (Node, Relay) {
    let mut node: Node = swarm(Party::new(node_offers));
    let mut relay: Relay = swarm(Party::new(relay_offers));
    relay
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = relay.select_next_some().await {
            break address;
        }
    };
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
