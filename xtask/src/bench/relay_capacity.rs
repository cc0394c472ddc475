//! A relay with many reservations, held and renewed through two periods, and then with many circuits that move data at once.
//!
//! All of it runs on loopback, in three processes: the relay with its limits lifted, a fleet of peers that hold a reservation
//! each (`tests/peers/fleet`, unmodified libp2p), and a second one with the circuits, while the first goes on.

mod figures;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use p2pnode_tests::{bins::Bins, usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Common, report::Report};
use crate::{
    cargo::{self, Build},
    child::{Fleet, Relay},
};

/// What a reservation may cost, over QUIC, in kB of 1000 bytes.
const GOAL: f64 = 40.0;

/// How long the relay is left alone before its memory counts.
const SETTLE: Duration = Duration::from_secs(2);

/// For peers to give up, and the relay to miss them, before what it keeps is measured: libp2p's QUIC is idle for 10 s at most, and
/// pings over TCP find out within 35 s.
const GONE: Duration = Duration::from_secs(40);

/// File descriptors that a peer takes: its socket. And what a process has besides.
const SPARE: u64 = 256;

/// How to measure.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct Args {
    /// Reservations.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    reservations: u64,
    /// Circuits, each between two peers of its own; 0: none.
    #[arg(long, value_name = "K", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    circuits: u64,
    /// The transport to the relay.
    #[arg(long, default_value = "quic")]
    transport: Wire,
    /// How long a reservation lasts, in seconds. Peers renew it after three quarters of that.
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(10..=3600))]
    lifetime: u64,
    /// How long the circuits move data, in seconds.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Peers that are started in a second.
    #[arg(long, value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    per_second: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
enum Wire {
    Quic,
    Tcp,
}

/// What the relay has taken up to a moment.
#[derive(Debug, Clone, Copy)]
struct Taken {
    at: Instant,
    memory: f64,
    cpu: f64,
    descriptors: usize,
}

impl Taken {
    fn now(pid: i32) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            memory: usage::memory(pid)? as f64 * 1.024,
            cpu: usage::cpu(pid)?,
            descriptors: usage::descriptors(pid)?,
        })
    }

    fn cpu_since(self, before: Self) -> f64 {
        self.cpu - before.cpu
    }

    fn seconds_since(self, before: Self) -> f64 {
        (self.at - before.at).as_secs_f64()
    }
}

/// Builds and measures.
pub(super) fn measure(args: &Args) -> Result<Report> {
    let bins = cargo::bins(Build::Release)?;
    let fleet = super::peer("FLEET_BIN", "fleet")?;
    provide_descriptors(args.reservations.max(2 * args.circuits) + SPARE)?;
    let runtime = super::runtime()?;
    // A run takes minutes, and its figures are sums over thousands of peers.
    let runs = (0..args.common.runs.unwrap_or(1))
        .map(|_| runtime.block_on(measure_once(args, &bins, &fleet)))
        .collect::<Result<Vec<_>>>()?;
    Ok(figures::report(args, &runs))
}

/// Lets this process and its children open that many files each.
pub(super) fn provide_descriptors(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("limit of open files")?;
    ensure!(
        hard >= needed,
        "{needed} open files are needed and {hard} allowed: raise the limit (`ulimit -Hn {needed}` as root, or LimitNOFILE of the \
         service), or measure less with --reservations and --circuits"
    );
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).context("limit of open files")?;
    }
    Ok(())
}

/// Everything that was measured.
struct Measured {
    idle: Taken,
    held: Taken,
    periods: [Taken; 2],
    /// The counts of the fleet after the second period.
    counts: Value,
    circuits: Option<Circuits>,
    gone: Taken,
}

struct Circuits {
    before: Taken,
    after: Taken,
    moved: Value,
    /// The counts of the fleet with the reservations after that.
    counts: Value,
}

