//! The directory of a real relay on loopback, asked and fed by plain Kademlia: what is kept, what is refused, what is copied.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod harness;
mod peer;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use harness::{Relay, config, free_port, start, start_as};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    kad::{self, GetRecordOk, QueryResult, Quorum, Record, RecordKey, store::MemoryStore},
    multiaddr::Protocol,
    noise, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use p2pnode_bin_shared::directory::{MAX_BYTES, PROTOCOL, Registration};

/// What would never happen on a machine that works.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

/// A peer that says what it wants to.
struct Peer {
    swarm: Swarm<Behaviour>,
    key: Keypair,
    id: PeerId,
    relay: PeerId,
}

impl Peer {
    /// Connected to the relay, and nothing else.
    async fn new(relay: &Relay) -> Self {
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id();
        let swarm = SwarmBuilder::with_existing_identity(key.clone())
            .with_tokio()
            .with_tcp(
                tcp::Config::default(),
                noise::Config::new,
                yamux::Config::default,
            )
            .expect("TCP")
            .with_quic()
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .expect("circuits")
            .with_behaviour(|key, relay| {
                let identify = identify::Config::new("/test/1".to_owned(), key.public());
                let store = MemoryStore::new(id);
                let mut kad = kad::Behaviour::with_config(id, store, kad::Config::new(PROTOCOL));
                kad.set_mode(Some(kad::Mode::Client));
                Behaviour {
                    relay,
                    identify: identify::Behaviour::new(identify),
                    kad,
                }
            })
            .expect("infallible")
            .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(PATIENCE))
            .build();
        let mut peer = Self {
            swarm,
            key,
            id,
            relay: relay.peer,
        };
        let address = relay.quic().clone();
        let kad = &mut peer.swarm.behaviour_mut().kad;
        kad.add_address(&relay.peer, address.clone());
        peer.swarm.dial(address).expect("an address");
        peer.until(|event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                ..
            })) => Some(()),
            _ => None,
        })
        .await;
        peer
    }

    /// With a reservation.
    async fn reserved(relay: &Relay) -> Self {
        let mut peer = Self::new(relay).await;
        let circuit = relay.quic().clone().with(Protocol::P2pCircuit);
        peer.swarm.listen_on(circuit).expect("a circuit address");
        peer.until(|event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Relay(
                relay::client::Event::ReservationReqAccepted { .. },
            )) => Some(()),
            _ => None,
        })
        .await;
        peer
    }

    async fn until<T>(
        &mut self,
        mut wanted: impl FnMut(SwarmEvent<BehaviourEvent>) -> Option<T>,
    ) -> T {
        let found = async {
            loop {
                if let Some(found) = wanted(self.swarm.select_next_some().await) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .expect("the event")
    }

    /// Offers a record under a peer's id and returns when the relay has judged it.
    async fn put(&mut self, of: PeerId, value: Vec<u8>, lives: Option<Duration>) {
        let mut record = Record::new(RecordKey::from(of.to_bytes()), value);
        record.expires = lives.map(|lives| Instant::now() + lives);
        let to = std::iter::once(self.relay);
        let kad = &mut self.swarm.behaviour_mut().kad;
        let query = kad.put_record_to(record, to, Quorum::One);
        self.until(|event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::PutRecord(_),
                ..
            })) => (id == query).then_some(()),
            _ => None,
        })
        .await;
    }

    /// What the relay says under a peer's id.
    async fn get(&mut self, of: PeerId) -> Option<Vec<u8>> {
        let key = RecordKey::from(of.to_bytes());
        let query = self.swarm.behaviour_mut().kad.get_record(key);
        let mut found = None;
        self.until(|event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::GetRecord(answer),
                step,
                ..
            })) if id == query => {
                if let Ok(GetRecordOk::FoundRecord(answer)) = answer {
                    found = Some(answer.record.value);
                }
                step.last.then_some(())
            }
            _ => None,
        })
        .await;
        found
    }

    /// Asks until the relay says that, which it will.
    async fn until_get(&mut self, of: PeerId, wanted: Option<&[u8]>) {
        let asked = Instant::now();
        while self.get(of).await.as_deref() != wanted {
            assert!(asked.elapsed() < PATIENCE, "the relay never says so");
        }
    }

    fn record(&self, seq: u64) -> Vec<u8> {
        let addr: Multiaddr = "/ip4/203.0.113.7/tcp/443".parse().expect("an address");
        Registration::sign(&self.key, seq, &[addr]).expect("a key that signs")
    }
}

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
    let relay = start(config(free_port())).await;
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
    let told = peer.get(id).await.expect("the withdrawal");
    let read = Registration::read(&id.to_bytes(), &told).expect("a record");
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
