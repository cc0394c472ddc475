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

use std::{net::SocketAddr, time::Instant};

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
    /// Count what comes, until killed.
    Receive {
        /// Only over this relay. Without it: over UDP, without a relay.
        #[arg(long)]
        relay: Option<RelayUrl>,
    },
    /// Open streams, and once a line comes on stdin send bytes over all of them.
    Send {
        /// Only over this relay, where the receiver must be. Without it: over UDP, without a relay.
        #[arg(long)]
        relay: Option<RelayUrl>,
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

fn main() -> anyhow::Result<()> {
    let started = Instant::now();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Relay { listen } => relay::run(listen).await,
            Command::Listen(at) => meet::listen(at).await,
            Command::Dial {
                at,
                timeout,
                endpoint,
            } => meet::dial(at, endpoint, timeout, started).await,
            Command::Receive { relay } => load::receive(relay).await,
            Command::Send {
                relay,
                bytes,
                streams,
                address,
            } => load::send(relay, address, bytes, streams).await,
        }
    })
}

fn tell(event: &Value) {
    println!("{event}");
}
