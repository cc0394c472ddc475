//! `/p2pnode/meet/1` against a real relay: which peers are introduced, what each side learns, and what hostile requests do.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod harness;
mod peer;

use std::{net::SocketAddr, time::Duration};

use harness::{Relay, config, free_port, get, reserve, start};
use libp2p::{Multiaddr, PeerId, Swarm, identity::Keypair, multiaddr::Protocol, swarm::SwarmEvent};
use p2pnode_protocol::introduction::{
    self as meet, Answer, Introduction, Notice, Refusal, Request,
};
use peer::{Behaviour, BehaviourEvent, connect, garbage, until, until_connected, until_with};

/// A peer that is connected to the relay over QUIC and has no reservation.
async fn asker(relay: &Relay) -> Swarm<Behaviour> {
    let mut asker = peer::swarm(Keypair::generate_ed25519());
    connect(&mut asker, relay.peer, relay.quic()).await;
    asker
}

/// A peer with a reservation over QUIC that takes introductions, once the relay knows that it does.
async fn destination(relay: &Relay, asker: &mut Swarm<Behaviour>) -> Swarm<Behaviour> {
    let (mut destination, _) = reserve(relay.peer, relay.quic()).await;
    let peer = *destination.local_peer_id();
    // The relay learns it from identify, which nobody but the relay sees the end of.
    while ask(relay, asker, &mut destination, peer, &[]).await
        == Answer::Refused(Refusal::Unsupported)
    {}
    destination
}

fn question(peer: PeerId, addrs: &[&str]) -> Vec<u8> {
    let addrs = addrs.iter().map(|addr| addr.parse().expect("an address"));
    let request = Request {
        peer,
        addrs: addrs.collect(),
        search: None,
    };
    let mut bytes = Vec::new();
    futures::executor::block_on(meet::write(&mut bytes, &request)).expect("a short message");
    bytes
}

/// What the relay sends back to `bytes`, while the other one lives on.
async fn send(
    relay: &Relay,
    asker: &mut Swarm<Behaviour>,
    other: &mut Swarm<Behaviour>,
    bytes: Vec<u8>,
) -> Option<Vec<u8>> {
    let ask = &mut asker.behaviour_mut().ask;
    ask.send_over(meet::PROTOCOL, relay.peer, bytes);
    until_with(asker, other, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Ask(answer)) => Some(answer.clone()),
        _ => None,
    })
    .await
}

async fn ask(
    relay: &Relay,
    asker: &mut Swarm<Behaviour>,
    other: &mut Swarm<Behaviour>,
    wanted: PeerId,
    addrs: &[&str],
) -> Answer {
    let bytes = send(relay, asker, other, question(wanted, addrs)).await;
    let mut bytes = futures::io::Cursor::new(bytes.expect("an answer"));
    meet::read(&mut bytes).await.expect("an answer")
}

/// The introduction that lists that many addresses, once it was heard.
async fn heard(swarm: &mut Swarm<Behaviour>, from: PeerId, addrs: usize) -> Introduction {
    loop {
        for bytes in &swarm.behaviour().hear.heard {
            let mut bytes = futures::io::Cursor::new(bytes);
            let notice: Notice = meet::read(&mut bytes).await.expect("an introduction");
            if notice.peer == from && notice.introduction.addrs.len() == addrs {
                return notice.introduction;
            }
        }
        until(swarm, |event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Hear(_)) => Some(()),
            _ => None,
        })
        .await;
    }
}

fn is_loopback_quic(addr: &Multiaddr) -> bool {
    let parts: Vec<_> = addr.iter().collect();
    matches!(
        parts[..],
        [Protocol::Ip4(ip), Protocol::Udp(_), Protocol::QuicV1] if ip.is_loopback()
    )
}

