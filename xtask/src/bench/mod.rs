//! `cargo xtask bench`: figures of this machine, next to the goals.
//!
//! Each benchmark measures and returns a [`Report`]; what is printed and written of it is the same for all. Those that need the
//! lab measure in a process of their own ([`in_lab`]), which enters the lab's sandbox and cannot leave it.

mod contest;
mod memory;
mod path;
mod punch_success;
mod relay_capacity;
mod relay_throughput;
pub(crate) mod report;
mod sizes;
mod throughput;
mod time_to_direct;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use clap::{CommandFactory as _, Parser, Subcommand};
use p2pnode_tests::bins::{build_iroh_peer, build_plain_libp2p};
use report::{Agreement, Provenance, Report, Saved, directory, write_index};
use serde::{Deserialize, Serialize};

use crate::tools;

/// What `cargo xtask bench` is called with.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// What to measure. Without it: everything, one after the other.
    #[command(subcommand)]
    bench: Option<Bench>,
    #[command(flatten)]
    common: Common,
    /// Measures nothing: tells which figures under target/bench agree within their spreads with those of an earlier run, a copy
    /// of that directory.
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["runs", "json"])]
    compare: Option<PathBuf>,
}

/// What all benchmarks understand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
pub(crate) struct Common {
    /// Runs of each program, in turn; the median counts. Default: as many as the benchmark needs for a stable one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) runs: Option<u16>,
    /// One JSON object per row of conditions on stdout instead of the tables.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to measure.
#[derive(Debug, Subcommand, Serialize, Deserialize)]
pub(crate) enum Bench {
    /// Size of the binaries, memory of an idle node, time from start to ready.
    ///
    /// Of a release build, or of the binaries that P2PNODE_BIN and RELAY_NODE_BIN name.
    Sizes(sizes::Args),
    /// Time to the first byte over a direct path, from nothing and from a running node, next to plain libp2p and iroh in the same
    /// lab.
    ///
    /// Of release builds, or of the binaries that P2PNODE_BIN, RELAY_NODE_BIN, PLAIN_LIBP2P_BIN and IROH_PEER_BIN name.
    TimeToDirect(time_to_direct::Args),
    /// The share of dials that become direct within 10 s, NAT by NAT, next to plain libp2p and iroh in the same labs.
    ///
    /// Of release builds, or of the binaries that P2PNODE_BIN, RELAY_NODE_BIN, PLAIN_LIBP2P_BIN and IROH_PEER_BIN name.
    PunchSuccess(punch_success::Args),
    /// What a relay carries and what CPU time it takes for that, next to a plain libp2p relay without limits and to iroh's.
    ///
    /// Of release builds, or of the binaries that P2PNODE_BIN, RELAY_NODE_BIN and PLAIN_LIBP2P_BIN name.
    RelayThroughput(relay_throughput::Args),
    /// A relay with many reservations that are held and renewed, and then many circuits at once that move data.
    ///
    /// On loopback, with the relay's limits lifted. Of release builds, or of the binaries that P2PNODE_BIN, RELAY_NODE_BIN and
    /// FLEET_BIN name.
    RelayCapacity(relay_capacity::Args),
    /// What a direct connection over QUIC carries and what processor time it takes for that, next to plain libp2p, quinn and
    /// iroh.
    ///
    /// Of release builds, or of the programs that TRANSFER_BIN and IROH_PEER_BIN name. Without a choice of cells those that
    /// tell most are measured; all of them are `--rtt 0,20,50,100`.
    ThroughputQuic(throughput::Args),
    /// The same over TCP, next to plain libp2p with Noise.
    ///
    /// Of a release build, or of the program that TRANSFER_BIN names.
    ThroughputTcp(throughput::Args),
    /// Our transports next to libp2p's own with the same encryption, without anything between them.
    ///
    /// Of a release build, or of the program that TRANSFER_BIN names.
    WrapperOverhead(throughput::wrapper::Args),
    /// What an idle connection takes of the memory of who accepted it, next to plain libp2p.
    ///
    /// Of a release build, or of the program that TRANSFER_BIN names.
    Memory(memory::Args),
}

/// A benchmark by its name on the command line.
#[derive(Parser)]
struct Named {
    #[command(subcommand)]
    bench: Bench,
}

/// Measures, prints and writes. A goal that is missed is printed, not an error: machines differ.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    if let Some(before) = cli.compare {
        return compare(&before).map(|()| ExitCode::SUCCESS);
    }
    let run = Provenance::now();
    if let Some(bench) = cli.bench {
        return show(&bench, &run).map(|()| ExitCode::SUCCESS);
    }
    let mut failed = Vec::new();
    for name in names() {
        eprintln!("measuring {name}");
        // One that cannot be had here must not cost the others.
        let shown = all_defaults(&name, cli.common).and_then(|bench| show(&bench, &run));
        if let Err(error) = shown {
            eprintln!("error: {name}: {error:#}");
            failed.push(name);
        }
    }
    ensure!(
        failed.is_empty(),
        "not measured, for the reasons above: {}",
        failed.join(", ")
    );
    Ok(ExitCode::SUCCESS)
}

