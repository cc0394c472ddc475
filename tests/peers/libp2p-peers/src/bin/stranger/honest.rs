//! Peers that use a relay as it is meant to be used.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, StreamProtocol, Swarm,
    identity::Keypair,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use libp2p_peers::{Behaviour, Role, circuit, connected, meet, peer, reserve, reserved, tell};
use serde_json::json;
use tokio::time::{Instant, interval, timeout};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/stranger/steady/1");
const CALLED: u8 = 254;
const CALLER: u8 = 255;
const CHUNK: usize = 16 * 1024;
/// 320 KiB a second there, and as much back.
const TICK: Duration = Duration::from_millis(50);
/// For all to be there again after a loss.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same in each run, so that a relay can be configured to admit them.
fn key(number: u8) -> Result<Keypair> {
    Ok(Keypair::ed25519_from_bytes([number; 32])?)
}

/// The ids of `count` hosts and of the two that keep a circuit.
pub(crate) fn identities(count: u8) -> Result<()> {
    for number in (0..count).chain([CALLED, CALLER]) {
        println!("{}", key(number)?.public().to_peer_id());
    }
    Ok(())
}

/// Peers that hold a reservation each, and print who they are.
pub(crate) async fn hosts(relay: Multiaddr, count: u8) -> Result<()> {
    for number in 0..count {
        let mut swarm = host(&relay, number).await?;
        tell(&json!({"event": "host", "peer_id": swarm.local_peer_id().to_string()}));
        tokio::spawn(async move {
            loop {
                if let SwarmEvent::ListenerClosed { .. } = swarm.select_next_some().await {
                    tell(&json!({"event": "lost"}));
                }
            }
        });
    }
    tell(&json!({"event": "ready"}));
    std::future::pending().await
}

async fn host(relay: &Multiaddr, number: u8) -> Result<Swarm<Behaviour>> {
    let mut swarm = peer(key(number)?, Role::Client)?;
    meet(&mut swarm, relay, |_| ()).await?;
    reserve(&mut swarm, relay)?;
    reserved(&mut swarm).await?;
    Ok(swarm)
}

/// A circuit over which bytes go at a steady pace and come back; made again when it breaks.
pub(crate) async fn steady(relay: Multiaddr) -> Result<()> {
    let mut bytes = 0_u64;
    loop {
        let opened = timeout(PATIENCE, open(&relay)).await;
        let carried = match opened {
            Ok(Ok((here, _peers))) => carry(here, &mut bytes).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(anyhow::anyhow!("no circuit in time")),
        };
        if let Err(error) = carried {
            tell(&json!({"event": "broken", "reason": format!("{error:#}")}));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn open(relay: &Multiaddr) -> Result<(libp2p::Stream, tokio::task::JoinSet<()>)> {
    let mut peers = tokio::task::JoinSet::new();
    let mut called = host(relay, CALLED).await.context("called")?;
    let to = *called.local_peer_id();
    let mut incoming = called.behaviour().stream.new_control().accept(PROTOCOL)?;
    peers.spawn(async move {
        loop {
            called.select_next_some().await;
        }
    });
    peers.spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            let mut buffer = vec![0; CHUNK];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..length]).await.is_err()
                    || stream.flush().await.is_err()
                {
                    break;
                }
            }
        }
    });
    let mut caller = peer(key(CALLER)?, Role::Client)?;
    let mut control = caller.behaviour().stream.new_control();
    meet(&mut caller, relay, |_| ()).await.context("caller")?;
    caller.dial(
        DialOpts::peer_id(to)
            .addresses(vec![circuit(relay, to)])
            .build(),
    )?;
    connected(&mut caller, to).await?;
    peers.spawn(async move {
        loop {
            caller.select_next_some().await;
        }
    });
    let stream = control.open_stream(to, PROTOCOL).await?;
    Ok((stream, peers))
}

async fn carry(stream: libp2p::Stream, bytes: &mut u64) -> Result<()> {
    let (mut read, mut write) = stream.split();
    let send = async {
        let mut pace = interval(TICK);
        loop {
            pace.tick().await;
            write.write_all(&[0; CHUNK]).await.context("write")?;
            write.flush().await.context("write")?;
        }
    };
    let receive = async {
        let mut buffer = vec![0; CHUNK];
        let mut told = Instant::now();
        loop {
            let length = timeout(PATIENCE, read.read(&mut buffer))
                .await
                .context("nothing came")??;
            anyhow::ensure!(length > 0, "the circuit has ended");
            *bytes += length as u64;
            if told.elapsed() >= Duration::from_millis(250) {
                told = Instant::now();
                tell(&json!({"event": "carried", "bytes": *bytes}));
            }
        }
    };
    tokio::select! {
        ended = send => ended,
        ended = receive => ended,
    }
}