#[tokio::test]
async fn both_are_told_the_same_of_each_other() {
    let relay = start(config(free_port())).await;
    let mut asker = asker(&relay).await;
    let mut destination = destination(&relay, &mut asker).await;
    let (asking, wanted) = (*asker.local_peer_id(), *destination.local_peer_id());
    // The relay sees the asker at this IP, and not at the other.
    let unseen = [
        "/ip4/127.0.0.1/udp/4000/quic-v1",
        "/ip4/192.0.2.7/udp/4000/quic-v1",
    ];
    let answer = ask(&relay, &mut asker, &mut destination, wanted, &unseen).await;
    let Answer::Introduced(introduction) = answer else {
        panic!("refused: {answer:?}")
    };
    assert!(
        introduction.addrs.len() == 1 && is_loopback_quic(&introduction.addrs[0]),
        "{introduction:?}"
    );
    assert!(
        introduction.own_addrs.len() == 2
            && is_loopback_quic(&introduction.own_addrs[0])
            && introduction.own_addrs[1].to_string() == unseen[0],
        "{introduction:?}"
    );
    let heard = heard(&mut destination, asking, 2).await;
    assert_eq!(heard.addrs, introduction.own_addrs);
    assert_eq!(heard.own_addrs, introduction.addrs);
    relay.stop().await;
}

#[tokio::test]
async fn who_has_no_reservation_or_takes_no_introductions_is_not_met() {
    let relay = start(config(free_port())).await;
    let mut asker = asker(&relay).await;
    let mut other = self::asker(&relay).await;
    let (connected, itself) = (*other.local_peer_id(), *asker.local_peer_id());
    for wanted in [connected, itself, PeerId::random()] {
        let answer = ask(&relay, &mut asker, &mut other, wanted, &[]).await;
        assert_eq!(answer, Answer::Refused(Refusal::NoReservation));
    }
    let mut mute = reserve_without_hearing(&relay).await;
    let wanted = *mute.local_peer_id();
    let answer = ask(&relay, &mut asker, &mut mute, wanted, &[]).await;
    assert_eq!(answer, Answer::Refused(Refusal::Unsupported));
    relay.stop().await;
}

async fn reserve_without_hearing(relay: &Relay) -> Swarm<Behaviour> {
    let mut swarm = peer::swarm(Keypair::generate_ed25519());
    swarm.behaviour_mut().hear.is_deaf = true;
    let circuit = relay.quic().clone().with(Protocol::P2pCircuit);
    swarm.listen_on(circuit).expect("a circuit address");
    until(&mut swarm, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Relay(
            libp2p::relay::client::Event::ReservationReqAccepted { .. },
        )) => Some(()),
        _ => None,
    })
    .await;
    swarm
}

#[tokio::test]
async fn two_without_a_transport_in_common_meet_once_they_have_one() {
    let relay = start(config(free_port())).await;
    let mut asker = peer::swarm(Keypair::generate_ed25519());
    connect(&mut asker, relay.peer, relay.tcp()).await;
    let mut over_quic = self::asker(&relay).await;
    let mut destination = destination(&relay, &mut over_quic).await;
    let wanted = *destination.local_peer_id();
    let answer = ask(&relay, &mut asker, &mut destination, wanted, &[]).await;
    assert_eq!(answer, Answer::Refused(Refusal::NothingInCommon));
    connect(&mut asker, relay.peer, relay.quic()).await;
    let answer = ask(&relay, &mut asker, &mut destination, wanted, &[]).await;
    assert!(matches!(answer, Answer::Introduced(_)), "{answer:?}");
    relay.stop().await;
}

#[tokio::test]
async fn thousands_of_addresses_and_odd_ones_are_cut() {
    let relay = start(config(free_port())).await;
    let mut asker = asker(&relay).await;
    let mut destination = destination(&relay, &mut asker).await;
    let wanted = *destination.local_peer_id();
    let odd = [
        "/dns4/example.net/tcp/5",
        "/ip4/192.0.2.1/tcp/6/ws",
        "/memory/7",
    ];
    let answer = ask(&relay, &mut asker, &mut destination, wanted, &odd).await;
    let Answer::Introduced(introduction) = answer else {
        panic!("refused: {answer:?}")
    };
    assert!(
        introduction
            .own_addrs
            .iter()
            .all(|addr| !addr.to_string().contains("example"))
    );

    let many: Vec<String> = (1..120)
        .map(|n| format!("/ip4/127.0.0.1/tcp/{n}"))
        .collect();
    let json = serde_json::json!({ "peer": wanted.to_string(), "addrs": many }).to_string();
    let length = u16::try_from(json.len()).expect("short");
    let bytes = [&length.to_be_bytes()[..], json.as_bytes()].concat();
    let answer = send(&relay, &mut asker, &mut destination, bytes).await;
    let mut answer = futures::io::Cursor::new(answer.expect("an answer"));
    let Ok(Answer::Introduced(introduction)) = meet::read(&mut answer).await else {
        panic!("refused")
    };
    // Two sockets of an IP: the one that the relay sees, and one that the asker lists.
    assert_eq!(introduction.own_addrs.len(), 2);
    relay.stop().await;
}

