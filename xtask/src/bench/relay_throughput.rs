//! What a relay carries: ours, plain libp2p's without limits, and iroh's, in turn, on loopback.
//!
//! The peers are plain libp2p programs, and iroh's own at iroh's relay, one pair. A fixed number of bytes goes over one circuit, and over
//! a hundred at once; measured are the time until the last of them has come, and the CPU time of the relay meanwhile. Relay and peers
//! share the CPUs of this host, so the rate tells of all of them; the CPU time is the relay's alone.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use p2pnode_tests::{bins::Bins, usage};
use tokio::process::Command;

use super::{
    programs::{Common, Wire, iroh, or, plain},
    report::{Better, Figure, Goal, Report, Row},
};
use crate::{
    cargo::{self, Build},
    child::{Child, Relay, text},
    tools,
};

/// The goals: what ours carries per CPU as a part of what plain libp2p's does, medians, and as one of what iroh's does.
const GOALS: [Option<Goal>; 3] = [None, Some(Goal::AtLeast(1.2)), Some(Goal::AtLeast(1.0))];
const PROGRAMS: [&str; 3] = ["ours", "plain libp2p", "iroh"];
const RUNS: u16 = 5;
const PATIENCE: Duration = Duration::from_secs(300);

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The transport between the peers and the relay.
    #[arg(long, default_value = "quic")]
    transport: Wire,
    /// Megabytes over all circuits together in one run.
    #[arg(long, value_name = "MB", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    megabytes: u64,
    /// How many circuits at once; repeatable. Default: 1 and 100.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    circuits: Vec<u16>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    gigabytes: f64,
    seconds: f64,
    cpu: f64,
}

impl Run {
    fn gbit_s(&self) -> f64 {
        self.gigabytes * 8.0 / self.seconds
    }

    fn cpu_s_gb(&self) -> f64 {
        self.cpu / self.gigabytes
    }

    /// What one CPU that does nothing else would carry, in 10^9 bits a second.
    fn per_cpu(&self) -> f64 {
        self.gigabytes * 8.0 / self.cpu
    }
}

/// A run, or why it failed: the peers were connected over circuits, and then bytes were lost.
type Outcome = Result<Run, String>;

struct Measured {
    circuits: u16,
    runs: [Vec<Outcome>; 3],
}

pub(super) fn measure(args: &Args) -> Result<Report> {
    let circuits = or(&args.circuits, &[1, 100]);
    let load = Load {
        bins: cargo::bins(Build::Release)?,
        plain: plain()?.1,
        // iroh's program is one endpoint.
        iroh: circuits
            .contains(&1)
            .then(iroh)
            .transpose()?
            .map(|(_, program)| program),
        transport: args.transport,
        bytes: args.megabytes * 1_000_000,
    };
    let runs = args.common.runs.unwrap_or(RUNS);
    let runtime = tools::runtime()?;
    let cells = circuits
        .into_iter()
        .map(|circuits| runtime.block_on(load.cell(circuits, runs)));
    Ok(report(args, &cells.collect::<Result<Vec<_>>>()?))
}

fn report(args: &Args, cells: &[Measured]) -> Report {
    let what = format!(
        "{} MB over {} on loopback, from plain libp2p peers to plain libp2p peers, through our relay and through plain libp2p's without \
         limits, in turn; and from iroh to iroh through iroh's relay, over TCP. The rate depends on the peers too, which share the CPUs; \
         the CPU time is the relay's alone.",
        args.megabytes,
        args.transport.title()
    );
    let mut report = Report::new("relay-throughput", what);
    let figure = |name, unit, better, of: fn(&Run) -> f64, goals: [Option<Goal>; 3]| {
        let mut figure = Figure::new(name, unit, better);
        for cell in cells {
            let programs = PROGRAMS.iter().zip(&cell.runs).zip(goals);
            let measured = programs.filter(|((_, runs), _)| !runs.is_empty());
            let row = |((program, runs), goal): ((&&str, &Vec<Outcome>), _)| {
                Row::of(*program, runs.iter().map(|run| run.as_ref().ok().map(of))).goal(goal)
            };
            figure.push(cell.label(), measured.map(row).collect());
        }
        figure
    };
    report.figures = vec![
        figure("carried", "Gbit/s", Better::More, Run::gbit_s, [None; 3]),
        figure("CPU time", "s/GB", Better::Less, Run::cpu_s_gb, [None; 3]),
        figure(
            "carried per CPU",
            "Gbit/s",
            Better::More,
            Run::per_cpu,
            GOALS,
        ),
    ];
    for cell in cells {
        for (program, runs) in PROGRAMS.iter().zip(&cell.runs) {
            let failures = runs.iter().filter_map(|run| run.as_ref().err());
            let note = |why| format!("{}, {program}, a run failed: {why}", cell.label());
            report.notes.extend(failures.map(note));
        }
    }
    report
}

impl Measured {
    fn label(&self) -> String {
        let plural = if self.circuits == 1 { "" } else { "s" };
        format!("{} circuit{plural}", self.circuits)
    }
}

struct Load {
    bins: Bins,
    plain: PathBuf,
    iroh: Option<PathBuf>,
    transport: Wire,
    bytes: u64,
}

