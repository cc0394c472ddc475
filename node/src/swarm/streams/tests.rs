//! Two swarms on loopback, with two connections between them. The remote echoes pings.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _, future::join_all};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    noise,
    swarm::{
        self, ConnectionId, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};

use p2pnode_protocol::ping::{self, Pace};
use p2pnode_transports::{Config, Congestion, FamilyPolicy, Kin, build, server, tokio_runtime};

use super::{Behaviour, OpenError, handler::MAX_OPENING};

fn swarm<B: NetworkBehaviour>(behaviour: impl FnOnce(&Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| behaviour(key))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

#[derive(NetworkBehaviour)]
struct Ours {
    streams: Behaviour,
    identify: identify::Behaviour,
}

#[derive(NetworkBehaviour)]
struct Theirs {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

fn identify(key: &Keypair) -> identify::Behaviour {
    identify::Behaviour::new(identify::Config::new("/test/1".to_owned(), key.public()))
}

const NEVER: Pace = Pace {
    interval: Duration::from_secs(3600),
    timeout: Duration::from_secs(60),
};

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &str) -> Multiaddr {
    swarm.listen_on(address.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

struct Pair {
    ours: Swarm<Ours>,
    remote: PeerId,
    connections: [ConnectionId; 2],
}

/// A swarm with two connections to a remote that runs by itself.
async fn pair() -> Pair {
    let mut remote = swarm(|key| Theirs {
        ping: ping::Behaviour::new(|_, _| NEVER),
        identify: identify(key),
    });
    let peer = *remote.local_peer_id();
    let address = listen(&mut remote, "/ip4/127.0.0.1/tcp/0").await;
    tokio::spawn(remote.for_each(|_| std::future::ready(())));
    let mut ours = swarm(|key| Ours {
        streams: Behaviour::new(Kin::default()),
        identify: identify(key),
    });
    let mut connections = Vec::new();
    for _ in 0..2 {
        connections.push(connect(&mut ours, peer, &address).await);
    }
    Pair {
        ours,
        remote: peer,
        connections: connections.try_into().unwrap(),
    }
}

async fn connect(ours: &mut Swarm<Ours>, peer: PeerId, address: &Multiaddr) -> ConnectionId {
    let opts = DialOpts::peer_id(peer)
        .addresses(vec![address.clone()])
        .condition(PeerCondition::Always)
        .build();
    ours.dial(opts).unwrap();
    loop {
        if let SwarmEvent::ConnectionEstablished { connection_id, .. } =
            ours.select_next_some().await
        {
            return connection_id;
        }
    }
}

impl Pair {
    /// Lets the swarm run until `wanted` is there.
    async fn run<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        let mut wanted = std::pin::pin!(wanted);
        loop {
            tokio::select! {
                done = &mut wanted => return done,
                _ = self.ours.select_next_some() => {}
            }
        }
    }

    async fn open(
        &mut self,
        connection: ConnectionId,
        protocol: StreamProtocol,
    ) -> Result<Stream, OpenError> {
        let behaviour = &mut self.ours.behaviour_mut().streams;
        let opening = behaviour.open(self.remote, connection, protocol);
        self.run(opening).await
    }

    async fn echoes(&mut self, stream: &mut Stream) -> bool {
        let echoed = async {
            stream.write_all(&[7; 32]).await?;
            stream.flush().await?;
            let mut echo = [0; 32];
            stream.read_exact(&mut echo).await?;
            std::io::Result::Ok(echo == [7; 32])
        };
        self.run(echoed).await.unwrap_or(false)
    }
}

#[tokio::test]
async fn a_stream_runs_over_the_connection_that_was_named_and_lives_and_dies_with_it() {
    let mut pair = pair().await;
    let [first, second] = pair.connections;
    let mut on_first = pair.open(first, ping::PROTOCOL).await.unwrap();
    let mut on_second = pair.open(second, ping::PROTOCOL).await.unwrap();
    assert!(pair.echoes(&mut on_first).await);
    assert!(pair.echoes(&mut on_second).await);
    assert!(pair.ours.close_connection(first));
    assert!(!pair.echoes(&mut on_first).await);
    assert!(pair.echoes(&mut on_second).await);
    let again = pair.open(first, ping::PROTOCOL).await;
    assert_eq!(again.unwrap_err(), OpenError::Closed);
}

#[tokio::test]
async fn a_protocol_that_the_peer_does_not_speak_is_unsupported() {
    let mut pair = pair().await;
    let connection = pair.connections[0];
    let error = pair.open(connection, StreamProtocol::new("/none/1")).await;
    assert_eq!(error.unwrap_err(), OpenError::Unsupported);
    assert!(pair.open(connection, ping::PROTOCOL).await.is_ok());
}

#[tokio::test]
async fn streams_that_are_being_opened_are_bounded() {
    let mut pair = pair().await;
    let (remote, connection) = (pair.remote, pair.connections[0]);
    let behaviour = &mut pair.ours.behaviour_mut().streams;
    let all: Vec<_> = (0..MAX_OPENING * 8)
        .map(|_| behaviour.open(remote, connection, ping::PROTOCOL))
        .collect();
    let results = pair.run(join_all(all)).await;
    assert!(
        results
            .iter()
            .any(|result| matches!(result, Err(OpenError::Busy)))
    );
    assert!(results.iter().filter(|result| result.is_ok()).count() >= MAX_OPENING);
    drop(results);
    assert!(pair.open(connection, ping::PROTOCOL).await.is_ok());
}

#[tokio::test]
async fn a_peer_that_the_handshake_shows_to_be_of_ours_need_not_identify_itself() {
    for address in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let settings = || swarm::Config::with_tokio_executor();
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let transport = server(&key, tokio_runtime()).unwrap();
        let ping = ping::Behaviour::new(|_, _| NEVER);
        let mut remote = Swarm::new(transport, ping, peer, settings());
        let address = listen(&mut remote, address).await;
        tokio::spawn(remote.for_each(|_| std::future::ready(())));

        let key = Keypair::generate_ed25519();
        let config = Config {
            range: "28300-28309".parse().unwrap(),
            quic: true,
            tcp: true,
            family: FamilyPolicy::Auto,
            congestion: Congestion::Cubic,
        };
        let (transport, handle) = build(&key, config).unwrap();
        let local = key.public().to_peer_id();
        let streams = Behaviour::new(handle.kin().clone());
        let mut ours = Swarm::new(transport, streams, local, settings());
        ours.dial(address).unwrap();
        let (mut opening, mut opened) = (None, None);
        while opened.is_none() {
            tokio::select! {
                event = ours.select_next_some() => {
                    if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                        let opens = ours.behaviour_mut().open(peer, connection_id, ping::PROTOCOL);
                        opening = Some(opens);
                    }
                }
                stream = async { opening.as_mut().unwrap().await }, if opening.is_some() => opened = Some(stream),
            }
        }
        assert!(opened.unwrap().is_ok());
    }
}
