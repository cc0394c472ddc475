//! The directory of a real relay on loopback, asked and fed by plain Kademlia: what is kept, what is refused, what is copied.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod harness;
mod peer;
mod process;
mod registrant;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use harness::{config, free_port, get, start, start_as};
use libp2p::{PeerId, identity::Keypair, multiaddr::Protocol};
use p2pnode_protocol::directory::{MAX_BYTES, Registration};
use process::Home;
use registrant::Peer;

#[tokio::test]
async fn a_peer_with_a_reservation_is_found_by_one_without_and_its_later_records_replace_it() {
    let relay = start(config(free_port())).await;
    let mut registered = Peer::reserved(&relay).await;
    let (id, first, later) = (registered.id, registered.record(1), registered.record(2));
    registered.put(id, first.clone(), None).await;
    let mut asking = Peer::new(&relay).await;
    assert_eq!(asking.get(id).await, Some(first));
    registered.put(id, later.clone(), None).await;
    assert_eq!(asking.get(id).await, Some(later));
    assert_eq!(asking.get(PeerId::random()).await, None);
    relay.stop().await;
}

#[tokio::test]
async fn a_peer_without_a_reservation_is_not_registered_until_it_has_one() {
    let relay = start(config(free_port())).await;
    let mut peer = Peer::new(&relay).await;
    let (id, record) = (peer.id, peer.record(1));
    peer.put(id, record.clone(), None).await;
    assert_eq!(peer.get(id).await, None);
    // The two may come in any order, over different connections.
    let circuit = relay.quic().clone().with(Protocol::P2pCircuit);
    peer.swarm.listen_on(circuit).expect("a circuit address");
    peer.until_get(id, Some(&record)).await;
    relay.stop().await;
}

#[tokio::test]
async fn nobody_registers_another_not_with_a_forged_record_and_not_with_a_true_one() {
    let mut config = config(free_port());
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    config.admin = Some(admin);
    config.limits.records = 1;
    let relay = start(config).await;
    let mut peer = Peer::reserved(&relay).await;
    let mut other = Peer::reserved(&relay).await;
    let (id, truth) = (peer.id, peer.record(2));
    for record in [other.record(9), peer.record(9)] {
        other.put(id, record, None).await;
        assert_eq!(other.get(id).await, None);
    }
    peer.put(id, truth.clone(), None).await;
    for record in [other.record(9), peer.record(9)] {
        other.put(id, record, None).await;
        assert_eq!(other.get(id).await, Some(truth.clone()));
    }
    // A record of its own that is signed by another key, broken, or too long.
    let mut broken = truth.clone();
    if let Some(last) = broken.last_mut() {
        *last ^= 1;
    }
    for record in [other.record(9), broken, vec![0; MAX_BYTES + 1], Vec::new()] {
        peer.put(id, record, None).await;
        assert_eq!(other.get(id).await, Some(truth.clone()));
    }
    // Nor one for which there is no room.
    let (id, record) = (other.id, other.record(1));
    other.put(id, record, None).await;
    assert_eq!(other.get(id).await, None);
    let metrics = get(admin, "/metrics").await;
    assert!(
        metrics.contains("reason=\"record_limit\"} 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("reason=\"record\"} 8\n"), "{metrics}");
    relay.stop().await;
}

#[tokio::test]
async fn a_record_expires_and_one_that_withdraws_replaces_it() {
    let relay = start(config(free_port())).await;
    let mut peer = Peer::reserved(&relay).await;
    let (id, record) = (peer.id, peer.record(1));
    peer.put(id, record, Some(Duration::from_secs(2))).await;
    peer.until_get(id, None).await;
    let gone = Registration::sign(&peer.key, 3, &[]).expect("a key that signs");
    peer.put(id, gone.clone(), None).await;
    let answer = peer.get(id).await.expect("the withdrawal");
    let read = Registration::read(&id.to_bytes(), &answer).expect("a record");
    assert!(read.is_withdrawal());
    relay.stop().await;
}