impl Load {
    async fn cell(&self, circuits: u16, runs: u16) -> Result<Measured> {
        let mut cell = Measured {
            circuits,
            runs: Default::default(),
        };
        for _ in 0..runs {
            let state = tempfile::tempdir().context("no directory for a key")?;
            let Relay { quic, tcp, child } = Relay::start(&self.bins, state.path(), &[]).await?;
            let (address, listen) = match self.transport {
                Wire::Quic => (quic, "/ip4/127.0.0.1/udp/0/quic-v1"),
                Wire::Tcp => (tcp, "/ip4/127.0.0.1/tcp/0"),
            };
            cell.runs[0].push(self.carry(child, &address, circuits).await?);
            let relay = program(&self.plain, &["relay", "--listen", listen]);
            let mut relay = Child::start("plain libp2p's relay", relay)?;
            let listening = relay.event("listening", PATIENCE).await?;
            let address = text(&listening, "address")?;
            cell.runs[1].push(self.carry(relay, address, circuits).await?);
            if let (1, Some(iroh)) = (circuits, &self.iroh) {
                cell.runs[2].push(self.carry_iroh(iroh).await?);
            }
        }
        Ok(cell)
    }

    /// Loads a relay. Peers that cannot even connect are an error; bytes that do not come make a failed run.
    async fn carry(&self, mut relay: Child, address: &str, circuits: u16) -> Result<Outcome> {
        let each = (self.bytes / u64::from(circuits)).to_string();
        let (peers, to) = (circuits.to_string(), ["--relay", address, "--bytes", &each]);
        let mut receive = program(&self.plain, &["receive", "--peers", &peers]);
        receive.args(to);
        let mut receive = Child::start("the receiver", receive)?;
        let mut send = program(&self.plain, &["send"]);
        send.args(to);
        for _ in 0..circuits {
            let reserved = receive.event("reserved", PATIENCE).await?;
            send.arg(text(&reserved, "peer_id")?);
        }
        let mut send = Child::start("the sender", send)?;
        send.event("open", PATIENCE).await?;
        let (before, start) = (cpu(&relay)?, Instant::now());
        send.go().await?;
        // Whatever of the three ends or fails is the end of the run, and says which it was.
        let moved = tokio::select! {
            moved = receive.event("received", PATIENCE) => moved.map(drop),
            broken = send.ends() => Err(broken),
            broken = relay.ends() => Err(broken),
        };
        if let Err(error) = moved {
            return Ok(Err(format!("{error:#}")));
        }
        Ok(Ok(Run {
            gigabytes: (self.bytes / u64::from(circuits) * u64::from(circuits)) as f64 / 1e9,
            seconds: start.elapsed().as_secs_f64(),
            cpu: cpu(&relay)? - before,
        }))
    }

    async fn carry_iroh(&self, iroh: &Path) -> Result<Outcome> {
        let start = |name, words: &[&str]| Child::start(name, program(iroh, words));
        let mut relay = start("iroh's relay", &["relay", "--listen", "127.0.0.1:0"])?;
        let listening = relay.event("listening", PATIENCE).await?;
        let url = format!("http://{}", text(&listening, "http")?);
        let mut receive = start("the receiver", &["receive", "--relay", &url])?;
        let listening = receive.event("listening", PATIENCE).await?;
        let (to, bytes) = (text(&listening, "address")?, self.bytes.to_string());
        let mut send = start(
            "the sender",
            &["send", "--relay", &url, "--bytes", &bytes, to],
        )?;
        send.event("open", PATIENCE).await?;
        let before = cpu(&relay)?;
        send.go().await?;
        let sent = match send.event("sent", PATIENCE).await {
            Ok(sent) => sent,
            Err(error) => return Ok(Err(format!("{error:#}"))),
        };
        Ok(Ok(Run {
            gigabytes: self.bytes as f64 / 1e9,
            seconds: sent["seconds"].as_f64().context("iroh tells no seconds")?,
            cpu: cpu(&relay)? - before,
        }))
    }
}

fn program(program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}

fn cpu(relay: &Child) -> Result<f64> {
    Ok(usage::cpu_of_threads(relay.pid()?)?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(runs: [Vec<Outcome>; 3]) -> Report {
        let args = Args {
            transport: Wire::Quic,
            megabytes: 1000,
            circuits: vec![1],
            common: Common::default(),
        };
        report(&args, &[Measured { circuits: 1, runs }])
    }

    fn run(seconds: f64, cpu: f64) -> Outcome {
        Ok(Run {
            gigabytes: 1.0,
            seconds,
            cpu,
        })
    }

    #[test]
    fn half_the_cpu_time_is_twice_as_much_per_cpu() {
        let ours = vec![run(4.0, 1.0), run(2.0, 1.0), run(2.5, 1.0)];
        let cells = cells([ours, vec![run(5.0, 2.0)], vec![run(5.0, 0.5)]]).cells();
        let row = |figure: usize, row: usize| cells[figure]["rows"][row].clone();
        assert_eq!(row(0, 1)["ratio"], 2.0);
        assert_eq!(row(1, 1)["ratio"], 0.5);
        assert!(row(2, 1)["ratio"] == 2.0 && row(2, 1)["met"] == true);
        assert!(row(2, 2)["ratio"] == 0.5 && row(2, 2)["met"] == false);
    }
}
