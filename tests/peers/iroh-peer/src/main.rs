//! An iroh 1.4 endpoint and an iroh relay, to compare with: `iroh-peer relay` is the relay, `listen` and `dial` meet through it
//! and become direct, `receive` and `send` move data.
//!
//! Nothing is looked up: endpoints are given the address of their relay or of each other. The relay speaks plain HTTP, as
//! `iroh-relay --dev` does, but tells endpoints their public address over QUIC as well, for without that iroh does not get
//! through any NAT. Each command prints one JSON object per line on stdout.

mod endpoint;
mod load;
mod meet;
mod relay;

use std::{net::SocketAddr, process::ExitCode, time::Instant};

use clap::{Parser, Subcommand};
use iroh::{EndpointId, RelayUrl};
use serde_json::Value;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Be a relay until killed.
    Relay {
        /// Where to serve HTTP. The public address is told on UDP port 7842 of the same IP address.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Be at the relay and echo what comes, until killed.
    Listen(AtRelay),
    /// Reach an endpoint through the relay and wait for the first byte over a direct path.
    Dial {
        #[command(flatten)]
        at: AtRelay,
        /// How long to wait for it, in seconds.
        #[arg(long, default_value_t = 30)]
        timeout: u64,
        /// The endpoint. Without it: get to the relay first, say so, and read the endpoint from stdin.
        endpoint: Option<EndpointId>,
    },
    /// Take what comes, until killed.
    Receive {
        #[command(flatten)]
        path: Path,
        /// The UDP socket, IP or IP:PORT. Without it: any port of all addresses.
        #[arg(long, value_name = "IP[:PORT]", value_parser = listen, conflicts_with = "relay")]
        listen: Option<SocketAddr>,
    },
    /// Open streams, and once a line comes on stdin send bytes over all of them.
    Send {
        #[command(flatten)]
        path: Path,
        /// The bytes over all streams together.
        #[arg(long)]
        bytes: u64,
        /// How many streams of one connection: at most those that an endpoint accepts by default.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
        streams: u16,
        /// What the receiver said.
        address: endpoint::Address,
    },
}

/// How data goes.
#[derive(clap::Args)]
struct Path {
    /// Only over this relay, at both ends. Without it: over UDP, without a relay.
    #[arg(long)]
    relay: Option<RelayUrl>,
    /// What a stream may have on its way, in bytes; all streams together may have twice of that.
    #[arg(long, default_value_t = endpoint::WINDOW)]
    window: u32,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let ip = text.parse().map(|ip| SocketAddr::new(ip, 0));
    ip.or_else(|_| text.parse())
        .map_err(|_| format!("{text:?} is no place to listen: give IP or IP:PORT"))
}

/// How an endpoint is at its relay.
#[derive(clap::Args)]
struct AtRelay {
    /// The relay, such as http://198.51.100.7:3340.
    #[arg(long)]
    relay: RelayUrl,
    /// The UDP port to use. Without it: any.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

// One thread, as in the peers that it is compared with.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let started = Instant::now();
    match run(Cli::parse().command, started).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command, started: Instant) -> anyhow::Result<()> {
    match command {
        Command::Relay { listen } => relay::run(listen).await,
        Command::Listen(at) => meet::listen(at).await,
        Command::Dial {
            at,
            timeout,
            endpoint,
        } => meet::dial(at, endpoint, timeout, started).await,
        Command::Receive { path, listen } => load::receive(path, listen).await,
        Command::Send {
            path,
            address,
            bytes,
            streams,
        } => load::send(path, address, bytes, streams).await,
    }
}

fn tell(event: &Value) {
    println!("{event}");
}
