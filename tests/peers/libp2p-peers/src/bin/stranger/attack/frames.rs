//! Frames of yamux that no multiplexer writes, and the same over QUIC as far as it goes.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, future::Either};
use tokio::time::sleep;

use super::{
    Args, Tally, What, forever,
    raw::{Identity, Stream, Wire, line, negotiate},
};

const PAUSE: Duration = Duration::from_millis(100);
/// Frames that are written at once.
const BATCH: u32 = 256;

const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 1;
const PING: u8 = 2;
const SYN: u8 = 1;
const RST: u8 = 8;

/// A header without a body, see <https://github.com/hashicorp/yamux/blob/master/spec.md>.
fn frame(kind: u8, flags: u8, stream: u32, length: u32) -> [u8; 12] {
    let ([a, b, c, d], [e, f, g, h]) = (stream.to_be_bytes(), length.to_be_bytes());
    [0, kind, 0, flags, a, b, c, d, e, f, g, h]
}

/// What is written for the stream of this number, again and again.
fn frames(what: What, number: u32) -> Vec<u8> {
    let stream = number.wrapping_mul(2) | 1;
    match what {
        What::Pings => frame(PING, SYN, 0, number).to_vec(),
        What::Updates => [
            frame(WINDOW_UPDATE, 0, stream, 1 << 20),
            frame(DATA, 0, stream, 0),
        ]
        .concat(),
        _ => [frame(DATA, SYN, stream, 0), frame(DATA, RST, stream, 0)].concat(),
    }
}

/// On each connection frames as fast as it takes them. In circuits to a peer if one is named. Answers to pings are not read.
pub(super) async fn flood(args: Arc<Args>, tally: Tally) -> Result<()> {
    for number in 0..args.connections {
        let (args, tally) = (Arc::clone(&args), tally.clone());
        tokio::spawn(async move {
            loop {
                let ended = one(&args, number, &tally).await;
                tally.outcome("ended", &ended);
                sleep(PAUSE).await;
            }
        });
    }
    forever().await
}

async fn one(args: &Args, number: usize, tally: &Tally) -> Result<()> {
    let identity = Identity::new();
    let relay;
    let stream = if args.to.is_some() {
        relay = args.connect(number, &identity).await.context("connect")?;
        let circuit = relay.circuit(args.to()?).await.context("circuit")?;
        Wire::frames_inside(circuit, &identity).await?
    } else if args.at(number)?.to_string().contains("/quic-v1") {
        return streams(&args.connect(number, &identity).await?, tally).await;
    } else {
        Wire::frames(args.at(number)?, &identity, args.source(number)).await?
    };
    tally.add("connected", 1);
    pour(stream, args.what, tally).await
}

async fn pour(stream: Stream, what: What, tally: &Tally) -> Result<()> {
    let (mut read, mut write) = stream.split();
    let reads = async {
        if what == What::Pings {
            return std::future::pending().await;
        }
        let mut answers = vec![0; 64 * 1024];
        while read.read(&mut answers).await.is_ok_and(|read| read > 0) {}
    };
    let writes = async {
        let mut number = 0;
        loop {
            let batch: Vec<u8> = (number..number + BATCH)
                .flat_map(|number| frames(what, number))
                .collect();
            number += BATCH;
            write.write_all(&batch).await.context("reset")?;
            write.flush().await.context("reset")?;
            tally.add("frames", i64::from(BATCH));
            // A task that never waits starves the others.
            tokio::task::yield_now().await;
        }
    };
    match futures::future::select(Box::pin(reads), Box::pin(writes)).await {
        Either::Left(_) => Ok(()),
        Either::Right((written, _)) => written,
    }
}

/// Streams of QUIC with one byte each, as many as the remote grants.
async fn streams(wire: &Wire, tally: &Tally) -> Result<()> {
    tally.add("connected", 1);
    loop {
        let mut stream = wire.stream().await?;
        stream.write_all(&[19]).await?;
        drop(stream);
        tally.add("frames", 1);
        tokio::task::yield_now().await;
    }
}

/// Proposals of protocols that nobody speaks, on streams that stay, each after the refusal of the last.
pub(super) async fn propose(args: Arc<Args>, tally: Tally) -> Result<()> {
    for number in 0..args.connections {
        let (args, tally) = (Arc::clone(&args), tally.clone());
        tokio::spawn(async move {
            loop {
                let wire = args.connect(number, &Identity::new()).await;
                tally.outcome("connected", &wire);
                let Ok(wire) = wire else {
                    sleep(PAUSE).await;
                    continue;
                };
                for _ in 0..args.streams {
                    let (wire, tally) = (wire.clone(), tally.clone());
                    tokio::spawn(async move {
                        loop {
                            let ended = proposals(&wire, &tally).await;
                            tally.outcome("ended", &ended);
                            sleep(PAUSE).await;
                        }
                    });
                }
                wire.closed().await;
                tally.add("disconnected", 1);
            }
        });
    }
    forever().await
}

async fn proposals(wire: &Wire, tally: &Tally) -> Result<()> {
    let mut stream = wire.stream().await?;
    // Consent to multistream alone, and then one refusal after the other.
    let _refused = negotiate(&mut stream, "/nobody").await;
    let mut refusal = vec![0; line("na").len()];
    loop {
        stream.write_all(&line("/nobody")).await?;
        stream.flush().await?;
        stream.read_exact(&mut refusal).await?;
        tally.add("proposals", 1);
    }
}
