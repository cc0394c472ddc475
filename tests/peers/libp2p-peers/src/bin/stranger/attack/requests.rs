//! Requests, as many as there can be.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{PeerId, core::SignedEnvelope, identity::Keypair};
use libp2p_peers::{read_message, varint};
use serde_json::json;
use tokio::time::{interval, timeout};

use super::{
    Args, Tally, What, forever,
    raw::{
        ANSWER, HOP, IDENTIFY, Identity, MEET, PING, RESERVE, Stream, Wire, connect_message, field,
        status, with_length,
    },
};

const DIRECTORY: &str = "/p2pnode/kad/1";

pub(super) async fn flood(args: Arc<Args>, tally: Tally) -> Result<()> {
    for number in 0..args.connections {
        let (args, tally) = (Arc::clone(&args), tally.clone());
        tokio::spawn(async move {
            loop {
                let identity = Identity::new();
                let wire = args.connect(number, &identity).await;
                tally.outcome("connected", &wire);
                let Ok(wire) = wire else { continue };
                let askers = (0..args.streams).map(|_| {
                    let (args, wire, tally) = (Arc::clone(&args), wire.clone(), tally.clone());
                    let identity = identity.clone();
                    tokio::spawn(async move { ask(&args, &wire, &identity, &tally).await })
                });
                let askers: Vec<_> = askers.collect();
                wire.closed().await;
                tally.add("disconnected", 1);
                askers.iter().for_each(tokio::task::JoinHandle::abort);
            }
        });
    }
    forever().await
}

async fn ask(args: &Args, wire: &Wire, identity: &Identity, tally: &Tally) {
    loop {
        let outcome = match args.what {
            What::Ping => pings(wire, tally).await,
            _ => one(args, wire, identity).await,
        };
        tally.outcome("asked", &outcome);
        // A task that never waits starves the others.
        tokio::task::yield_now().await;
    }
}

async fn pings(wire: &Wire, tally: &Tally) -> Result<()> {
    let mut stream = wire.speak(PING).await?;
    loop {
        stream.write_all(&[7; 32]).await?;
        stream.flush().await?;
        timeout(ANSWER, stream.read_exact(&mut [0; 32])).await??;
        tally.add("pings", 1);
    }
}

async fn one(args: &Args, wire: &Wire, identity: &Identity) -> Result<()> {
    match args.what {
        What::Reserve => {
            let mut stream = wire.speak(HOP).await?;
            write(&mut stream, &RESERVE).await?;
            status(&mut stream).await?;
        }
        What::Connect => {
            // A peer that is not there, unless one was named.
            let to = args
                .to
                .unwrap_or_else(|| Keypair::generate_ed25519().public().to_peer_id());
            let mut stream = wire.speak(HOP).await?;
            write(&mut stream, &connect_message(to)).await?;
            status(&mut stream).await?;
        }
        What::Hop => {
            let to = args.to.unwrap_or_else(PeerId::random);
            let request = json!({"peer": to.to_string(), "dialed": true});
            let mut stream = wire.speak("/p2pnode/hop/1").await?;
            exchange(&mut stream, &request.to_string()).await?;
        }
        What::Join => {
            let request = json!({"token": "p2pjoin1_CiQIARIgyCN5xe5IUZyxshIQgHJL7b1hT"});
            let mut stream = wire.speak("/p2pnode/join/1").await?;
            exchange(&mut stream, &request.to_string()).await?;
        }
        What::Identify => {
            let mut stream = wire.speak(IDENTIFY).await?;
            read_message(&mut stream).await?;
        }
        What::IdentifyPush => {
            let mut changed = identity.clone();
            changed.agent = format!("stranger/{}", fastrand::u64(..));
            changed.listens = (0..20)
                .filter_map(|_| {
                    format!(
                        "/ip4/203.0.113.{}/tcp/{}",
                        fastrand::u8(..),
                        fastrand::u16(1..)
                    )
                    .parse()
                    .ok()
                })
                .collect();
            let mut stream = wire.speak("/ipfs/id/push/1.0.0").await?;
            write(&mut stream, &with_length(&changed.message())).await?;
            stream.close().await?;
        }
        What::Get => {
            let to = args.to.unwrap_or_else(PeerId::random).to_bytes();
            let mut stream = wire.speak(DIRECTORY).await?;
            // type GET_VALUE (1) in field 1, key in 2.
            let message = [vec![0x08, 1], field(2, &to)].concat();
            write(&mut stream, &with_length(&message)).await?;
            timeout(ANSWER, read_message(&mut stream)).await??;
        }
        What::OpenClose => drop(wire.stream().await?),
        other => bail!("{other:?} is no request"),
    }
    Ok(())
}

