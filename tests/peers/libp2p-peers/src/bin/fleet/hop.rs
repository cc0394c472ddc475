//! Streams of the [circuit relay protocol](https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md) that are not as it
//! wants them, or more of them than it wants.

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use futures::{
    AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _,
    future::{Either, select},
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, identity::Keypair, swarm::SwarmEvent};
use libp2p_peers::{Role, id, meet, peer, read_message, take_varint, tell, varint, write};
use libp2p_stream::Control;
use serde_json::json;
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet};

use crate::{pace::Pace, tally::Tally};

const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");
/// `HopMessage { type: RESERVE }`, with its length before it.
const RESERVE: [u8; 3] = [2, 0x08, 0];
/// The longest message that the protocol allows.
const LONGEST: usize = 4096;
/// What is written where it should never end: far more than any buffer on the way holds.
const ENDLESS: usize = 4 * 1024 * 1024;
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The relay, with its peer id at the end.
    #[arg(long)]
    relay: Multiaddr,
    /// How many peers misbehave.
    #[arg(long, default_value_t = 1)]
    peers: usize,
    /// How often each.
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// How.
    #[arg(long)]
    how: How,
    /// The peer to which `connect` asks for circuits.
    #[arg(long, required_if_eq("how", "connect"))]
    to: Option<PeerId>,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// A stream on which nothing is said.
    Silent,
    /// A message that is longer than allowed, and says so.
    Oversized,
    /// A message that ends in the middle.
    Truncated,
    /// A length that never ends, and bytes that never end.
    Endless,
    /// Bytes of an allowed length that mean nothing.
    Garbage,
    /// A reservation, again and again, over one connection.
    Reserve,
    /// A circuit on which then nothing is said.
    Connect,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    id(&args.relay)?;
    let tally = Tally::start(&["peers", "connected", "tried", "held"], 0);
    tally.add("peers", i64::try_from(args.peers)?);
    let mut starter = args.pace.start();
    let mut peers = JoinSet::new();
    for _ in 0..args.peers {
        let Some(place) = starter.next().await else {
            break;
        };
        let (args, tally) = (args.clone(), tally.clone());
        peers.spawn(async move {
            if let Err(error) = misbehave(&args, &tally, place).await {
                tally.because("errors", &format!("{error:#}"));
            }
        });
    }
    while let Some(ended) = peers.join_next().await {
        ended?;
    }
    tally.tell();
    tell(&json!({"event": "abused", "peers": args.peers, "times": args.times}));
    std::future::pending().await
}

/// Returns once everything was tried; what is held open is so for good.
async fn misbehave(args: &Args, tally: &Tally, place: OwnedSemaphorePermit) -> Result<()> {
    let relay = id(&args.relay)?;
    let mut swarm = peer(Keypair::generate_ed25519(), Role::Client)?;
    meet(&mut swarm, &args.relay, |_| ()).await?;
    drop(place);
    tally.add("connected", 1);
    let control = swarm.behaviour().stream.new_control();
    let connection = tally.clone();
    tokio::spawn(async move {
        loop {
            if let SwarmEvent::ConnectionClosed { cause, .. } = swarm.select_next_some().await {
                let cause = cause.map_or_else(|| "closed".to_owned(), |cause| cause.to_string());
                connection.add("connected", -1);
                connection.because("disconnected", &cause);
            }
        }
    });
    for _ in 0..args.times {
        let outcome = one(control.clone(), relay, args, tally).await;
        tally.add("tried", 1);
        match outcome {
            Ok(outcome) => tally.because("outcome", &outcome),
            Err(error) => tally.because("outcome", &format!("{error:#}")),
        }
    }
    Ok(())
}

async fn one(mut control: Control, relay: PeerId, args: &Args, tally: &Tally) -> Result<String> {
    let mut stream = control.open_stream(relay, HOP).await?;
    match args.how {
        How::Silent => {
            // The negotiation is sent with the first byte, or with this.
            stream.flush().await?;
            hold(stream, tally);
            return Ok("held".to_owned());
        }
        How::Oversized => {
            write(&mut stream, &varint(16 * LONGEST)).await?;
            write(&mut stream, &[0; 16 * LONGEST]).await?;
        }
        How::Truncated => {
            write(&mut stream, &RESERVE[..2]).await?;
            stream.close().await?;
        }
        How::Endless => {
            let (mut reader, mut writer) = stream.split();
            let write = async {
                for _ in 0..ENDLESS / LONGEST {
                    writer.write_all(&[0xff; LONGEST]).await?;
                }
                writer.flush().await
            };
            // yamux does not tell who has used up its credit that the stream is gone: only the answer says so.
            return match select(pin!(write), pin!(status(&mut reader))).await {
                Either::Left((Ok(()), status)) => status.await,
                Either::Left((Err(_), _)) => Ok("ended".to_owned()),
                Either::Right((status, _)) => status,
            };
        }
        How::Garbage => {
            let bytes: Vec<u8> = (0..1000).map(|_| fastrand::u8(..)).collect();
            write(&mut stream, &varint(bytes.len())).await?;
            write(&mut stream, &bytes).await?;
        }
        How::Reserve => write(&mut stream, &RESERVE).await?,
        How::Connect => {
            let to = args.to.context("no peer to connect to")?;
            write(&mut stream, &connect(to)).await?;
            let status = status(&mut stream).await?;
            if status == "ok" {
                hold(stream, tally);
            }
            return Ok(status);
        }
    }
    status(&mut stream).await
}

/// Keeps the stream until the other side ends it.
fn hold(mut stream: Stream, tally: &Tally) {
    tally.add("held", 1);
    let tally = tally.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        // What comes means nothing; an error and an end mean the same.
        while let Ok(1..) = stream.read(&mut buffer).await {}
        tally.add("held", -1);
    });
}

/// The status of the relay's answer, by its name in the protocol.
async fn status(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let answer = tokio::time::timeout(ANSWER, answer(stream)).await;
    let Ok(answer) = answer else {
        return Ok("no answer".to_owned());
    };
    let Ok(answer) = answer else {
        return Ok("ended".to_owned());
    };
    Ok(match answer {
        Some(100) => "ok".to_owned(),
        Some(200) => "reservation_refused".to_owned(),
        Some(201) => "resource_limit_exceeded".to_owned(),
        Some(202) => "permission_denied".to_owned(),
        Some(203) => "connection_failed".to_owned(),
        Some(204) => "no_reservation".to_owned(),
        Some(400) => "malformed_message".to_owned(),
        Some(401) => "unexpected_message".to_owned(),
        other => format!("status {other:?}"),
    })
}

/// Field 5 of a `HopMessage`, a varint.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<u64>> {
    let body = read_message(stream).await?;
    let mut rest = body.as_slice();
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        let value = take_varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (5, 0) => return Ok(Some(value)),
            (_, 0) => {}
            (_, 2) => {
                let after = rest.get(usize::try_from(value)?..);
                rest = after.context("a field is cut off")?;
            }
            other => anyhow::bail!("field and type {other:?}"),
        }
    }
    Ok(None)
}

/// `HopMessage { type: CONNECT, peer: Peer { id } }`.
fn connect(to: PeerId) -> Vec<u8> {
    let id = to.to_bytes();
    let peer = [vec![0x0a], varint(id.len()), id].concat();
    let body = [vec![0x08, 1, 0x12], varint(peer.len()), peer].concat();
    [varint(body.len()), body].concat()
}
