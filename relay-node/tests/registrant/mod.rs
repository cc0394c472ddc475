//! A peer that sends any record to the directory of a relay, in plain Kademlia.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    kad::{self, GetRecordOk, QueryResult, Quorum, Record, RecordKey, store::MemoryStore},
    multiaddr::Protocol,
    noise, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use p2pnode_protocol::directory::{PROTOCOL, Registration};

use crate::harness::Relay;

/// What would never happen on a machine that works.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two questions. A relay takes 32 a second of a peer; one that it refuses looks like a record that is not there.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

/// A peer that says what it wants to.
pub struct Peer {
    pub swarm: Swarm<Behaviour>,
    pub key: Keypair,
    pub id: PeerId,
    relay: PeerId,
}

impl Peer {
    /// Connected to the relay, and nothing else.
    pub async fn new(relay: &Relay) -> Self {
        Self::connected(Keypair::generate_ed25519(), relay.peer, relay.quic()).await
    }

    async fn connected(key: Keypair, relay: PeerId, address: &Multiaddr) -> Self {
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
            relay,
        };
        let kad = &mut peer.swarm.behaviour_mut().kad;
        kad.add_address(&relay, address.clone());
        peer.swarm.dial(address.clone()).expect("an address");
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
    pub async fn reserved(relay: &Relay) -> Self {
        Self::reserved_as(Keypair::generate_ed25519(), relay.peer, relay.quic()).await
    }

    /// The same with that key, at a relay of which the address is known.
    pub async fn reserved_as(key: Keypair, relay: PeerId, address: &Multiaddr) -> Self {
        let mut peer = Self::connected(key, relay, address).await;
        let circuit = address.clone().with(Protocol::P2pCircuit);
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

    pub async fn until<T>(
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
    pub async fn put(&mut self, of: PeerId, value: Vec<u8>, lives: Option<Duration>) {
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
    pub async fn get(&mut self, of: PeerId) -> Option<Vec<u8>> {
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
    pub async fn until_get(&mut self, of: PeerId, wanted: Option<&[u8]>) {
        let asked = Instant::now();
        while self.get(of).await.as_deref() != wanted {
            assert!(asked.elapsed() < PATIENCE, "the relay never says so");
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub fn record(&self, seq: u64) -> Vec<u8> {
        let addr: Multiaddr = "/ip4/203.0.113.7/tcp/443".parse().expect("an address");
        Registration::sign(&self.key, seq, &[addr]).expect("a key that signs")
    }

    /// A record with a circuit over each relay.
    pub fn circuits(&self, seq: u64, relays: &[&Multiaddr]) -> Vec<u8> {
        let circuits: Vec<Multiaddr> = relays
            .iter()
            .map(|relay| (*relay).clone().with(Protocol::P2pCircuit))
            .collect();
        Registration::sign(&self.key, seq, &circuits).expect("a key that signs")
    }
}
