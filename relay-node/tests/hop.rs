//! `/p2pnode/hop/1` against a real relay: what each peer learns, and what hostile requests do.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod harness;
mod peer;

use harness::{Relay, config, free_port, reserve, start};
use libp2p::{Multiaddr, PeerId, Swarm, identity::Keypair, multiaddr::Protocol, swarm::SwarmEvent};
use p2pnode_protocol::{
    Family, Transport,
    hop::{self, Answer, Leg, Refusal, Request},
};
use peer::{Behaviour, BehaviourEvent, connect, garbage, until, until_connected, until_with};

/// A relay, a peer with a reservation over `listener_over`, and one with a circuit to it over `dialer_over`.
struct Circuit {
    relay: Relay,
    listener: Swarm<Behaviour>,
    dialer: Swarm<Behaviour>,
}

async fn circuit(
    listener_over: fn(&Relay) -> &Multiaddr,
    dialer_over: fn(&Relay) -> &Multiaddr,
) -> Circuit {
    let relay = start(config(free_port())).await;
    let (mut listener, _) = reserve(relay.peer, listener_over(&relay)).await;
    let mut dialer = peer::swarm(Keypair::generate_ed25519());
    dial(&mut dialer, &mut listener, dialer_over(&relay)).await;
    Circuit {
        relay,
        listener,
        dialer,
    }
}

async fn dial(dialer: &mut Swarm<Behaviour>, listener: &mut Swarm<Behaviour>, relay: &Multiaddr) {
    let destination = *listener.local_peer_id();
    let address = relay
        .clone()
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(destination));
    dialer.dial(address).expect("a circuit address");
    until_connected(dialer, listener, destination).await;
}

fn question(peer: PeerId, dialed: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let request = Request {
        peer,
        dialed,
        ips: Vec::new(),
    };
    futures::executor::block_on(hop::write(&mut bytes, &request)).expect("a short message");
    bytes
}

/// What the relay sends back to `bytes`, as it is.
async fn send(relay: &Relay, asker: &mut Swarm<Behaviour>, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let ask = &mut asker.behaviour_mut().ask;
    ask.send_over(hop::PROTOCOL, relay.peer, bytes);
    until(asker, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Ask(answer)) => Some(answer.clone()),
        _ => None,
    })
    .await
}

async fn ask(relay: &Relay, asker: &mut Swarm<Behaviour>, other: PeerId, dialed: bool) -> Answer {
    let bytes = send(relay, asker, question(other, dialed)).await;
    let mut bytes = futures::io::Cursor::new(bytes.expect("an answer"));
    hop::read(&mut bytes).await.expect("an answer")
}

fn leg(answer: &Answer) -> Leg {
    match answer {
        Answer::Leg(leg) => leg.clone(),
        Answer::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

#[tokio::test]
async fn each_party_is_told_the_transport_and_family_of_the_others_leg_and_its_rtt() {
    let Circuit {
        relay,
        mut listener,
        mut dialer,
    } = circuit(Relay::quic, Relay::tcp).await;
    let (source, destination) = (*dialer.local_peer_id(), *listener.local_peer_id());
    let far = leg(&ask(&relay, &mut dialer, destination, true).await);
    assert_eq!((far.transport, far.family), (Transport::Quic, Family::Ip4));
    assert!(far.rtt.is_some(), "the relay pings each connection at once");
    let far = leg(&ask(&relay, &mut listener, source, false).await);
    assert_eq!((far.transport, far.family), (Transport::Tcp, Family::Ip4));
    relay.stop().await;
}

#[tokio::test]
async fn the_leg_is_the_connection_of_the_reservation_though_the_peer_has_others() {
    let relay = start(config(free_port())).await;
    let (mut listener, _) = reserve(relay.peer, relay.tcp()).await;
    let quic = relay.quic().clone();
    connect(&mut listener, relay.peer, &quic).await;
    let mut dialer = peer::swarm(Keypair::generate_ed25519());
    dial(&mut dialer, &mut listener, &quic).await;
    let far = leg(&ask(&relay, &mut dialer, *listener.local_peer_id(), true).await);
    assert_eq!(far.transport, Transport::Tcp);
    relay.stop().await;
}

#[tokio::test]
async fn a_stranger_is_refused_alike_whether_there_is_a_circuit_or_not() {
    let Circuit {
        relay,
        listener,
        dialer,
    } = circuit(Relay::quic, Relay::quic).await;
    let refused = Answer::Refused(Refusal::NotAParty);
    let mut stranger = peer::swarm(Keypair::generate_ed25519());
    let quic = relay.quic().clone();
    connect(&mut stranger, relay.peer, &quic).await;
    let others = [
        *listener.local_peer_id(),
        *dialer.local_peer_id(),
        PeerId::random(),
    ];
    for other in others {
        for dialed in [true, false] {
            assert_eq!(ask(&relay, &mut stranger, other, dialed).await, refused);
        }
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_party_is_refused_once_its_circuit_is_closed() {
    let Circuit {
        relay,
        mut listener,
        mut dialer,
    } = circuit(Relay::tcp, Relay::quic).await;
    let (source, destination) = (*dialer.local_peer_id(), *listener.local_peer_id());
    leg(&ask(&relay, &mut dialer, destination, true).await);
    dialer.disconnect_peer_id(destination).expect("connected");
    until_with(&mut listener, &mut dialer, |event| match event {
        SwarmEvent::ConnectionClosed { peer_id, .. } => (*peer_id == source).then_some(()),
        _ => None,
    })
    .await;
    let refused = Answer::Refused(Refusal::NotAParty);
    assert_eq!(ask(&relay, &mut dialer, destination, true).await, refused);
    relay.stop().await;
}

#[tokio::test]
async fn garbage_gets_no_answer_and_the_relay_serves_on() {
    let Circuit {
        relay,
        mut dialer,
        listener,
    } = circuit(Relay::quic, Relay::quic).await;
    let destination = *listener.local_peer_id();
    for bytes in garbage(&question(destination, true)) {
        let length = bytes.len();
        let answer = send(&relay, &mut dialer, bytes).await;
        assert!(
            answer.is_none_or(|answer| answer.is_empty()),
            "an answer to {length} bytes of garbage"
        );
    }
    leg(&ask(&relay, &mut dialer, destination, true).await);
    relay.stop().await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_so_and_others_are_served() {
    let Circuit {
        relay,
        mut listener,
        mut dialer,
    } = circuit(Relay::quic, Relay::quic).await;
    let (source, destination) = (*dialer.local_peer_id(), *listener.local_peer_id());
    let mut answers = Vec::new();
    while !answers.contains(&Answer::Refused(Refusal::TooOften)) {
        assert!(answers.len() < 100_000, "never refused");
        answers.push(ask(&relay, &mut dialer, destination, true).await);
    }
    leg(&ask(&relay, &mut listener, source, false).await);
    relay.stop().await;
}
