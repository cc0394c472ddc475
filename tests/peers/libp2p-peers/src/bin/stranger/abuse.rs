//! What a peer may do to another with DCUtR streams.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{Multiaddr, PeerId, Stream};
use libp2p_peers::{read_message, tell, varint, write};
use libp2p_stream::{Control, IncomingStreams};
use serde_json::json;

use crate::DCUTR;

/// `HolePunch.Type.CONNECT` and `SYNC`.
const CONNECT: u8 = 100;
const SYNC: [u8; 4] = [3, 0x08, 0xac, 0x02];
/// How long a stream is held open on which nothing is said.
const SILENCE: Duration = Duration::from_secs(15);
/// What is written where it should never end: far beyond every limit of the protocol, and of a yamux window.
const ENDLESS: usize = 4 * 1024 * 1024;

/// How a peer is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Abuse {
    /// Not at all: nothing is said, nothing is answered.
    None,
    /// Streams are opened and held, and nothing is said on them.
    Silent,
    /// A message that says it is longer than allowed, and is.
    Oversized,
    /// A message that ends in the middle.
    Truncated,
    /// A length that never ends, and bytes that never end.
    Endless,
    /// Bytes of the right length that mean nothing.
    Garbage,
    /// A message of the largest size, full of candidates.
    Crowded,
    /// SYNC where CONNECT is due.
    Disordered,
    /// Well-formed handshakes with the candidates that were given.
    Handshake,
}

pub(crate) async fn begin(
    mut control: Control,
    peer: PeerId,
    abuse: Abuse,
    candidates: Vec<Multiaddr>,
    times: u32,
) {
    let mut refused = 0;
    if abuse != Abuse::None {
        for _ in 0..times {
            match control.open_stream(peer, DCUTR).await {
                Ok(stream) if abuse == Abuse::Silent => {
                    tokio::spawn(hold(stream));
                }
                Ok(stream) => refused += u32::from(open(stream, abuse, &candidates).await.is_err()),
                Err(_) => refused += 1,
            }
        }
    }
    tell(&json!({"event": "abused", "peer": peer.to_string(), "times": times, "refused": refused}));
}

pub(crate) async fn answer(
    mut incoming: IncomingStreams,
    abuse: Abuse,
    candidates: Vec<Multiaddr>,
) {
    while let Some((peer, stream)) = incoming.next().await {
        if abuse == Abuse::None {
            // Whoever asks is left waiting for an end of the stream.
            continue;
        }
        let candidates = candidates.clone();
        tokio::spawn(async move {
            let error = reply(stream, abuse, &candidates)
                .await
                .err()
                .map(|error| format!("{error:#}"));
            tell(&json!({"event": "answered", "peer": peer.to_string(), "error": error}));
        });
    }
}

async fn open(mut stream: Stream, abuse: Abuse, candidates: &[Multiaddr]) -> Result<()> {
    if abuse != Abuse::Handshake {
        return misbehave(stream, abuse).await;
    }
    stream.write_all(&connect(candidates)).await?;
    stream.flush().await?;
    read_message(&mut stream).await?;
    stream.write_all(&SYNC).await?;
    stream.close().await?;
    Ok(())
}

async fn reply(mut stream: Stream, abuse: Abuse, candidates: &[Multiaddr]) -> Result<()> {
    read_message(&mut stream).await?;
    if abuse != Abuse::Handshake {
        return misbehave(stream, abuse).await;
    }
    stream.write_all(&connect(candidates)).await?;
    stream.flush().await?;
    read_message(&mut stream).await.map(drop)
}

async fn misbehave(mut stream: Stream, abuse: Abuse) -> Result<()> {
    match abuse {
        Abuse::None | Abuse::Handshake => {}
        Abuse::Silent => hold(stream).await,
        Abuse::Oversized => {
            write(&mut stream, &varint(1 << 16)).await?;
            write(&mut stream, &[0; 1 << 16]).await?;
            wait_for_end(&mut stream).await;
        }
        Abuse::Truncated => {
            let whole = connect(&["/ip4/198.51.100.1/tcp/4001".parse()?]);
            write(&mut stream, &whole[..whole.len() / 2]).await?;
            stream.close().await?;
        }
        Abuse::Endless => {
            for _ in 0..ENDLESS / 4096 {
                write(&mut stream, &[0xff; 4096]).await?;
            }
        }
        Abuse::Garbage => {
            let bytes: Vec<u8> = (0..1000).map(|_| fastrand::u8(..)).collect();
            write(&mut stream, &varint(bytes.len())).await?;
            write(&mut stream, &bytes).await?;
            wait_for_end(&mut stream).await;
        }
        Abuse::Crowded => {
            let crowd = (0..u16::MAX)
                .map(|n| format!("/ip4/203.0.113.{}/tcp/{}", n % 256, 1000 + n / 256).parse())
                .take(4096 / 10)
                .collect::<Result<Vec<_>, _>>()?;
            write(&mut stream, &connect(&crowd)).await?;
            wait_for_end(&mut stream).await;
        }
        Abuse::Disordered => {
            write(&mut stream, &SYNC).await?;
            wait_for_end(&mut stream).await;
        }
    }
    Ok(())
}

async fn hold(stream: Stream) {
    tokio::time::sleep(SILENCE).await;
    drop(stream);
}

async fn wait_for_end(stream: &mut Stream) {
    let mut byte = [0];
    // Any outcome will do: it said something, it ended the stream, or it holds it.
    let _outcome = tokio::time::timeout(SILENCE, stream.read(&mut byte)).await;
}

/// CONNECT with as many of the candidates as a message of 4096 bytes holds.
fn connect(candidates: &[Multiaddr]) -> Vec<u8> {
    let mut body = vec![0x08, CONNECT];
    for candidate in candidates {
        let bytes = candidate.as_ref();
        let length = varint(bytes.len());
        if body.len() + 1 + length.len() + bytes.len() > 4096 {
            break;
        }
        body.push(0x12);
        body.extend(length);
        body.extend_from_slice(bytes);
    }
    let mut message = varint(body.len());
    message.extend(body);
    message
}
