//! Half a request to servers of the host.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
    time::sleep,
};

use super::{
    Args, Tally, forever,
    raw::{socket, tcp_stream},
};

const HALF: &[u8] = b"GET /metrics HTTP/1.1\r\nhost: evil.example\r\n";
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn half_http(args: Arc<Args>, tally: Tally) -> Result<()> {
    let remote = socket(args.at(0)?)?;
    for number in 0..args.connections {
        let (tally, source) = (tally.clone(), args.source(number));
        tokio::spawn(async move {
            loop {
                match tcp_stream(remote, source).await {
                    Ok(stream) => hold(stream, &tally).await,
                    Err(error) => tally.add(&format!("not opened: {error}"), 1),
                }
                sleep(PAUSE).await;
            }
        });
    }
    forever().await
}

const WRONG_HOST: &[u8] =
    b"GET /metrics HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";

pub(super) async fn wrong_host(args: Arc<Args>, tally: Tally) -> Result<()> {
    let remote = socket(args.at(0)?)?;
    for number in 0..args.connections {
        let (tally, source) = (tally.clone(), args.source(number));
        tokio::spawn(async move {
            loop {
                let mut answer = Vec::new();
                let asked = async {
                    let mut stream = tcp_stream(remote, source).await?;
                    stream.write_all(WRONG_HOST).await?;
                    stream.read_to_end(&mut answer).await?;
                    anyhow::Ok(())
                };
                match asked.await {
                    Ok(()) if answer.starts_with(b"HTTP/1.1 200") => tally.add("served", 1),
                    Ok(()) => tally.add("refused", 1),
                    Err(error) => {
                        tally.add(&format!("not asked: {error}"), 1);
                        sleep(PAUSE).await;
                    }
                }
            }
        });
    }
    forever().await
}

/// Each connection asks for the metrics as often as it can write, and reads nothing.
pub(super) async fn pipelined(args: Arc<Args>, tally: Tally) -> Result<()> {
    const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let remote = socket(args.at(0)?)?;
    for number in 0..args.connections {
        let (tally, source) = (tally.clone(), args.source(number));
        tokio::spawn(async move {
            loop {
                if let Ok(mut stream) = tcp_stream(remote, source).await {
                    tally.add("opened", 1);
                    while stream.write_all(REQUEST).await.is_ok() {
                        tally.add("written", 1);
                    }
                }
                sleep(PAUSE).await;
            }
        });
    }
    forever().await
}

pub(super) async fn half_control(args: Arc<Args>, tally: Tally) -> Result<()> {
    let socket = args.socket.clone().context("give --socket")?;
    for _ in 0..args.connections {
        let (tally, socket) = (tally.clone(), socket.clone());
        tokio::spawn(async move {
            loop {
                match UnixStream::connect(&socket).await {
                    Ok(stream) => hold(stream, &tally).await,
                    Err(error) => tally.add(&format!("not opened: {error}"), 1),
                }
                sleep(PAUSE).await;
            }
        });
    }
    forever().await
}

async fn hold(mut stream: impl AsyncRead + AsyncWrite + Unpin, tally: &Tally) {
    tally.add("opened", 1);
    tally.add("open", 1);
    // What the remote says while it ends means nothing.
    if stream.write_all(HALF).await.is_ok() {
        let mut buffer = [0; 256];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    }
    tally.add("open", -1);
}