#[tokio::test]
async fn relays_that_know_one_another_copy_what_is_new_and_what_was_there_before_they_met() {
    let (a_key, b_key) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (mut a, mut b) = (config(free_port()), config(free_port()));
    let id = |key: &Keypair| key.public().to_peer_id();
    a.relays = vec![(id(&b_key), b.listen.addrs[0].clone())];
    // By its name, and over TCP.
    let name = a.listen.addrs[1].to_string();
    let name = name.replace("/ip4/127.0.0.1", "/dns4/localhost");
    b.relays = vec![(id(&a_key), name.parse().expect("an address"))];
    let stranger = start(config(free_port())).await;

    let a = start_as(a_key, a).await;
    let mut early = Peer::reserved(&a).await;
    let (early_id, record) = (early.id, early.record(1));
    early.put(early_id, record.clone(), None).await;
    let b = start_as(b_key, b).await;
    let mut at_b = Peer::reserved(&b).await;
    at_b.until_get(early_id, Some(&record)).await;

    let (b_id, record) = (at_b.id, at_b.record(1));
    at_b.put(b_id, record.clone(), None).await;
    early.until_get(b_id, Some(&record)).await;
    let gone = Registration::sign(&at_b.key, 2, &[]).expect("a key that signs");
    at_b.put(b_id, gone.clone(), None).await;
    early.until_get(b_id, Some(&gone)).await;

    assert_eq!(Peer::new(&stranger).await.get(early_id).await, None);
    for relay in [a, b, stranger] {
        relay.stop().await;
    }
}

#[tokio::test]
async fn the_record_of_a_peer_that_is_no_longer_admitted_vanishes_there_and_at_other_relays() {
    let home = Home::new();
    let other_key = Keypair::generate_ed25519();
    let mut other = config(free_port());
    let here = format!("/ip4/127.0.0.1/tcp/{}", home.port);
    other.relays = vec![(home.peer(), here.parse().expect("an address"))];
    let [allowed, revoked, both] = [(); 3].map(|()| Keypair::generate_ed25519());
    let configure = |keys: &[&Keypair]| {
        let ids: Vec<String> = keys
            .iter()
            .map(|key| key.public().to_peer_id().to_string())
            .collect();
        let there = other.listen.addrs[0].clone();
        let there = there.with(Protocol::P2p(other_key.public().to_peer_id()));
        let ids = ids.join(", ");
        home.configure(&format!(
            "relays: [{there}]\naccess: {{ allow: [{ids}] }}\n"
        ));
    };
    configure(&[&allowed, &revoked, &both]);
    let mut process = home.start().await;
    let there = start_as(other_key.clone(), other.clone()).await;

    let (here, at) = (home.peer(), home.addr("quic"));
    let mut asking = Peer::reserved_as(allowed.clone(), here, &at).await;
    let mut asking_there = Peer::new(&there).await;
    let mut revoked = Peer::reserved_as(revoked, here, &at).await;
    let mut both = Peer::reserved_as(both, here, &at).await;
    // One has a circuit here alone, and the other one elsewhere as well.
    let only = revoked.circuits(1, &[&at]);
    revoked.put(revoked.id, only.clone(), None).await;
    let two = both.circuits(1, &[&at, there.quic()]);
    both.put(both.id, two.clone(), None).await;
    for (id, record) in [(revoked.id, &only), (both.id, &two)] {
        asking.until_get(id, Some(record)).await;
        asking_there.until_get(id, Some(record)).await;
    }

    configure(&[&allowed]);
    process.signal("-HUP").await;
    process.logs(&["rules of access", "disconnected=2"]).await;
    for id in [revoked.id, both.id] {
        assert_eq!(asking.get(id).await, None);
    }
    // Elsewhere what leads through this relay alone is gone in moments; the other still can be called there, or says so itself.
    asking_there.until_get(revoked.id, None).await;
    assert_eq!(asking_there.get(both.id).await, Some(two));
    assert_eq!(asking.get(revoked.id).await, None, "it does not come back");
    let metrics = get(home.admin, "/metrics").await;
    assert!(metrics.contains("relay_records 0\n"), "{metrics}");
    process.stop().await;
    there.stop().await;
}
