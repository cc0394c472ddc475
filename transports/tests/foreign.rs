//! Peers with libp2p's own transports.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{Node, ORDINARY, config, node, speak};
use libp2p::{Transport as _, core::upgrade::Version, identity::Keypair, noise, tcp, yamux};

fn noise_only() -> Node {
    let keypair = Keypair::generate_ed25519();
    let transport = tcp::tokio::Transport::new(tcp::Config::new())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    Node::run(&keypair, transport)
}

#[tokio::test]
async fn a_peer_without_tls_is_dialed_and_accepted_with_noise() {
    let (mut ours, _) = node(config("24000-24009"));
    let mut foreign = noise_only();
    let addr = foreign.listen("/ip4/127.0.0.1/tcp/0").await;
    let (peer, mut dialed) = ours.dial(&addr, ORDINARY).await.unwrap();
    assert_eq!(peer, foreign.peer);
    let mut accepted = foreign.accept().await;
    speak(&mut dialed, &mut accepted.muxer).await;

    let addr = ours.listen("/ip4/127.0.0.1/tcp/0").await;
    let (peer, mut dialed) = foreign.dial(&addr, ORDINARY).await.unwrap();
    assert_eq!(peer, ours.peer);
    let mut accepted = ours.accept().await;
    speak(&mut dialed, &mut accepted.muxer).await;
}
