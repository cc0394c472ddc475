//! A process that is killed and runs again under the same identity and port: its peers learn it from their next packet.

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
use p2pnode_transports::{Closed, Family, Transport, build, closed};
use tokio::runtime::Runtime;

/// Starts a node on a runtime of its own, with which it can be killed without a word.
fn start(keypair: &Keypair, port: &str) -> (Runtime, Node) {
    let runtime = Runtime::new().unwrap();
    let node = runtime.block_on(async {
        let (transport, handle) = build(keypair, config(port)).unwrap();
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
fn end(runtime: &Runtime, muxer: &mut StreamMuxerBox) -> Option<Closed> {
    runtime.block_on(async {
        let ended = async {
            // The answer may arrive before these return, also to a probe of QUIC, and be their error. The connection reports it in
            // any case.
            if let Ok(mut stream) = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await {
                let _sent = stream.write_all(b"anybody there").await;
                let _flushed = stream.flush().await;
            }
            match poll_fn(|cx| std::pin::Pin::new(&mut *muxer).poll_inbound(cx)).await {
                Ok(_) => panic!("a stream of a killed process"),
                Err(error) => closed(&error),
            }
        };
        tokio::time::timeout(common::LONG, ended).await.unwrap()
    })
}

/// A connection from the ports of `range` to a node at `port`, which is killed then.
fn killed(keypair: &Keypair, port: &str, range: &str) -> (Runtime, StreamMuxerBox, Node) {
    let runtime = Runtime::new().unwrap();
    let (life, killed) = start(keypair, port);
    let addr: Multiaddr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1")
        .parse()
        .unwrap();
    let addr = addr.with(Protocol::P2p(killed.peer));
    let (muxer, other) = runtime.block_on(async {
        let (other, _) = node(config(range));
        let (_, muxer) = other.dial(&addr, ORDINARY).await.unwrap();
        (muxer, other)
    });
    life.shutdown_timeout(Duration::from_secs(10));
    (runtime, muxer, other)
}

#[test]
fn a_killed_node_that_is_back_resets_its_connections() {
    let keypair = Keypair::generate_ed25519();
    let (runtime, mut muxer, _other) = killed(&keypair, "21210", "21220-21229");
    let (_life, _back) = start(&keypair, "21210");
    assert_eq!(end(&runtime, &mut muxer), Some(Closed::Reset));
}

#[test]
fn the_connection_to_a_killed_node_that_stays_away_times_out() {
    let keypair = Keypair::generate_ed25519();
    let (runtime, mut muxer, _other) = killed(&keypair, "21211", "21212-21219");
    assert_eq!(end(&runtime, &mut muxer), Some(Closed::TimedOut));
}
