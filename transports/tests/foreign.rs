//! Peers with libp2p's own transports.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::{error::Error, future::poll_fn};

use common::{Connection, LONG, Node, ORDINARY, config, node, speak};
use libp2p::{
    Transport as _,
    core::{
        muxing::{StreamMuxerBox, StreamMuxerExt as _},
        upgrade::Version,
    },
    identity::Keypair,
    noise, tcp, yamux,
};

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

/// A connection of ours to a peer without TLS, and its end of it.
async fn connected(range: &str) -> (StreamMuxerBox, StreamMuxerBox) {
    let (ours, _) = node(config(range));
    let mut foreign = noise_only();
    let addr = foreign.listen("/ip4/127.0.0.1/tcp/0").await;
    let (_, mut dialed): Connection = ours.dial(&addr, ORDINARY).await.unwrap();
    let mut accepted = foreign.accept().await.muxer;
    speak(&mut dialed, &mut accepted).await;
    (dialed, accepted)
}

/// How a connection ends, in the words of the innermost error.
async fn end(muxer: &mut StreamMuxerBox) -> String {
    let ended = async {
        loop {
            if let Err(error) = poll_fn(|cx| muxer.poll_unpin(cx)).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(LONG, ended).await.unwrap();
    let mut innermost: &dyn Error = &error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

#[tokio::test]
async fn a_peer_without_tls_that_closes_a_connection_is_told_from_one_that_is_gone() {
    let (mut ours, mut theirs) = connected("24040-24049").await;
    poll_fn(|cx| theirs.poll_close_unpin(cx)).await.unwrap();
    // yamux has got a GoAway.
    assert_eq!(end(&mut ours).await, "connection is closed");

    let (mut ours, theirs) = connected("24050-24059").await;
    // The kernel closes the socket, as it does when a process is killed.
    drop(theirs);
    assert_eq!(
        end(&mut ours).await,
        "the connection ended without a goodbye"
    );
}
