//! `iroh-peer receive` and `send`: bytes over one connection, in streams.
//!
//! A stream begins with the number of streams of the transfer, which the receiver answers with a byte, so that the sender knows
//! that all are open; it answers the end of a stream with the end of its own side.

use std::{net::SocketAddr, time::Instant};

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

const CHUNK: usize = 64 * 1024;

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
            let taken = async { take(incoming.await.map_err(whole)?).await };
            if let Err(error) = taken.await {
                eprintln!("a transfer failed: {error:#}");
            }
        });
    }
    Ok(())
}

async fn take(connection: Connection) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    let (mut taken, mut streams) = (0, 1);
    while taken < streams {
        let (send, mut receive) = connection.accept_bi().await?;
        let mut head = [0; 2];
        receive.read_exact(&mut head).await?;
        streams = u16::from_be_bytes(head);
        taken += 1;
        running.spawn(drain(send, receive));
    }
    while let Some(drained) = running.join_next().await {
        drained??;
    }
    // The sender closes when it has read the end of every stream.
    connection.closed().await;
    Ok(())
}

async fn drain(mut send: SendStream, mut receive: RecvStream) -> anyhow::Result<()> {
    send.write_all(&[1]).await?;
    while receive.read_chunk(usize::MAX).await?.is_some() {}
    send.finish()?;
    // Until the sender has it: a stream that is dropped is reset.
    send.stopped().await?;
    Ok(())
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
