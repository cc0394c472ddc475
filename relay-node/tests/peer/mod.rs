//! A plain libp2p peer: relay client, identify, ping.

mod ask;
mod hear;

use std::time::Duration;

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    noise, ping, relay,
    swarm::{
        NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, tls, yamux,
};
use p2pnode_protocol::draining;

pub use ask::Ask;
pub use hear::Hear;

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub relay: relay::client::Behaviour,
    pub ask: Ask,
    pub hear: Hear,
    pub draining: draining::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

pub fn swarm(key: Keypair) -> Swarm<Behaviour> {
    swarm_with(key, ping::Config::default())
}

pub fn swarm_with(key: Keypair, ping: ping::Config) -> Swarm<Behaviour> {
    SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )
        .expect("TCP")
        .with_quic()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .expect("circuits")
        .with_behaviour(|key, relay| Behaviour {
            relay,
            ask: Ask::default(),
            hear: Hear::default(),
            draining: draining::Behaviour::default(),
            identify: identify::Behaviour::new(identify::Config::new(
                "/test/1".to_owned(),
                key.public(),
            )),
            ping: ping::Behaviour::new(ping),
        })
        .expect("infallible")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(5)))
        .build()
}

/// Polls `swarm` until `wanted` finds something in an event.
pub async fn until<T>(
    swarm: &mut Swarm<Behaviour>,
    mut wanted: impl FnMut(&SwarmEvent<BehaviourEvent>) -> Option<T>,
) -> T {
    let found = async {
        loop {
            let event = swarm.select_next_some().await;
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .expect("the event within 20 s")
}

/// Keeps `other` alive while `wanted` is waited for on `swarm`.
pub async fn until_with<T>(
    swarm: &mut Swarm<Behaviour>,
    other: &mut Swarm<Behaviour>,
    wanted: impl FnMut(&SwarmEvent<BehaviourEvent>) -> Option<T>,
) -> T {
    let idle = async {
        loop {
            other.select_next_some().await;
        }
    };
    tokio::select! {
        found = until(swarm, wanted) => found,
        () = idle => unreachable!("endless"),
    }
}

/// Waits until `swarm` is connected with `peer`, while `other` lives on.
pub async fn until_connected(
    swarm: &mut Swarm<Behaviour>,
    other: &mut Swarm<Behaviour>,
    peer: PeerId,
) {
    until_with(swarm, other, |event| match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } => (*peer_id == peer).then_some(()),
        _ => None,
    })
    .await;
}

/// One more connection to `peer`.
pub async fn connect(swarm: &mut Swarm<Behaviour>, peer: PeerId, address: &Multiaddr) {
    let opts = DialOpts::peer_id(peer)
        .addresses(vec![address.clone()])
        .condition(PeerCondition::Always)
        .build();
    let wanted = opts.connection_id();
    swarm.dial(opts).expect("an address");
    until(swarm, |event| match event {
        SwarmEvent::ConnectionEstablished { connection_id, .. } => {
            (*connection_id == wanted).then_some(())
        }
        _ => None,
    })
    .await;
}

/// What is no request, made of one that is.
pub fn garbage(request: &[u8]) -> Vec<Vec<u8>> {
    let framed = |body: &[u8]| {
        let length = u16::try_from(body.len()).expect("short");
        [&length.to_be_bytes()[..], body].concat()
    };
    vec![
        Vec::new(),
        vec![0],
        request[..request.len() - 1].to_vec(),
        vec![0xff; 100_000],
        framed(b"{"),
        framed(b"null"),
        framed(&[0xff; 1024]),
        framed(br#"{"peer":"12D3KooW","dialed":true}"#),
        framed(&[b'['; 1024]),
    ]
}
