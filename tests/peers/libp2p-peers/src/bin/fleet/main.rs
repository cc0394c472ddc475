//! Many libp2p peers in one process: unmodified libp2p, each with an identity and a socket of its own.
//!
//! `fleet hold` reserves on a relay and renews; `fleet circuits` opens circuits through it and moves data over all of them at
//! once. `fleet hop` and `fleet slow` do what a peer should not. Each prints one JSON object a line: `counts` whenever
//! something has changed, and what it is waited for by name. They run until they are killed, but for `circuits`.

mod circuits;
mod data;
mod hold;
mod hop;
mod pace;
mod slow;
mod tally;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reserve on the relay, and renew.
    Hold(hold::Args),
    /// Move data over circuits through the relay, all at once, and end.
    Circuits(circuits::Args),
    /// Open streams of the circuit relay protocol and misbehave on them.
    Hop(hop::Args),
    /// Begin connections and never finish them.
    Slow(slow::Args),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Hold(args) => hold::run(args).await,
        Command::Circuits(args) => circuits::run(args).await,
        Command::Hop(args) => hop::run(args).await,
        Command::Slow(args) => slow::run(args).await,
    }
}
