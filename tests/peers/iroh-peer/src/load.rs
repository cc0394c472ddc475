//! `iroh-peer receive` and `send`: bytes over one connection, in streams.
//!
//! A stream begins with the number of streams of the transfer, which the receiver answers with a byte, so that the sender knows
//! that all are open; it answers the end of a stream with the end of its own side.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use iroh::{
    EndpointAddr, TransportAddr,
    endpoint::{Connection, RecvStream, SendStream},
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    task::JoinSet,
};

use crate::{
    Path,
    endpoint::{ALPN, Address, for_data, whole},
    tell,
};

/// What is written at once.
const CHUNK: usize = 64 * 1024;

/// Counts what comes, transfer by transfer, until killed.
pub(crate) async fn receive(path: Path, listen: Option<SocketAddr>) -> anyhow::Result<()> {
    let endpoint = for_data(&path, listen).await?;
    let address = EndpointAddr::new(endpoint.id());
    let address = match (path.relay, listen) {
        (Some(relay), _) => {
            endpoint.online().await;
            address.with_relay_url(relay)
        }
        (None, Some(_)) => {
            let sockets = endpoint.bound_sockets().into_iter();
            address.with_addrs(sockets.map(TransportAddr::Ip))
        }
        (None, None) => endpoint.addr(),
    };
    tell(&json!({"event": "listening", "address": Address(address).to_string()}));
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let received = async { count(incoming.await.map_err(whole)?).await };
            match received.await {
                Ok((bytes, seconds)) => {
                    tell(&json!({"event": "received", "bytes": bytes, "seconds": seconds}));
                }
                Err(error) => eprintln!("a transfer failed: {error:#}"),
            }
        });
    }
    Ok(())
}

/// The bytes of one transfer, and the seconds from its first byte to its last.
async fn count(connection: Connection) -> anyhow::Result<(u64, f64)> {
    let (send, mut receive) = connection.accept_bi().await?;
    let mut streams = [0; 2];
    receive.read_exact(&mut streams).await?;
    let mut running = JoinSet::new();
    running.spawn(drain(send, receive));
    for _ in 1..u16::from_be_bytes(streams) {
        let (send, mut receive) = connection.accept_bi().await?;
        receive.read_exact(&mut streams).await?;
        running.spawn(drain(send, receive));
    }
    let (mut bytes, mut first, mut last) = (0, None, None);
    while let Some(drained) = running.join_next().await {
        let drained = drained??;
        bytes += drained.bytes;
        first = first.into_iter().chain(drained.first).min();
        last = last.max(Some(drained.last));
    }
    // The sender closes when it has read the end of every stream.
    connection.closed().await;
    let took = last
        .zip(first)
        .map_or(Duration::ZERO, |(last, first)| last - first);
    Ok((bytes, took.as_secs_f64()))
}

struct Drained {
    bytes: u64,
    first: Option<Instant>,
    last: Instant,
}

async fn drain(mut send: SendStream, mut receive: RecvStream) -> anyhow::Result<Drained> {
    send.write_all(&[1]).await?;
    let (mut bytes, mut first) = (0, None);
    while let Some(chunk) = receive.read_chunk(usize::MAX).await? {
        first.get_or_insert_with(Instant::now);
        bytes += chunk.len() as u64;
    }
    let last = Instant::now();
    send.finish()?;
    // Until the sender has it: a stream that is dropped is reset.
    send.stopped().await?;
    Ok(Drained { bytes, first, last })
}

/// Sends when a line comes on stdin, and tells when all of it has been read.
pub(crate) async fn send(
    path: Path,
    address: Address,
    bytes: u64,
    streams: u16,
) -> anyhow::Result<()> {
    let endpoint = for_data(&path, None).await?;
    let connection = endpoint.connect(address.0, ALPN).await.map_err(whole)?;
    let mut open = Vec::new();
    for _ in 0..streams {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(&streams.to_be_bytes()).await?;
        receive.read_exact(&mut [0; 1]).await?;
        open.push((send, receive));
    }
    tell(&json!({"event": "open"}));
    let line = BufReader::new(tokio::io::stdin())
        .lines()
        .next_line()
        .await?;
    line.context("stdin ended without a line")?;
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (index, (send, receive)) in (0_u64..).zip(open) {
        let all = u64::from(streams);
        let part = bytes / all + u64::from(index < bytes % all);
        running.spawn(fill(send, receive, part));
    }
    while let Some(filled) = running.join_next().await {
        filled??;
    }
    let seconds = began.elapsed().as_secs_f64();
    tell(&json!({"event": "sent", "bytes": bytes, "seconds": seconds}));
    connection.close(0_u32.into(), b"done");
    endpoint.close().await;
    Ok(())
}

async fn fill(mut send: SendStream, mut receive: RecvStream, bytes: u64) -> anyhow::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let now = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        send.write_all(&chunk[..now]).await?;
        left -= now as u64;
    }
    send.finish()?;
    let end = receive.read_chunk(usize::MAX).await?;
    ensure!(end.is_none(), "the receiver answers with data");
    Ok(())
}
