//! A relay with many reservations, held and renewed through two periods, and then with many circuits that move data at once.
//!
//! All of it runs on loopback, in three processes: the relay with its limits lifted, a fleet of peers that hold a reservation
//! each (`tests/peers/fleet`, unmodified libp2p), and a second one with the circuits, while the first goes on.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use p2pnode_tests::{bins::Bins, fleet::sum, usage};
use serde_json::Value;
use tokio::process::Command;

use super::{
    programs::{Common, Wire, peer, provide_descriptors},
    report::{Better, Figure, Goal, Report, Row},
};
use crate::{
    cargo::{self, Build},
    child::{Child, Relay},
    tools,
};

/// What a reservation may cost, over QUIC, in kB of 1000 bytes.
const GOAL: f64 = 40.0;
const SETTLE: Duration = Duration::from_secs(2);

/// For peers to give up, and the relay to miss them, before what it keeps is measured: libp2p's QUIC is idle for 10 s at most, and
/// pings over TCP find out within 35 s.
const GONE: Duration = Duration::from_secs(40);

/// File descriptors that a peer takes: its socket. And what a process has besides.
const SPARE: u64 = 256;

/// How to measure.
#[derive(Debug, clap::Args)]
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

#[derive(Debug, Clone, Copy)]
struct Taken {
    at: Instant,
    /// kB of 1000 bytes.
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

    fn megabytes(self) -> f64 {
        self.memory / 1000.0
    }
}

pub(super) fn measure(args: &Args) -> Result<Report> {
    let bins = cargo::bins(Build::Release)?;
    let (_, fleet) = peer("FLEET_BIN", "fleet")?;
    provide_descriptors(args.reservations.max(2 * args.circuits) + SPARE)?;
    let runtime = tools::runtime()?;
    // A run takes minutes, and its figures are sums over thousands of peers.
    let runs = (0..args.common.runs.unwrap_or(1))
        .map(|_| runtime.block_on(measure_once(args, &bins, &fleet)))
        .collect::<Result<Vec<_>>>()?;
    Ok(report(args, &runs))
}

