//! `cargo xtask bench`: figures of this machine, next to the goals.

mod relay_capacity;
mod relay_throughput;
mod sizes;
pub(crate) mod time_to_direct;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Size of the binaries, memory of an idle node, time from start to ready.
    ///
    /// Of a release build, or of the binaries that P2PNODE_BIN and RELAY_NODE_BIN name.
    Sizes {
        /// How often each is measured; the median counts.
        #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(5..))]
        runs: u16,
    },
    /// Time from the start of a cold dial to its direct connection, next to a plain libp2p peer in the same lab.
    ///
    /// Of release builds, or of the binaries that P2PNODE_BIN, RELAY_NODE_BIN and PLAIN_LIBP2P_BIN name.
    TimeToDirect(time_to_direct::Args),
    /// What a relay carries and what CPU time it takes for that, next to a plain libp2p relay without limits.
    ///
    /// Of release builds, or of the binaries that P2PNODE_BIN, RELAY_NODE_BIN and PLAIN_LIBP2P_BIN name.
    RelayThroughput(relay_throughput::Args),
    /// A relay with many reservations that are held and renewed, and then many circuits at once that move data.
    ///
    /// On loopback, with the relay's limits lifted. Of release builds, or of the binaries that P2PNODE_BIN, RELAY_NODE_BIN and
    /// FLEET_BIN name.
    RelayCapacity(relay_capacity::Args),
}

/// Measures.
pub(crate) fn run(bench: Bench) -> Result<ExitCode> {
    match bench {
        Bench::Sizes { runs } => sizes::run(runs),
        Bench::TimeToDirect(args) => time_to_direct::run(&args),
        Bench::RelayThroughput(args) => relay_throughput::run(&args),
        Bench::RelayCapacity(args) => relay_capacity::run(&args),
    }
}
