//! Bytes that are sent and that the remote has to keep.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures::AsyncWriteExt as _;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Args, Tally, forever,
    raw::{Identity, STOP, Stream, Wire, line, negotiate},
};

const CHUNK: [u8; 16 * 1024] = [0; 16 * 1024];
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn unread(args: Arc<Args>, tally: Tally) -> Result<()> {
    for number in 0..args.connections {
        let (args, tally) = (Arc::clone(&args), tally.clone());
        tokio::spawn(async move {
            loop {
                let wire = args.connect(number, &Identity::new()).await;
                tally.outcome("connected", &wire);
                if let Ok(wire) = wire {
                    if args.reserve {
                        tally.outcome("reserved", &wire.reserve().await);
                    }
                    fill(&args, &wire, &tally).await;
                    tally.add("disconnected", 1);
                }
                sleep(PAUSE).await;
            }
        });
    }
    forever().await
}

/// Keeps so many streams, and writes into each for as long as the remote allows, until the connection ends.
async fn fill(args: &Args, wire: &Wire, tally: &Tally) {
    let mut streams = JoinSet::new();
    for number in 0..args.streams {
        let (protocol, tally, wire) = (args.protocol.clone(), tally.clone(), wire.clone());
        streams.spawn(async move {
            loop {
                let Ok(stream) = wire.stream().await else {
                    return;
                };
                tally.add("streams", 1);
                let written = match &protocol {
                    None if !wire.is_quic() => negotiating(stream, number, &tally).await,
                    protocol => write(stream, protocol.as_deref(), &tally).await,
                };
                tally.outcome("streams", &written);
                sleep(PAUSE).await;
            }
        });
    }
    wire.closed().await;
}

/// Streams that libp2p negotiates at once, on a connection. What comes on others waits.
const NEGOTIATING: usize = 128;

async fn negotiating(mut stream: Stream, number: usize, tally: &Tally) -> Result<()> {
    if number >= NEGOTIATING {
        return pour(stream, tally).await;
    }
    stream.write_all(&line("/multistream/1.0.0")).await?;
    stream.flush().await?;
    futures::io::copy(&mut stream, &mut futures::io::sink()).await?;
    Ok(())
}

/// Without a protocol to agree on, proposes others for ever and reads no refusal: the remote stops to read once it cannot write.
async fn write(mut stream: Stream, protocol: Option<&str>, tally: &Tally) -> Result<()> {
    let chunk = match protocol {
        Some(protocol) => {
            negotiate(&mut stream, protocol).await?;
            CHUNK.to_vec()
        }
        None => {
            stream.write_all(&line("/multistream/1.0.0")).await?;
            line("/x").repeat(CHUNK.len() / 4)
        }
    };
    loop {
        stream.write_all(&chunk).await.context("reset")?;
        tally.add("bytes", i64::try_from(chunk.len())?);
        stream.flush().await.context("reset")?;
    }
}

pub(super) async fn unread_in_circuits(args: Arc<Args>, tally: Tally) -> Result<()> {
    let to = args.to()?;
    for number in 0..args.connections {
        let (args, tally) = (Arc::clone(&args), tally.clone());
        tokio::spawn(async move {
            loop {
                let opened = async {
                    let identity = Identity::new();
                    let relay = args.connect(number, &identity).await.context("connect")?;
                    let circuit = relay.circuit(to).await.context("circuit")?;
                    let inside = Wire::inside(circuit, &identity).await?;
                    anyhow::Ok((relay, inside))
                };
                let opened = opened.await;
                tally.outcome("connected", &opened);
                if let Ok((_relay, inside)) = opened {
                    fill(&args, &inside, &tally).await;
                    tally.add("disconnected", 1);
                }
                sleep(PAUSE).await;
            }
        });
    }
    forever().await
}

pub(super) async fn circuits_nobody_reads(args: Arc<Args>, tally: Tally) -> Result<()> {
    let called = Identity::new().speaking(&[STOP]);
    let destination = args.connect(0, &called).await.context("destination")?;
    destination.reserve().await.context("reservation")?;
    let to = called.id();
    let (held, accepting) = (tally.clone(), destination.clone());
    tokio::spawn(async move {
        let mut circuits = Vec::new();
        while let Some((_, mut stream)) = accepting.accept().await {
            libp2p_peers::read_message(&mut stream).await?;
            // `StopMessage { type: STATUS, status: OK }`
            stream.write_all(&[4, 0x08, 1, 0x20, 100]).await?;
            stream.flush().await?;
            held.add("accepted", 1);
            circuits.push(stream);
        }
        anyhow::Ok(())
    });
    let mut sources = Vec::new();
    for number in 0..args.connections {
        sources.push(args.connect(number, &Identity::new()).await?);
    }
    let mut circuits = JoinSet::new();
    for number in 0..args.streams {
        let (wire, tally) = (sources[number % sources.len()].clone(), tally.clone());
        circuits.spawn(async move {
            let circuit = wire.circuit(to).await;
            tally.outcome("circuits", &circuit);
            circuit
        });
    }
    // Data before would make the others late.
    for circuit in circuits.join_all().await.into_iter().flatten() {
        let tally = tally.clone();
        tokio::spawn(async move {
            let written = pour(circuit, &tally).await;
            tally.outcome("poured", &written);
        });
    }
    destination.closed().await;
    forever().await
}

async fn pour(mut circuit: Stream, tally: &Tally) -> Result<()> {
    loop {
        circuit.write_all(&CHUNK).await.context("reset")?;
        tally.add("bytes", i64::try_from(CHUNK.len())?);
        circuit.flush().await.context("reset")?;
    }
}