/// Tells how the reports in `before` and those of the last run agree.
fn compare(before: &Path) -> Result<()> {
    let directory = directory()?;
    let mut agreement = Agreement::default();
    let mut compared = 0;
    for name in names() {
        let runs = (Saved::read(before, &name)?, Saved::read(&directory, &name)?);
        if let (Some(before), Some(after)) = runs {
            agreement.add(&before.report, &after.report);
            compared += 1;
        }
    }
    ensure!(
        compared > 0,
        "--compare {}: has no report of a benchmark that {} has too: name a copy of that directory, as an earlier run left it",
        before.display(),
        directory.display()
    );
    print!("{agreement}");
    Ok(())
}

fn show(bench: &Bench, run: &Provenance) -> Result<()> {
    let saved = Saved {
        run: run.clone(),
        report: bench.measure()?,
    };
    if bench.common().json {
        for line in saved.report.lines() {
            println!("{line}");
        }
    } else {
        println!("\n{}", saved.report.table());
        for missed in saved.report.missed() {
            println!("missed: {missed}");
        }
    }
    let directory = directory()?;
    saved.write(&directory)?;
    let index = write_index(&directory, &names())?;
    eprintln!("written: {}", index.display());
    Ok(())
}

impl Bench {
    fn measure(&self) -> Result<Report> {
        match self {
            Self::Sizes(args) => sizes::measure(args),
            Self::TimeToDirect(args) => in_lab(self, &contest::programs(&args.programs())?),
            Self::PunchSuccess(args) => in_lab(self, &contest::programs(&args.programs())?),
            Self::RelayThroughput(args) => relay_throughput::measure(args),
            Self::RelayCapacity(args) => relay_capacity::measure(args),
            Self::ThroughputQuic(args) => self.throughput(throughput::QUIC, args),
            Self::ThroughputTcp(args) => self.throughput(throughput::TCP, args),
            Self::WrapperOverhead(_) | Self::Memory(_) => in_lab(self, &[transfer()?]),
        }
    }

    fn throughput(&self, contest: throughput::Contest, args: &throughput::Args) -> Result<Report> {
        contest.check(args)?;
        let mut programs = vec![transfer()?];
        if contest.needs_iroh(args) {
            programs.push(iroh()?);
        }
        in_lab(self, &programs)
    }

    /// The part of those that measure in the lab.
    fn measure_in_lab(&self) -> Result<Report> {
        match self {
            Self::TimeToDirect(args) => time_to_direct::measure_in_lab(args),
            Self::PunchSuccess(args) => punch_success::measure_in_lab(args),
            Self::ThroughputQuic(args) => throughput::measure_in_lab(throughput::QUIC, args),
            Self::ThroughputTcp(args) => throughput::measure_in_lab(throughput::TCP, args),
            Self::WrapperOverhead(args) => throughput::wrapper::measure_in_lab(args),
            Self::Memory(args) => memory::measure_in_lab(args),
            Self::Sizes(_) | Self::RelayThroughput(_) | Self::RelayCapacity(_) => self.measure(),
        }
    }

    fn common(&self) -> Common {
        match self {
            Self::Sizes(args) => args.common,
            Self::TimeToDirect(args) => args.common,
            Self::PunchSuccess(args) => args.common,
            Self::RelayThroughput(args) => args.common,
            Self::RelayCapacity(args) => args.common,
            Self::ThroughputQuic(args) | Self::ThroughputTcp(args) => args.common,
            Self::WrapperOverhead(args) => args.common,
            Self::Memory(args) => args.common,
        }
    }
}

