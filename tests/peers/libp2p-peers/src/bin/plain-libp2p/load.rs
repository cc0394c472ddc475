//! Load on a relay: a plain relay to compare with, peers that take bytes over circuits, and peers that send them.
//!
//! Each circuit is between two peers of its own, over connections of their own.

use std::{
    io::BufRead as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _, future::try_join_all};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, identity::Keypair, multiaddr::Protocol,
    relay, swarm::SwarmEvent,
};
use libp2p_peers::{Behaviour, Role, circuit, connected, peer, reserve, reserved, tell};
use serde_json::json;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/load/1");
const PIECE: usize = 64 * 1024;

pub async fn relay(listen: Vec<Multiaddr>) -> anyhow::Result<()> {
    let limits = relay::Config {
        max_reservations: usize::MAX,
        max_reservations_per_peer: usize::MAX,
        reservation_rate_limiters: Vec::new(),
        max_circuits: usize::MAX,
        max_circuits_per_peer: usize::MAX,
        max_circuit_duration: Duration::from_secs(u32::MAX.into()),
        max_circuit_bytes: 0,
        circuit_src_rate_limiters: Vec::new(),
        ..relay::Config::default()
    };
    let mut swarm = peer(Keypair::generate_ed25519(), Role::Relay(limits))?;
    for address in listen {
        swarm.listen_on(address)?;
    }
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            swarm.add_external_address(address.clone());
            let address = address.with(Protocol::P2p(*swarm.local_peer_id()));
            tell(&json!({"event": "listening", "address": address.to_string()}));
        }
    }
}

fn client() -> anyhow::Result<Swarm<Behaviour>> {
    peer(Keypair::generate_ed25519(), Role::Client)
}

/// That many peers reserve on the relay; tells of each, and once all `bytes` have come on each of their streams; of one on which they do not, why.
pub async fn receive(relay: Multiaddr, peers: usize, bytes: u64) -> anyhow::Result<()> {
    let (received, wanted) = (Arc::new(AtomicU64::new(0)), bytes * peers as u64);
    for _ in 0..peers {
        let mut swarm = client()?;
        let mut streams = swarm.behaviour().stream.new_control().accept(PROTOCOL)?;
        reserve(&mut swarm, &relay)?;
        reserved(&mut swarm).await?;
        tell(&json!({"event": "reserved", "peer_id": swarm.local_peer_id().to_string()}));
        let received = Arc::clone(&received);
        tokio::spawn(async move {
            let (_, stream) = streams.next().await?;
            let come = |bytes| {
                let before = received.fetch_add(bytes, Ordering::Relaxed);
                if before + bytes == wanted {
                    tell(&json!({"event": "received", "bytes": wanted}));
                }
            };
            if let Err(error) = take(stream, bytes, come).await {
                failed(&error);
            }
            Some(())
        });
        drive(swarm);
    }
    std::future::pending().await
}

async fn take(mut stream: Stream, bytes: u64, come: impl Fn(u64)) -> anyhow::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        let read = stream.read(&mut buffer).await;
        let read = read.with_context(|| format!("{left} of {bytes} bytes have not come"))? as u64;
        ensure!(read > 0, "the stream ended {left} bytes before its end");
        come(read);
        left = left.saturating_sub(read);
    }
    Ok(())
}

/// A peer of its own for each of `to` opens a circuit and a stream to it; when all are open and a line comes on stdin, each sends
/// `bytes`, or tells why it cannot.
pub async fn send(relay: Multiaddr, to: Vec<PeerId>, bytes: u64) -> anyhow::Result<()> {
    let streams = try_join_all(to.into_iter().map(|peer| open(relay.clone(), peer))).await?;
    tell(&json!({"event": "open"}));
    tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new())).await??;
    for stream in streams {
        tokio::spawn(async move {
            if let Err(error) = fill(stream, bytes).await {
                failed(&error);
            }
        });
    }
    // The streams end, and the circuits with this process.
    std::future::pending().await
}

async fn open(relay: Multiaddr, peer: PeerId) -> anyhow::Result<Stream> {
    let mut swarm = client()?;
    swarm.dial(circuit(&relay, peer))?;
    connected(&mut swarm, peer).await?;
    let mut control = swarm.behaviour().stream.new_control();
    drive(swarm);
    Ok(control.open_stream(peer, PROTOCOL).await?)
}

async fn fill(mut stream: Stream, bytes: u64) -> anyhow::Result<()> {
    let piece = vec![7; PIECE];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(PIECE as u64);
        let written = stream.write_all(&piece[..usize::try_from(now)?]).await;
        written.with_context(|| format!("{left} of {bytes} bytes were not sent"))?;
        left -= now;
    }
    stream.close().await?;
    Ok(())
}

fn drive(mut swarm: Swarm<Behaviour>) {
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
}

fn failed(error: &anyhow::Error) {
    tell(&json!({"event": "failed", "reason": format!("{error:#}")}));
}