struct Measured {
    reservations: f64,
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
    let mut relay = Relay::start(
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
    let pid = relay.child.pid()?;
    let address = match args.transport {
        Wire::Quic => &relay.quic,
        Wire::Tcp => &relay.tcp,
    };
    tokio::select! {
        measured = load(args, pid, program, address) => measured,
        ended = relay.child.ends() => Err(ended),
    }
}

async fn load(args: &Args, pid: i32, program: &Path, address: &str) -> Result<Measured> {
    tokio::time::sleep(SETTLE).await;
    let idle = Taken::now(pid)?;

    let (peers, pace) = (args.reservations.to_string(), args.per_second.to_string());
    // Whoever finds the machine too busy for a handshake comes again; whoever loses a reservation is counted.
    let hold = ["hold", "--peers", &peers, "--per-second", &pace, "--again"];
    let mut fleet = fleet(program, address, &hold)?;
    let all = args.reservations;
    let setup = Duration::from_secs(120 + 10 * all / args.per_second);
    let has = |counts: &Value, name: &str, least: u64| {
        counts[name].as_u64().is_some_and(|number| number >= least)
    };
    fleet
        .event_with("counts", setup, |counts| has(counts, "held", all))
        .await?;
    let held = Taken::now(pid)?;
    let mut periods = [held; 2];
    let mut counts = Value::Null;
    for (period, renewals) in periods.iter_mut().zip(1..) {
        let within = Duration::from_secs(2 * args.lifetime);
        counts = fleet
            .event_with("counts", within, |counts| {
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
        reservations: args.reservations as f64,
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
    holding: &mut Child,
    renewed: u64,
) -> Result<Circuits> {
    let (pairs, seconds) = (args.circuits.to_string(), args.seconds.to_string());
    let open = ["circuits", "--pairs", &pairs, "--at-once", "16"];
    let open = [&open[..], &["--seconds", &seconds]].concat();
    let mut fleet = fleet(program, address, &open)?;
    let opening = Duration::from_secs(120 + args.circuits);
    fleet.event("opened", opening).await?;
    let before = Taken::now(pid)?;
    let moving = Duration::from_secs(args.seconds + 180);
    let moved = fleet.event("moved", moving).await?;
    let after = Taken::now(pid)?;
    // The next renewals tell whether anybody was lost meanwhile.
    let within = Duration::from_secs(2 * args.lifetime);
    let counts = holding
        .event_with("counts", within, |counts| {
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

fn fleet(program: &Path, relay: &str, words: &[&str]) -> Result<Child> {
    let mut command = Command::new(program);
    command.args(words).args(["--relay", relay]);
    Child::start("the fleet", command)
}

/// A cell of a figure: its label and what a run has there, NaN for nothing.
type Cell = (&'static str, fn(&Measured) -> f64);

#[rustfmt::skip]
const FIGURES: &[(&str, &str, Better, &[Cell])] = &[
    (COST, "kB", Better::Less, &[
        ("after two periods", |run| (run.periods[1].memory - run.idle.memory) / run.reservations),
    ]),
    ("circuits", "count", Better::More, &[
        ("open at once", |run| run.moved("open")),
        ("moved data to the end, unharmed", |run| run.moved("complete")),
    ]),
    ("moved, both ways", "MB", Better::More, &[("all circuits", |run| run.moved("bytes") / 1e6)]),
    ("moved by a circuit in its slower way", "kB", Better::More, &[
        ("least", |run| run.moved("least") / 1000.0),
        ("median", |run| run.moved("median") / 1000.0),
        ("most", |run| run.moved("most") / 1000.0),
    ]),
    // 0 is a circuit that starved.
    ("fairness", "least / median", Better::More, &[("all circuits", |run| run.moved("least") / run.moved("median"))]),
    ("RSS", "MB", Better::Less, &[
        ("idle", |run| run.idle.megabytes()),
        ("all held", |run| run.held.megabytes()),
        ("after two periods", |run| run.periods[1].megabytes()),
        ("all circuits open", |run| run.of_circuits(|c| c.before.megabytes())),
        ("after they moved data", |run| run.of_circuits(|c| c.after.megabytes())),
        ("everybody gone", |run| run.gone.megabytes()),
    ]),
    ("CPU time per reservation", "ms", Better::Less, &[
        ("set-up", |run| run.cpu(run.idle, run.held)),
        ("first period", |run| run.cpu(run.held, run.periods[0])),
        ("second period", |run| run.cpu(run.periods[0], run.periods[1])),
        ("while circuits move data", |run| run.circuits.as_ref().map_or(f64::NAN, |c| run.cpu(c.before, c.after))),
    ]),
    ("file descriptors", "count", Better::Less, &[
        ("after two periods", |run| run.periods[1].descriptors as f64),
        ("all circuits open", |run| run.of_circuits(|c| c.before.descriptors as f64)),
        ("everybody gone", |run| run.gone.descriptors as f64),
    ]),
    ("reservations lost", "count", Better::Less, &[
        ("through two periods", |run| number(&run.counts, "lost")),
        ("while circuits moved data", |run| run.of_circuits(|c| number(&c.counts, "lost"))),
    ]),
];

const COST: &str = "RSS per reservation";

impl Measured {
    fn of_circuits(&self, of: fn(&Circuits) -> f64) -> f64 {
        self.circuits.as_ref().map_or(f64::NAN, of)
    }

    fn moved(&self, name: &str) -> f64 {
        let circuits = self.circuits.as_ref();
        circuits.map_or(f64::NAN, |circuits| number(&circuits.moved, name))
    }

    /// Milliseconds of the relay's time, for each reservation.
    fn cpu(&self, from: Taken, to: Taken) -> f64 {
        (to.cpu - from.cpu) * 1000.0 / self.reservations
    }
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or(f64::NAN)
}

fn report(args: &Args, runs: &[Measured]) -> Report {
    let what = format!(
        "{} reservations over {} on loopback, limits lifted, each of {} s and renewed after three quarters of that, through two \
         periods; then {} circuits that all move data for {} s. kB are 1000 bytes.",
        args.reservations,
        args.transport.title(),
        args.lifetime,
        args.circuits,
        args.seconds
    );
    let mut report = Report::new("relay-capacity", what);
    for (name, unit, better, cells) in FIGURES {
        let mut figure = Figure::new(name, unit, *better);
        for (label, of) in *cells {
            let samples: Vec<_> = runs.iter().map(of).collect();
            // The goal is for QUIC.
            let has_goal = *name == COST && args.transport == Wire::Quic;
            let row =
                Row::new("ours", samples.clone()).goal(has_goal.then_some(Goal::AtMost(GOAL)));
            if !samples.iter().all(|sample| sample.is_nan()) {
                figure.push(*label, vec![row]);
            }
        }
        report.figures.push(figure);
    }
    for run in runs {
        report.notes.push(format!(
            "{} renewals; {} handshakes begun anew; set-up {:.0} s",
            number(&run.counts, "renewed"),
            sum(&run.counts, "errors"),
            (run.held.at - run.idle.at).as_secs_f64()
        ));
    }
    report
}