/// The benchmarks, in the order in which they are measured and told of.
fn names() -> Vec<String> {
    let command = Named::command();
    let names = command.get_subcommands().map(|bench| bench.get_name());
    names.map(str::to_owned).collect()
}

/// A benchmark with its defaults, as if it had been typed.
fn all_defaults(name: &str, common: Common) -> Result<Bench> {
    let mut words = vec!["bench".to_owned(), name.to_owned()];
    if let Some(runs) = common.runs {
        words.extend(["--runs".to_owned(), runs.to_string()]);
    }
    if common.json {
        words.push("--json".to_owned());
    }
    Ok(Named::try_parse_from(words)?.bench)
}

/// Lets `bench` measure in the lab, in a process of its own, with those variables in its environment.
fn in_lab(bench: &Bench, env: &[(&str, PathBuf)]) -> Result<Report> {
    tools::provide()?;
    let directory = tempfile::tempdir().context("no directory for the report")?;
    let report = directory.path().join("report.json");
    let this = env::current_exe().context("path of this executable")?;
    let status = Command::new(this)
        .arg("bench-in-lab")
        .arg(serde_json::to_string(bench)?)
        .arg(&report)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .status()
        .context("the lab cannot be started")?;
    ensure!(status.success(), "the lab has failed ({status})");
    let text = fs::read_to_string(&report).context("the report from the lab")?;
    serde_json::from_str(&text).context("the report from the lab")
}

/// The process that [`in_lab`] starts, after it has entered the sandbox.
pub(crate) fn run_in_lab(bench: &str, report: &Path) -> Result<ExitCode> {
    let bench: Bench = serde_json::from_str(bench).context("the benchmark")?;
    let measured = bench.measure_in_lab()?;
    fs::write(report, measured.json().to_string()).context("the report")?;
    Ok(ExitCode::SUCCESS)
}

/// A program of `tests/peers`: the one that `variable` names, or else the release build.
fn peer(variable: &str, name: &str) -> Result<PathBuf> {
    match env::var_os(variable) {
        Some(program) => Ok(program.into()),
        None => {
            eprintln!(
                "building {name} and its neighbours in tests/peers, release ({variable} would name one)"
            );
            Ok(build_plain_libp2p(true)?.with_file_name(name))
        }
    }
}

/// The program for bulk transfers, for the lab's environment.
fn transfer() -> Result<(&'static str, PathBuf)> {
    let name = "TRANSFER_BIN";
    Ok((name, peer(name, "transfer")?))
}

/// iroh's, the same.
fn iroh() -> Result<(&'static str, PathBuf)> {
    let name = "IROH_PEER_BIN";
    match env::var_os(name) {
        Some(program) => Ok((name, program.into())),
        None => {
            eprintln!("building iroh-peer, release ({name} would name one)");
            Ok((name, build_iroh_peer(true)?))
        }
    }
}

/// A runtime for the side that measures: it has little to do.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn every_benchmark_has_defaults_and_takes_runs_and_json_from_the_whole() {
        let common = Common {
            runs: Some(7),
            json: true,
        };
        for name in names() {
            let bench = all_defaults(&name, common).unwrap();
            assert_eq!(bench.common(), common, "{name}");
        }
        assert!(names().contains(&"relay-throughput".to_owned()));
    }

    #[test]
    fn the_arguments_reach_the_process_in_the_lab() {
        let words = [
            "bench",
            "relay-throughput",
            "--runs",
            "7",
            "--circuits",
            "3",
        ];
        let bench = Named::try_parse_from(words).unwrap().bench;
        let text = serde_json::to_string(&bench).unwrap();
        let read: Bench = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{bench:?}"));
    }

    #[test]
    fn json_and_runs_of_the_whole_do_not_stand_before_a_name() {
        #[derive(Parser)]
        struct Whole {
            #[command(flatten)]
            _cli: Cli,
        }
        assert!(Whole::try_parse_from(["bench", "--json", "--runs", "3"]).is_ok());
        assert!(Whole::try_parse_from(["bench", "sizes", "--json"]).is_ok());
        assert!(Whole::try_parse_from(["bench", "--json", "sizes"]).is_err());
        assert!(Whole::try_parse_from(["bench", "--runs", "0"]).is_err());
        assert!(Whole::try_parse_from(["bench", "--compare", "before"]).is_ok());
        assert!(Whole::try_parse_from(["bench", "--compare", "before", "--json"]).is_err());
    }
}
