//! `cargo xtask bench`: figures of this machine, next to the goals.
//!
//! Each benchmark measures and returns a [`Report`]; what is printed and written of it is the same for all. Those that need the
//! lab measure in a process of their own ([`in_lab`]), which enters the lab's sandbox and cannot leave it.

mod contest;
mod forward;
mod memory;
mod path;
mod programs;
mod punch_success;
mod relay_capacity;
mod relay_throughput;
mod report;
mod search;
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

use crate::tools;
use programs::{Common, Program, transfer};
use report::Report;

/// What `cargo xtask bench` is called with.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// What to measure. Without it: everything, one after the other.
    #[command(subcommand)]
    bench: Option<Bench>,
    #[command(flatten)]
    common: Common,
}

/// What to measure: release builds, unless P2PNODE_BIN, RELAY_NODE_BIN, PLAIN_LIBP2P_BIN, FLEET_BIN, TRANSFER_BIN,
/// IROH_PEER_BIN, DUMBPIPE_BIN and BORINGTUN_BIN name other programs.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Size of the binaries, memory of an idle node, time from start to ready.
    Sizes(sizes::Args),
    /// Time to the first byte over a direct path, from nothing and from a running node, next to plain libp2p and iroh in the same
    /// lab.
    TimeToDirect(time_to_direct::Args),
    /// The share of dials that become direct within 10 s, NAT by NAT, next to plain libp2p and iroh in the same labs.
    PunchSuccess(punch_success::Args),
    /// How often, how soon and with how many packets a pair of ports is found through NATs that map by destination.
    Search(search::Args),
    /// What a relay carries and what CPU time it takes for that, next to a plain libp2p relay without limits and to iroh's.
    RelayThroughput(relay_throughput::Args),
    /// A relay with many reservations that are held and renewed, and then many circuits at once that move data.
    ///
    /// On loopback, with the relay's limits lifted.
    RelayCapacity(relay_capacity::Args),
    /// What a direct connection over QUIC carries and what processor time it takes for that, next to plain libp2p, quinn and
    /// iroh.
    ///
    /// Without a choice of cells those that tell most are measured; all of them are `--rtt 0,20,50,100`.
    ThroughputQuic(throughput::Args),
    /// The same over TCP, next to plain libp2p with Noise, and with TLS as ours.
    ThroughputTcp(throughput::Args),
    /// What an idle connection takes of the memory of who accepted it, next to plain libp2p.
    Memory(memory::Args),
    /// A forward of a service: goodput, processor time, first byte, requests, many sessions, next to `ssh -L`, dumbpipe, WireGuard
    /// in user space, and a bare stream.
    ///
    /// dumbpipe and boringtun-cli are built once, in target/tools, unless DUMBPIPE_BIN and BORINGTUN_BIN name them. Without
    /// /dev/net/tun there is no WireGuard. The report notes who did not take part.
    Forward(forward::Args),
}

/// A benchmark by its name on the command line.
#[derive(Parser)]
struct Named {
    #[command(subcommand)]
    bench: Bench,
}

