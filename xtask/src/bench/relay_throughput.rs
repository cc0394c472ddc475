//! What a relay carries: ours, plain libp2p's without limits, and iroh's, in turn, on loopback.
//!
//! The peers are plain libp2p programs, and iroh's own at iroh's relay, one pair. A fixed number of bytes goes over one circuit, and over a hundred at once; measured
//! are the time until the last of them has come, and the CPU time of the relay meanwhile. Relay and peers share the CPUs of this host,
//! so the rate tells of all of them; the CPU time is the relay's alone.

mod running;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use running::{NEVER, Running, text};

use super::{
    Common,
    report::{Better, Figure, Goal, Report, Row},
};
use crate::cargo::{self, Build};

/// The goals: what ours carries per CPU as a part of what plain libp2p's does, medians, and as one of what iroh's does.
const GOAL: f64 = 1.2;
const GOAL_OF_IROH: f64 = 1.0;

const RUNS: u16 = 5;

/// How to measure.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
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

#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
enum Wire {
    Quic,
    Tcp,
}

impl Wire {
    fn listen(self) -> &'static str {
        match self {
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Quic => "QUIC",
            Self::Tcp => "TCP",
        }
    }
}

/// Builds and measures.
pub(super) fn measure(args: &Args) -> Result<Report> {
    let circuits = if args.circuits.is_empty() {
        &[1, 100]
    } else {
        args.circuits.as_slice()
    };
    let programs = Programs {
        ours: cargo::bins(Build::Release)?.relay_node,
        plain: super::peer("PLAIN_LIBP2P_BIN", "plain-libp2p")?,
        // iroh's program is one endpoint.
        iroh: circuits
            .contains(&1)
            .then(|| super::iroh().map(|(_, program)| program))
            .transpose()?,
        state: tempfile::tempdir().context("no directory for a key")?,
    };
    let runtime = super::runtime()?;
    let cells: Vec<_> = circuits
        .iter()
        .map(|circuits| runtime.block_on(measure_cell(&programs, *circuits, args)))
        .collect::<Result<_>>()?;
    Ok(report(args, &cells))
}

struct Programs {
    ours: PathBuf,
    plain: PathBuf,
    iroh: Option<PathBuf>,
    state: tempfile::TempDir,
}

/// What one run came to.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// 10^9 bits in a second.
    gbit_s: f64,
    /// Seconds of CPU time of the relay for 10^9 bytes.
    cpu_s_gb: f64,
}

impl Run {
    /// What one CPU that does nothing else would carry, in 10^9 bits a second.
    fn per_cpu(&self) -> f64 {
        8.0 / self.cpu_s_gb
    }
}

/// Runs of one relay; `None` for one in which not everything came, and why.
#[derive(Debug, Default)]
struct Runs {
    all: Vec<Option<Run>>,
    failures: Vec<String>,
}

impl Runs {
    fn push(&mut self, run: Result<Run, Broken>) {
        self.all.push(run.as_ref().ok().copied());
        self.failures.extend(run.err().map(|Broken(why)| why));
    }

    fn row(&self, program: &str, of: fn(&Run) -> f64) -> Row {
        Row::of(program, self.all.iter().map(|run| run.as_ref().map(of)))
    }
}

/// The peers were connected over circuits, and then bytes were lost: why.
#[derive(Debug)]
struct Broken(String);

#[derive(Debug)]
struct Measured {
    circuits: u16,
    ours: Runs,
    plain: Runs,
    iroh: Runs,
}

async fn measure_cell(programs: &Programs, circuits: u16, args: &Args) -> Result<Measured> {
    let (mut ours, mut plain, mut iroh) = (Runs::default(), Runs::default(), Runs::default());
    for _ in 0..args.common.runs.unwrap_or(RUNS) {
        let relay = programs.ours(args.transport)?;
        ours.push(programs.load(relay, circuits, args).await?);
        let relay = programs.plain(args.transport)?;
        plain.push(programs.load(relay, circuits, args).await?);
        if let (1, Some(program)) = (circuits, &programs.iroh) {
            iroh.push(load_iroh(program, args).await?);
        }
    }
    Ok(Measured {
        circuits,
        ours,
        plain,
        iroh,
    })
}