#[tokio::test]
async fn garbage_gets_no_answer_and_the_relay_serves_on() {
    let relay = start(config(free_port())).await;
    let mut asker = asker(&relay).await;
    let mut destination = destination(&relay, &mut asker).await;
    let wanted = *destination.local_peer_id();
    for bytes in garbage(&question(wanted, &[])) {
        let length = bytes.len();
        let answer = send(&relay, &mut asker, &mut destination, bytes).await;
        assert!(
            answer.is_none_or(|answer| answer.is_empty()),
            "an answer to {length} bytes of garbage"
        );
    }
    let answer = ask(&relay, &mut asker, &mut destination, wanted, &[]).await;
    assert!(matches!(answer, Answer::Introduced(_)), "{answer:?}");
    relay.stop().await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_so_and_counted_and_others_are_served() {
    let mut config = config(free_port());
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    config.admin = Some(admin);
    let relay = start(config).await;
    let mut asker = asker(&relay).await;
    let mut modest = self::asker(&relay).await;
    let mut destination = destination(&relay, &mut asker).await;
    let wanted = *destination.local_peer_id();
    let mut asked = 0;
    let refused = Answer::Refused(Refusal::TooOften);
    while ask(&relay, &mut asker, &mut destination, wanted, &[]).await != refused {
        asked += 1;
        assert!(asked < 100_000, "never refused");
    }
    let answer = ask(&relay, &mut modest, &mut destination, wanted, &[]).await;
    assert!(matches!(answer, Answer::Introduced(_)), "{answer:?}");
    let metrics = get(admin, "/metrics").await;
    for name in [
        "relay_introductions_total{outcome=\"made\"}",
        "relay_introductions_total{outcome=\"too_often\"}",
        "relay_denied_total{reason=\"introduction_limit\"}",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_drains_introduces_nobody() {
    let mut config = config(free_port());
    config.drain_timeout = Duration::from_secs(600);
    let relay = start(config).await;
    let mut asker = asker(&relay).await;
    let mut destination = destination(&relay, &mut asker).await;
    let wanted = *destination.local_peer_id();
    // A circuit keeps it from ending.
    let circuit = relay.quic().clone().with(Protocol::P2pCircuit);
    asker
        .dial(circuit.with(Protocol::P2p(wanted)))
        .expect("a circuit address");
    until_connected(&mut asker, &mut destination, wanted).await;
    let (peer, quic) = (relay.peer, relay.quic().clone());
    let ending = relay.ask_to_end();
    until_with(&mut asker, &mut destination, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Draining(sent)) => (sent.peer == peer).then_some(()),
        _ => None,
    })
    .await;
    let ask = &mut asker.behaviour_mut().ask;
    ask.send_over(meet::PROTOCOL, peer, question(wanted, &[]));
    let answer = until_with(&mut asker, &mut destination, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Ask(answer)) => Some(answer.clone()),
        _ => None,
    })
    .await;
    let mut answer = futures::io::Cursor::new(answer.expect("an answer"));
    let answer: Answer = meet::read(&mut answer).await.expect("an answer");
    assert_eq!(answer, Answer::Refused(Refusal::Draining), "{quic}");
    asker.disconnect_peer_id(wanted).expect("connected");
    until_with(&mut asker, &mut destination, |event| match event {
        SwarmEvent::ConnectionClosed { peer_id, .. } => (*peer_id == peer).then_some(()),
        _ => None,
    })
    .await;
    ending.await.expect("no panic").expect("a clean end");
}
