//! Moves bytes between two processes, over our transports, plain libp2p's, or raw quinn: the load of benchmarks.
//!
//! `transfer receive` prints where it listens. `transfer send` opens a connection and
//! its streams, says `open`, and once a line comes on stdin sends; it ends when the receiver has confirmed the last byte of
//! every stream. `transfer hold` opens connections and leaves them idle. All print one JSON object a line. One thread does
//! everything, as in p2pnode.

mod data;
mod raw;
mod swarm;

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use futures::future::try_join_all;
use p2pnode_transports::{Congestion, PortRange};
use serde_json::{Value, json};

use data::Wire;

/// Without progress for that long, a sender has stalled.
const STALLED: Duration = Duration::from_secs(3);
const STREAMS: u32 = 1024;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take what comes, until killed.
    Receive {
        #[command(flatten)]
        path: Path,
        /// Where to listen; without a port: any.
        #[arg(long, value_name = "IP[:PORT]", value_parser = listen)]
        listen: SocketAddr,
        /// Accept streams and never read what comes on them.
        #[arg(long)]
        unread: bool,
    },
    /// Send, once a line comes on stdin.
    Send {
        #[command(flatten)]
        path: Path,
        /// What the receiver says that it listens on.
        address: String,
        /// How much, over all streams together.
        #[arg(long)]
        bytes: u64,
        /// Over how many streams of one connection.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(STREAMS)))]
        streams: u32,
        /// Say how much was accepted once nothing more is for some seconds, or all of it, and stay.
        #[arg(long)]
        until_stalled: bool,
    },
    /// Open connections and leave them idle, until killed.
    Hold {
        #[command(flatten)]
        path: Path,
        /// What the receiver says that it listens on.
        address: String,
        /// How many.
        #[arg(long)]
        connections: usize,
    },
}

/// What the bytes go over.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Path {
    /// Whose transports.
    #[arg(long)]
    engine: Engine,
    /// Which of them. Raw quinn has only QUIC.
    #[arg(long, default_value = "quic")]
    transport: Transport,
    /// What plain libp2p encrypts TCP with; ours prefers TLS.
    #[arg(long, default_value = "noise")]
    security: Security,
    /// The source ports of our transports.
    #[arg(long, default_value = "40000-40050")]
    range: PortRange,
    /// The congestion control of our QUIC: cubic or bbr.
    #[arg(long, default_value_t)]
    congestion: Congestion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// The crate p2pnode-transports.
    Ours,
    /// Those of libp2p itself, as its documentation builds them.
    Libp2p,
    /// QUIC without libp2p.
    Quinn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Transport {
    Quic,
    Tcp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Security {
    Noise,
    Tls,
}

impl Path {
    fn check(&self) -> Result<()> {
        ensure!(
            self.engine != Engine::Quinn || self.transport == Transport::Quic,
            "--engine quinn --transport tcp: quinn is QUIC; take another engine, or --transport quic"
        );
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // As the programs do when they start (`daemon/src/heap.rs`): glibc then keeps what one flush frees for the next.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(2 << 20)));
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Receive {
            path,
            listen,
            unread,
        } => {
            path.check()?;
            match path.engine {
                Engine::Quinn => raw::receive(listen, unread).await,
                Engine::Ours | Engine::Libp2p => swarm::receive(path, listen, unread).await,
            }
        }
        Command::Send {
            path,
            address,
            bytes,
            streams,
            until_stalled,
        } => {
            path.check()?;
            let parts = parts(bytes, streams);
            let mut opened = match path.engine {
                Engine::Quinn => raw::open(&address, &parts).await?,
                Engine::Ours | Engine::Libp2p => swarm::open(path, &address, &parts).await?,
            };
            if until_stalled {
                return send_until_stalled(opened, bytes).await;
            }
            let took = send(&mut opened).await?;
            tell(&json!({"event": "sent", "bytes": bytes, "seconds": took.as_secs_f64()}));
            Ok(())
        }
        Command::Hold {
            path,
            address,
            connections,
        } => {
            path.check()?;
            match path.engine {
                Engine::Quinn => bail!("--engine quinn holds no connections; take another engine"),
                Engine::Ours | Engine::Libp2p => swarm::hold(path, &address, connections).await,
            }
        }
    }
}

/// A connection's streams, which the receiver knows of, with what is to go over each; and what keeps it open.
struct Opened {
    streams: Vec<(Wire, u64)>,
    _connection: Box<dyn std::any::Any + Send>,
}

fn parts(bytes: u64, streams: u32) -> Vec<u64> {
    let count = u64::from(streams);
    let part = |index| bytes / count + u64::from(index < bytes % count);
    (0..count).map(part).collect()
}

/// Sends when the word comes; from then until the last confirmation.
async fn send(opened: &mut Opened) -> Result<Duration> {
    let began = begin(opened, &Arc::default()).await?;
    try_join_all(began.sending.into_iter().map(|task| async { task.await? })).await?;
    Ok(began.at.elapsed())
}

async fn send_until_stalled(mut opened: Opened, bytes: u64) -> Result<()> {
    let accepted = Arc::new(AtomicU64::new(0));
    let mut began = begin(&mut opened, &accepted).await?;
    let mut before = 0;
    loop {
        tokio::time::sleep(STALLED).await;
        let now = accepted.load(Ordering::Relaxed);
        if let Some(ended) = began.sending.iter_mut().find(|task| task.is_finished()) {
            ended.await??;
            bail!("the receiver has confirmed what it was not to read");
        }
        if now == before || now == bytes {
            let event = if now == bytes { "accepted" } else { "stalled" };
            tell(&json!({"event": event, "bytes": now}));
            return std::future::pending().await;
        }
        before = now;
    }
}

struct Began {
    at: Instant,
    sending: Vec<tokio::task::JoinHandle<Result<()>>>,
}

async fn begin(opened: &mut Opened, accepted: &Arc<AtomicU64>) -> Result<Began> {
    tell(&json!({"event": "open"}));
    let read = || std::io::stdin().read_line(&mut String::new());
    let read = tokio::task::spawn_blocking(read).await??;
    ensure!(read > 0, "stdin has ended before there was a line on it");
    let at = Instant::now();
    let streams = opened.streams.drain(..);
    let sending = streams
        .map(|(stream, bytes)| tokio::spawn(data::fill(stream, bytes, Arc::clone(accepted))))
        .collect();
    Ok(Began { at, sending })
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let ip = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    ip.or_else(|_| text.parse())
        .map_err(|_| format!("{text:?} is neither IP nor IP:PORT"))
}

fn tell(event: &Value) {
    println!("{event}");
}

fn no_connection(address: &str) -> String {
    format!("{address}: no connection")
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    ensure!(
        text.len().is_multiple_of(2),
        "an odd number of hexadecimal digits"
    );
    let bytes = (0..text.len()).step_by(2).map(|at| {
        let digits = text.get(at..at + 2).context("hexadecimal digits")?;
        u8::from_str_radix(digits, 16).with_context(|| format!("{digits:?} is no hexadecimal"))
    });
    bytes.collect()
}
