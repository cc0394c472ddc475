//! Many streams of one QUIC connection.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::future::poll_fn;

use common::{ORDINARY, config, listener, node};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::StreamMuxerExt as _;

/// Several times what a connection is allowed at first.
const STREAMS: u8 = 200;

#[tokio::test]
async fn a_remote_may_open_more_streams_at_once_as_it_uses_them() {
    let (mut server, addr) = listener("/ip4/127.0.0.1/udp/0/quic-v1").await;
    let (client, _) = node(config("21230-21239"));
    let (_, mut dialed) = client.dial(&addr, ORDINARY).await.unwrap();
    let mut accepted = server.accept().await.muxer;
    let open = async {
        let mut streams = Vec::new();
        for number in 0..STREAMS {
            let mut stream = poll_fn(|cx| dialed.poll_outbound_unpin(cx)).await.unwrap();
            stream.write_all(&[number]).await.unwrap();
            stream.flush().await.unwrap();
            streams.push(stream);
        }
        streams
    };
    // None is let go of before all are there.
    let take = async {
        let mut streams = Vec::new();
        for number in 0..STREAMS {
            let mut stream = poll_fn(|cx| accepted.poll_inbound_unpin(cx)).await.unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            assert_eq!(byte, [number]);
            streams.push(stream);
        }
        streams
    };
    let both = async { futures::join!(open, take) };
    let (opened, taken) = tokio::time::timeout(common::LONG, both).await.unwrap();
    assert_eq!(opened.len(), taken.len());
}