async fn measure_once(args: &Args, bins: &Bins, program: &Path) -> Result<Measured> {
    let directory = tempfile::tempdir().context("no directory for keys")?;
    let lifetime = format!("{}s", args.lifetime);
    let mut relay = Relay::start_with(
        bins,
        directory.path(),
        &[
            // Everybody comes from 127.0.0.1.
            ("RELAY_NODE_LIMITS_RESERVATIONS", "0"),
            ("RELAY_NODE_LIMITS_RESERVATIONS_PER_IP4", "0"),
            ("RELAY_NODE_LIMITS_CONNECTIONS", "0"),
            ("RELAY_NODE_LIMITS_CONNECTIONS_PER_IP4", "0"),
            ("RELAY_NODE_LIMITS_CIRCUITS", "0"),
            ("RELAY_NODE_LIMITS_RESERVATION_DURATION", &lifetime),
        ],
    )
    .await?;
    let pid = relay.pid()?;
    let address = match args.transport {
        Wire::Quic => relay.address.clone(),
        Wire::Tcp => relay.tcp.clone(),
    };
    tokio::select! {
        measured = load(args, pid, program, &address) => measured,
        ended = relay.ends() => Err(ended.err().context("relay-node has ended")?),
    }
}

async fn load(args: &Args, pid: i32, program: &Path, address: &str) -> Result<Measured> {
    tokio::time::sleep(SETTLE).await;
    let idle = Taken::now(pid)?;

    let (peers, pace) = (args.reservations.to_string(), args.per_second.to_string());
    let mut fleet = Fleet::start(
        program,
        // Whoever finds the machine too busy for a handshake comes again; whoever loses a reservation is counted.
        &[
            "hold",
            "--relay",
            address,
            "--peers",
            &peers,
            "--per-second",
            &pace,
            "--again",
        ],
    )?;
    let all = args.reservations;
    let setup = Duration::from_secs(120 + 10 * all / args.per_second);
    let has = |counts: &Value, name: &str, least: u64| {
        counts[name].as_u64().is_some_and(|number| number >= least)
    };
    fleet
        .event("counts", setup, |counts| has(counts, "held", all))
        .await?;
    let held = Taken::now(pid)?;
    let mut periods = [held; 2];
    let mut counts = Value::Null;
    for (period, renewals) in periods.iter_mut().zip(1..) {
        let within = Duration::from_secs(2 * args.lifetime);
        counts = fleet
            .event("counts", within, |counts| {
                has(counts, "held", all) && has(counts, "renewed_least", renewals)
            })
            .await?;
        *period = Taken::now(pid)?;
    }

    let circuits = if args.circuits == 0 {
        None
    } else {
        let renewed = counts["renewed"].as_u64().unwrap_or_default();
        Some(circuits(args, pid, program, address, &mut fleet, renewed).await?)
    };
    drop(fleet);
    tokio::time::sleep(GONE).await;
    Ok(Measured {
        idle,
        held,
        periods,
        counts,
        circuits,
        gone: Taken::now(pid)?,
    })
}

async fn circuits(
    args: &Args,
    pid: i32,
    program: &Path,
    address: &str,
    holding: &mut Fleet,
    renewed: u64,
) -> Result<Circuits> {
    let (pairs, seconds) = (args.circuits.to_string(), args.seconds.to_string());
    let mut fleet = Fleet::start(
        program,
        &[
            "circuits",
            "--relay",
            address,
            "--pairs",
            &pairs,
            "--seconds",
            &seconds,
            "--at-once",
            "16",
        ],
    )?;
    let opening = Duration::from_secs(120 + args.circuits);
    fleet.event("opened", opening, |_| true).await?;
    let before = Taken::now(pid)?;
    let moving = Duration::from_secs(args.seconds + 180);
    let moved = fleet.event("moved", moving, |_| true).await?;
    let after = Taken::now(pid)?;
    // The next renewals tell whether anybody was lost meanwhile.
    let within = Duration::from_secs(2 * args.lifetime);
    let counts = holding
        .event("counts", within, |counts| {
            // Who was lost has begun anew, and is counted as lost.
            counts["held"].as_u64() >= Some(args.reservations)
                && counts["renewed"].as_u64() >= Some(renewed + 2 * args.reservations)
        })
        .await?;
    Ok(Circuits {
        before,
        after,
        moved,
        counts,
    })
}

impl Measured {
    /// kB of 1000 bytes.
    fn per_reservation(&self, args: &Args) -> f64 {
        (self.periods[1].memory - self.idle.memory) / args.reservations as f64
    }
}

impl Wire {
    fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_open_files_that_cannot_be_had_is_an_error_with_its_remedy() {
        let error = provide_descriptors(u64::MAX).expect_err("nobody may open that many");
        let text = format!("{error:#}");
        assert!(
            text.contains("ulimit") && text.contains("--reservations"),
            "{text}"
        );
    }
}