fn report(args: &Args, cells: &[Measured]) -> Report {
    let what = format!(
        "{} MB over {} on loopback, from plain libp2p peers to plain libp2p peers, through our relay and through plain libp2p's without \
         limits, in turn; and from iroh to iroh through iroh's relay, over TCP. The rate depends on the peers too, which share the CPUs; the CPU time is the relay's alone.",
        args.megabytes,
        args.transport.name()
    );
    let mut report = Report::new("relay-throughput", what);
    let figure = |name, unit, better, of: fn(&Run) -> f64, goals: [Option<Goal>; 2]| {
        let mut figure = Figure::new(name, unit, better);
        for cell in cells {
            let ours = cell.ours.row("ours", of);
            let mut plain = cell.plain.row("plain libp2p", of);
            let mut iroh = cell.iroh.row("iroh", of);
            [plain.goal, iroh.goal] = goals;
            let mut rows = vec![ours, plain];
            rows.extend((!cell.iroh.all.is_empty()).then_some(iroh));
            figure.push(cell.label(), rows);
        }
        figure
    };
    let none = [None, None];
    report.figures = vec![
        figure("carried", "Gbit/s", Better::More, |run| run.gbit_s, none),
        figure("CPU time", "s/GB", Better::Less, |run| run.cpu_s_gb, none),
        figure(
            "carried per CPU",
            "Gbit/s",
            Better::More,
            Run::per_cpu,
            [GOAL, GOAL_OF_IROH].map(|bound| Some(Goal::AtLeast(bound))),
        ),
    ];
    for cell in cells {
        let programs = [
            ("ours", &cell.ours),
            ("plain libp2p", &cell.plain),
            ("iroh", &cell.iroh),
        ];
        for (program, runs) in programs {
            let failures = runs.failures.iter();
            report.notes.extend(
                failures.map(|why| format!("{}, {program}, a run failed: {why}", cell.label())),
            );
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

impl Programs {
    fn ours(&self, transport: Wire) -> Result<Running> {
        let mut command = Command::new(&self.ours);
        command
            .args(["--log", "warn", "run", "--json", "--key"])
            .arg(self.state.path().join("relay.key"))
            .args(["--listen", transport.listen()])
            .env("XDG_STATE_HOME", self.state.path());
        Running::start("our relay", command)
    }

    fn plain(&self, transport: Wire) -> Result<Running> {
        let mut command = Command::new(&self.plain);
        command.args(["relay", "--listen", transport.listen()]);
        Running::start("plain libp2p's relay", command)
    }

    /// Loads a relay that was started. Peers that cannot even connect are an error; bytes that do not come make a failed run.
    async fn load(
        &self,
        mut relay: Running,
        circuits: u16,
        args: &Args,
    ) -> Result<Result<Run, Broken>> {
        let listening = relay.event("listening").await?;
        let address = text(&listening, "address")?;
        let each = args.megabytes * 1_000_000 / u64::from(circuits);
        let bytes = each.to_string();
        let mut receive = Command::new(&self.plain);
        let peers = circuits.to_string();
        receive.args([
            "receive", "--relay", address, "--peers", &peers, "--bytes", &bytes,
        ]);
        let mut receive = Running::start("the receiver", receive)?;
        let mut send = Command::new(&self.plain);
        send.args(["send", "--relay", address, "--bytes", &bytes]);
        for _ in 0..circuits {
            let reserved = receive.event("reserved").await?;
            send.arg(text(&reserved, "peer_id")?);
        }
        let mut send = Running::start("the sender", send)?;
        send.event("open").await?;
        let (cpu, start) = (relay.cpu()?, Instant::now());
        send.go().await?;
        // Whatever of the three ends or fails is the end of the run, and says which it was.
        let moved = tokio::select! {
            moved = receive.event("received") => moved,
            broken = send.event(NEVER) => broken,
            broken = relay.event(NEVER) => broken,
        };
        if let Err(error) = moved {
            return Ok(Err(Broken(format!("{error:#}"))));
        }
        let took = start.elapsed().as_secs_f64();
        let cpu = relay.cpu()?.saturating_sub(cpu).as_secs_f64();
        let gigabytes = (each * u64::from(circuits)) as f64 / 1e9;
        Ok(Ok(Run {
            gbit_s: gigabytes * 8.0 / took,
            cpu_s_gb: cpu / gigabytes,
        }))
    }
}

/// Loads a new relay of iroh's with one pair of iroh's endpoints, as [`Programs::load`].
async fn load_iroh(program: &Path, args: &Args) -> Result<Result<Run, Broken>> {
    let command = |words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words);
        command
    };
    let mut relay = Running::start(
        "iroh's relay",
        command(&["relay", "--listen", "127.0.0.1:0"]),
    )?;
    let listening = relay.event("listening").await?;
    let url = format!("http://{}", text(&listening, "http")?);
    let mut receive = Running::start("the receiver", command(&["receive", "--relay", &url]))?;
    let listening = receive.event("listening").await?;
    let address = text(&listening, "address")?;
    let bytes = args.megabytes * 1_000_000;
    let words = [
        "send",
        "--relay",
        &url,
        "--bytes",
        &bytes.to_string(),
        address,
    ];
    let mut send = Running::start("the sender", command(&words))?;
    send.event("open").await?;
    let before = relay.cpu()?;
    send.go().await?;
    let sent = match send.event("sent").await {
        Ok(sent) => sent,
        Err(error) => return Ok(Err(Broken(format!("{error:#}")))),
    };
    let cpu = relay.cpu()?.saturating_sub(before).as_secs_f64();
    let seconds = sent["seconds"].as_f64().context("iroh tells no seconds")?;
    let gigabytes = bytes as f64 / 1e9;
    Ok(Ok(Run {
        gbit_s: gigabytes * 8.0 / seconds,
        cpu_s_gb: cpu / gigabytes,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn args() -> Args {
        Args {
            transport: Wire::Quic,
            megabytes: 1,
            circuits: vec![1],
            common: Common::default(),
        }
    }

    fn runs<const N: usize>(runs: [Run; N]) -> Runs {
        let mut all = Runs::default();
        runs.into_iter().for_each(|run| all.push(Ok(run)));
        all
    }

    #[test]
    fn half_the_cpu_time_is_twice_as_much_per_cpu() {
        let run = |gbit_s, cpu_s_gb| Run { gbit_s, cpu_s_gb };
        let measured = Measured {
            circuits: 1,
            ours: runs([run(2.0, 1.0), run(4.0, 1.0), run(3.0, 1.0)]),
            plain: runs([run(2.0, 2.0)]),
            iroh: runs([run(2.0, 0.5)]),
        };
        let json = report(&args(), &[measured]).json();
        let plain = |figure: usize| &json["figures"][figure]["cells"][0]["rows"][1];
        assert_eq!(plain(0)["ratio"], 1.5);
        assert_eq!(plain(1)["ratio"], 0.5);
        assert_eq!(
            (&plain(2)["ratio"], &plain(2)["met"]),
            (&2.0.into(), &true.into())
        );
        let iroh = &json["figures"][2]["cells"][0]["rows"][2];
        assert_eq!((&iroh["ratio"], &iroh["met"]), (&0.5.into(), &false.into()));
    }

    #[test]
    fn a_run_in_which_bytes_were_lost_is_one_of_that_relay_that_failed_and_says_why() {
        let one = Run {
            gbit_s: 1.0,
            cpu_s_gb: 1.0,
        };
        let mut plain = runs([one]);
        plain.push(Err(Broken("the sender: lost".to_owned())));
        let measured = Measured {
            circuits: 100,
            ours: runs([one]),
            plain,
            iroh: Runs::default(),
        };
        let report = report(&args(), &[measured]);
        assert_eq!(
            report.notes,
            ["100 circuits, plain libp2p, a run failed: the sender: lost"]
        );
        let rows = &report.json()["figures"][0]["cells"][0]["rows"];
        assert_eq!(
            (&rows[0]["failed"], &rows[1]["failed"]),
            (&0.into(), &1.into())
        );
    }
}