/// Measures, prints and writes. A goal that is missed is printed, not an error: machines differ.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    if let Some(bench) = cli.bench {
        // The words after `bench`.
        let words: Vec<_> = env::args().skip(2).collect();
        return show(&bench, &words).map(|()| ExitCode::SUCCESS);
    }
    let mut failed = Vec::new();
    for name in names() {
        eprintln!("measuring {name}");
        // One that cannot be had here must not cost the others.
        let words = all_defaults(&name, cli.common);
        if let Err(error) = named(&words).and_then(|bench| show(&bench, &words)) {
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

fn show(bench: &Bench, words: &[String]) -> Result<()> {
    let report = bench.measure(words)?;
    if bench.common().json {
        for cell in report.cells() {
            println!("{cell}");
        }
    } else {
        println!("\n{}", report.markdown());
        for missed in report.missed() {
            println!("missed: {missed}");
        }
    }
    eprintln!("written: {}", report.write()?.display());
    Ok(())
}

impl Bench {
    fn measure(&self, words: &[String]) -> Result<Report> {
        match self {
            Self::Sizes(args) => sizes::measure(args),
            Self::RelayThroughput(args) => relay_throughput::measure(args),
            Self::RelayCapacity(args) => relay_capacity::measure(args),
            Self::TimeToDirect(args) => in_lab(words, &contest::programs(&args.program)?),
            Self::PunchSuccess(args) => in_lab(words, &contest::programs(&args.program)?),
            Self::Search(_) => in_lab(words, &contest::programs(&[Program::Ours])?),
            Self::ThroughputQuic(args) => in_lab(words, &throughput::QUIC.programs(args)?),
            Self::ThroughputTcp(args) => in_lab(words, &throughput::TCP.programs(args)?),
            Self::Memory(_) => in_lab(words, &[transfer()?]),
            Self::Forward(_) => in_lab(words, &forward::programs()?),
        }
    }

    fn measure_in_lab(&self) -> Result<Report> {
        match self {
            Self::TimeToDirect(args) => time_to_direct::measure_in_lab(args),
            Self::PunchSuccess(args) => punch_success::measure_in_lab(args),
            Self::Search(args) => search::measure_in_lab(args),
            Self::ThroughputQuic(args) => throughput::measure_in_lab(throughput::QUIC, args),
            Self::ThroughputTcp(args) => throughput::measure_in_lab(throughput::TCP, args),
            Self::Memory(args) => memory::measure_in_lab(args),
            Self::Forward(args) => forward::measure_in_lab(args),
            Self::Sizes(_) | Self::RelayThroughput(_) | Self::RelayCapacity(_) => self.measure(&[]),
        }
    }

    fn common(&self) -> Common {
        match self {
            Self::Sizes(args) => args.common,
            Self::TimeToDirect(args) => args.common,
            Self::PunchSuccess(args) => args.common,
            Self::Search(args) => args.common,
            Self::RelayThroughput(args) => args.common,
            Self::RelayCapacity(args) => args.common,
            Self::ThroughputQuic(args) | Self::ThroughputTcp(args) => args.common,
            Self::Memory(args) => args.common,
            Self::Forward(args) => args.common,
        }
    }
}

fn names() -> Vec<String> {
    let command = Named::command();
    let names = command.get_subcommands().map(|bench| bench.get_name());
    names.map(str::to_owned).collect()
}

fn all_defaults(name: &str, common: Common) -> Vec<String> {
    let mut words = vec![name.to_owned()];
    if let Some(runs) = common.runs {
        words.extend(["--runs".to_owned(), runs.to_string()]);
    }
    if common.json {
        words.push("--json".to_owned());
    }
    words
}

fn named(words: &[String]) -> Result<Bench> {
    let words = std::iter::once("bench").chain(words.iter().map(String::as_str));
    Ok(Named::try_parse_from(words)?.bench)
}

/// Lets the benchmark of these words measure in the lab, in a process of its own, with those variables in its environment.
fn in_lab(words: &[String], env: &[(&str, PathBuf)]) -> Result<Report> {
    tools::provide()?;
    let directory = tempfile::tempdir().context("no directory for the report")?;
    let report = directory.path().join("report.json");
    let this = env::current_exe().context("path of this executable")?;
    let status = Command::new(this)
        .arg("bench-in-lab")
        .arg(&report)
        .args(words)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .status()
        .context("the lab cannot be started")?;
    ensure!(status.success(), "the lab has failed ({status})");
    let text = fs::read_to_string(&report).context("the report from the lab")?;
    serde_json::from_str(&text).context("the report from the lab")
}

pub(crate) use forward::hold_connections;

/// The process that [`in_lab`] starts, after it has entered the sandbox.
pub(crate) fn run_in_lab(words: &[String], report: &Path) -> Result<ExitCode> {
    let measured = named(words)?.measure_in_lab()?;
    fs::write(report, serde_json::to_string(&measured)?).context("the report")?;
    Ok(ExitCode::SUCCESS)
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
            let bench = named(&all_defaults(&name, common)).unwrap();
            assert_eq!(bench.common(), common, "{name}");
        }
        assert!(names().contains(&"relay-throughput".to_owned()));
    }
}