async fn write(stream: &mut Stream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

/// A request and its answer in JSON, each with its length in two bytes before it.
async fn exchange(stream: &mut Stream, request: &str) -> Result<String> {
    let length = u16::try_from(request.len())?.to_be_bytes();
    write(stream, &[&length, request.as_bytes()].concat()).await?;
    let answer = async {
        let mut length = [0; 2];
        stream.read_exact(&mut length).await?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(ANSWER, answer).await?
}

/// Each connection is a peer's, which asks `streams` times; with `names` it says these are its own.
pub(super) async fn introductions(args: Arc<Args>, tally: Tally) -> Result<()> {
    let to = args.to()?;
    let mut pace = interval(std::time::Duration::from_secs(1) / args.per_second.unwrap_or(1000));
    for number in 0..args.connections {
        pace.tick().await;
        let (args, tally) = (Arc::clone(&args), tally.clone());
        tokio::spawn(async move {
            let identity = Identity::new().speaking(&[MEET]);
            let wire = args.connect(number, &identity).await;
            tally.outcome("connected", &wire);
            let wire = wire?;
            let names: Vec<_> = args.names.iter().map(ToString::to_string).collect();
            let request = json!({"peer": to.to_string(), "addrs": names}).to_string();
            for _ in 0..args.streams {
                let asked = async {
                    let mut stream = wire.speak(MEET).await?;
                    exchange(&mut stream, &request).await
                };
                match asked.await {
                    // What it says of addresses differs.
                    Ok(answer) => {
                        let kind = answer.split([':', '[']).nth(1).unwrap_or_default();
                        let refused = answer.contains("refused");
                        let kind = if refused { answer.as_str() } else { kind };
                        tally.add(if refused { kind } else { "introduced" }, 1);
                    }
                    Err(error) => tally.add(&format!("not introduced: {error}"), 1),
                }
            }
            wire.closed().await;
            anyhow::Ok(())
        });
    }
    forever().await
}

/// Peers of one address, each of which reserves and registers a record of itself, one after the other on each connection slot.
pub(super) async fn put(args: Arc<Args>, tally: Tally) -> Result<()> {
    for number in 0..args.connections {
        let (args, tally) = (Arc::clone(&args), tally.clone());
        tokio::spawn(async move {
            loop {
                let put = put_one(&args, number, &tally).await;
                tally.outcome("peers", &put);
            }
        });
    }
    forever().await
}

async fn put_one(args: &Args, number: usize, tally: &Tally) -> Result<()> {
    let identity = Identity::new();
    let wire = args.connect(number, &identity).await?;
    // Without it nothing may be registered.
    wire.reserve().await?;
    let relay = args.at(number)?;
    let mut stream = wire.speak(DIRECTORY).await?;
    for _ in 0..args.streams.max(1) {
        write(&mut stream, &with_length(&put_message(&identity, relay)?)).await?;
        let answer = timeout(ANSWER, read_message(&mut stream)).await;
        tally.outcome("records", &answer.map_err(anyhow::Error::from).flatten());
    }
    Ok(())
}

/// Kademlia's `PUT_VALUE` of a signed peer record that leads over the relay.
fn put_message(identity: &Identity, relay: &libp2p::Multiaddr) -> Result<Vec<u8>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seq = u64::try_from(now.as_micros())?;
    let address = libp2p_peers::circuit(relay, identity.id());
    let id = identity.id().to_bytes();
    let payload = [
        field(1, &id),
        vec![2 << 3],
        varint(usize::try_from(seq)?),
        field(3, &field(1, &address.to_vec())),
    ]
    .concat();
    let envelope = SignedEnvelope::new(
        &identity.key,
        "libp2p-peer-record".to_owned(),
        vec![0x03, 0x01],
        payload,
    )?;
    let value = envelope.into_protobuf_encoding();
    let record = [field(1, &id), field(2, &value)].concat();
    // type PUT_VALUE (0) in field 1, key in 2, record in 3.
    Ok([vec![0x08, 0], field(2, &id), field(3, &record)].concat())
}
