//! A stalled handshake and an aborted one are different errors, through all layers that a swarm puts around the transport.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a swarm has many events, and the test waits for two"
)]

use std::time::Duration;

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, SwarmBuilder,
    identity::Keypair,
    multiaddr::Protocol,
    swarm::{ListenError, SwarmEvent, dummy},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// Whether a TCP connection on which `said` is all that is said fails because time is up.
async fn is_timeout(said: &[u8]) -> bool {
    let key = Keypair::generate_ed25519();
    let transport = p2pnode_transports::server(&key, p2pnode_transports::tokio_runtime()).unwrap();
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|_| transport)
        .unwrap()
        .with_behaviour(|_| dummy::Behaviour)
        .unwrap()
        .with_swarm_config(|config| config)
        .with_connection_timeout(Duration::from_secs(60))
        .build();
    let any: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    swarm.listen_on(any).unwrap();
    let mut streams = Vec::new();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                let Some(Protocol::Tcp(port)) = address.iter().nth(1) else {
                    panic!("{address}");
                };
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                stream.write_all(said).await.unwrap();
                streams.push(stream);
            }
            SwarmEvent::IncomingConnectionError {
                error: ListenError::Transport(error),
                ..
            } => {
                return p2pnode_transports::timed_out(&error);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn silence_is_a_timeout() {
    assert!(is_timeout(b"").await);
}

#[tokio::test]
async fn nonsense_is_none() {
    assert!(!is_timeout(&[0xff; 100]).await);
}
