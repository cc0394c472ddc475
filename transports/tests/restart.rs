//! A process that is killed and runs again under the same identity and port: those who were connected learn it from their next packet.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::{future::poll_fn, time::Duration};

use common::{Node, ORDINARY, config, node};
use futures::AsyncWriteExt;
use libp2p::{
    Multiaddr,
    core::muxing::{StreamMuxer as _, StreamMuxerBox, StreamMuxerExt as _},
    identity::Keypair,
    multiaddr::Protocol,
};
use p2pnode_transports::{Family, Transport, build};
use tokio::runtime::Runtime;

/// The one port of the node that is killed.
const PORT: &str = "21210";

/// Starts a node on a runtime of its own, with which it can be killed without a word.
fn start(keypair: &Keypair) -> (Runtime, Node) {
    let runtime = Runtime::new().unwrap();
    let node = runtime.block_on(async {
        let (transport, handle) = build(keypair, config(PORT)).unwrap();
        assert!(
            handle
                .punch_ports()
                .contains_key(&(Transport::Quic, Family::Ip4))
        );
        Node::run(keypair, transport)
    });
    (runtime, node)
}

/// What the connection ends with once something is sent on it.
fn end(runtime: &Runtime, muxer: &mut StreamMuxerBox) -> String {
    runtime.block_on(async {
        let ended = async {
            let mut stream = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await.unwrap();
            // The answer may be here before these return, and be their error; the connection tells it in any case.
            let _sent = stream.write_all(b"anybody there").await;
            let _flushed = stream.flush().await;
            match poll_fn(|cx| std::pin::Pin::new(&mut *muxer).poll_inbound(cx)).await {
                Ok(_) => "a stream".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        tokio::time::timeout(common::LONG, ended).await.unwrap()
    })
}

#[test]
fn a_killed_node_that_is_back_says_that_it_knows_nothing() {
    let runtime = Runtime::new().unwrap();
    let keypair = Keypair::generate_ed25519();
    let (life, killed) = start(&keypair);
    let addr: Multiaddr = format!("/ip4/127.0.0.1/udp/{PORT}/quic-v1")
        .parse()
        .unwrap();
    let addr = addr.with(Protocol::P2p(killed.peer));
    let (mut muxer, _other) = runtime.block_on(async {
        let (other, _) = node(config("21220-21229"));
        let (_, muxer) = other.dial(&addr, ORDINARY).await.unwrap();
        (muxer, other)
    });
    life.shutdown_timeout(Duration::from_secs(10));
    drop(killed);
    let (_life, _back) = start(&keypair);
    // Otherwise it would be the idle timeout's `timed out`.
    assert_eq!(end(&runtime, &mut muxer), "reset by peer");
}
