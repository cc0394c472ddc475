//! Many streams of one connection, and how they end.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::{future::poll_fn, io};

use common::{ORDINARY, config, listener, node};
use futures::{
    AsyncReadExt, AsyncWriteExt,
    channel::oneshot,
    future::{Either, select},
};
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

/// What ends a stream of one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Close,
    Drop,
    Connection,
}

/// yamux itself reads an end in all cases.
#[tokio::test]
async fn over_tcp_a_stream_reads_an_end_only_if_its_remote_has_ended_it() {
    for ends in [Ends::Close, Ends::Drop, Ends::Connection] {
        let (mut server, addr) = listener("/ip4/127.0.0.1/tcp/0").await;
        let (client, _) = node(config("21240-21249"));
        let (dialed, accepted) = futures::join!(client.dial(&addr, ORDINARY), server.accept());
        let (mut dialed, mut accepted) = (dialed.unwrap().1, accepted.muxer);
        let (has_read, is_read) = oneshot::channel();
        let sends = async move {
            let mut stream = poll_fn(|cx| dialed.poll_outbound_unpin(cx)).await.unwrap();
            stream.write_all(&[7]).await.unwrap();
            stream.flush().await.unwrap();
            let drives = poll_fn(|cx| dialed.poll_unpin(cx).map(drop));
            select(drives, is_read).await;
            match ends {
                Ends::Close => stream.close().await.unwrap(),
                Ends::Drop => drop(stream),
                Ends::Connection => return drop(dialed),
            }
            // The connection sends what its streams have left to it.
            poll_fn(|cx| dialed.poll_unpin(cx).map(drop)).await;
        };
        let reads = async move {
            let mut stream = poll_fn(|cx| accepted.poll_inbound_unpin(cx)).await.unwrap();
            let read = Box::pin(async move {
                stream.read_exact(&mut [0]).await.unwrap();
                has_read.send(()).unwrap();
                stream.read(&mut [0]).await
            });
            match select(read, poll_fn(|cx| accepted.poll_unpin(cx).map(drop))).await {
                Either::Left((read, _)) => read,
                Either::Right(((), read)) => read.await,
            }
        };
        let both = select(Box::pin(reads), Box::pin(sends));
        let read = match tokio::time::timeout(common::LONG, both).await.unwrap() {
            Either::Left((read, _)) => read,
            Either::Right(((), reads)) => reads.await,
        };
        let read = read.map_err(|error| error.kind());
        let expected = match ends {
            Ends::Close => Ok(0),
            Ends::Drop | Ends::Connection => Err(io::ErrorKind::ConnectionReset),
        };
        assert_eq!(read, expected, "{ends:?}");
    }
}
