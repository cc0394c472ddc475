//! What a relay carries: ours, plain libp2p's without limits, and iroh's, in turn, on loopback.
//!
//! The peers are plain libp2p programs, and iroh's own at iroh's relay, one pair. A fixed number of bytes goes over one circuit, and over a hundred at once; measured
//! are the time until the last of them has come, and the CPU time of the relay meanwhile. Relay and peers share the CPUs of this host,
//! so the rate tells of all of them; the CPU time is the relay's alone.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use p2pnode_tests::usage;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{
    Common,
    report::{Better, Figure, Goal, Report, Row},
};
use crate::cargo::{self, Build};

/// The goals: what ours carries per CPU as a part of what plain libp2p's does, medians, and as one of what iroh's does.
const GOAL: f64 = 1.2;
const GOAL_OF_IROH: f64 = 1.0;

const RUNS: u16 = 5;

/// How long a step may take, such as a hundred reservations or all bytes.
const PATIENCE: Duration = Duration::from_secs(300);

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

struct Measured {
    circuits: u16,
    ours: Vec<Run>,
    plain: Vec<Run>,
    iroh: Vec<Run>,
}

async fn measure_cell(programs: &Programs, circuits: u16, args: &Args) -> Result<Measured> {
    let (mut ours, mut plain, mut iroh) = (Vec::new(), Vec::new(), Vec::new());
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
            let ours = Row::new("ours", cell.ours.iter().map(of));
            let mut plain = Row::new("plain libp2p", cell.plain.iter().map(of));
            let mut iroh = Row::new("iroh", cell.iroh.iter().map(of));
            [plain.goal, iroh.goal] = goals;
            let mut rows = vec![ours, plain];
            rows.extend((!cell.iroh.is_empty()).then_some(iroh));
            let plural = if cell.circuits == 1 { "" } else { "s" };
            figure.push(format!("{} circuit{plural}", cell.circuits), rows);
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
    report
}

impl Programs {
    fn ours(&self, transport: Wire) -> Result<Running> {
        let mut command = Command::new(&self.ours);
        command
            .args(["--log", "warn", "run", "--json", "--key"])
            .arg(self.state.path().join("relay.key"))
            .args(["--listen", transport.listen()])
            .env("XDG_STATE_HOME", self.state.path());
        Running::start(command)
    }

    fn plain(&self, transport: Wire) -> Result<Running> {
        let mut command = Command::new(&self.plain);
        command.args(["relay", "--listen", transport.listen()]);
        Running::start(command)
    }

    /// Loads a relay that was started.
    async fn load(&self, mut relay: Running, circuits: u16, args: &Args) -> Result<Run> {
        let listening = relay.event("listening").await?;
        let address = text(&listening, "address")?;
        let each = args.megabytes * 1_000_000 / u64::from(circuits);
        let bytes = each.to_string();
        let mut receive = Command::new(&self.plain);
        let peers = circuits.to_string();
        receive.args([
            "receive", "--relay", address, "--peers", &peers, "--bytes", &bytes,
        ]);
        let mut receive = Running::start(receive)?;
        let mut send = Command::new(&self.plain);
        send.args(["send", "--relay", address, "--bytes", &bytes]);
        for _ in 0..circuits {
            let reserved = receive.event("reserved").await?;
            send.arg(text(&reserved, "peer_id")?);
        }
        let mut send = Running::start(send)?;
        send.event("open").await?;
        let (cpu, start) = (relay.cpu()?, Instant::now());
        send.go().await?;
        receive.event("received").await?;
        let took = start.elapsed().as_secs_f64();
        let cpu = relay.cpu()?.saturating_sub(cpu).as_secs_f64();
        let gigabytes = (each * u64::from(circuits)) as f64 / 1e9;
        Ok(Run {
            gbit_s: gigabytes * 8.0 / took,
            cpu_s_gb: cpu / gigabytes,
        })
    }
}

/// Loads a new relay of iroh's with one pair of iroh's endpoints.
async fn load_iroh(program: &Path, args: &Args) -> Result<Run> {
    let command = |words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words);
        command
    };
    let mut relay = Running::start(command(&["relay", "--listen", "127.0.0.1:0"]))?;
    let listening = relay.event("listening").await?;
    let url = format!("http://{}", text(&listening, "http")?);
    let mut receive = Running::start(command(&["receive", "--relay", &url]))?;
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
    let mut send = Running::start(command(&words))?;
    send.event("open").await?;
    let before = relay.cpu()?;
    send.go().await?;
    let sent = send.event("sent").await?;
    let cpu = relay.cpu()?.saturating_sub(before).as_secs_f64();
    let seconds = sent["seconds"].as_f64().context("iroh tells no seconds")?;
    let gigabytes = bytes as f64 / 1e9;
    Ok(Run {
        gbit_s: gigabytes * 8.0 / seconds,
        cpu_s_gb: cpu / gigabytes,
    })
}

/// A process that tells of events on stdout. Killed when dropped.
struct Running {
    name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let name = Path::new(command.as_std().get_program())
            .display()
            .to_string();
        let mut child = command
            .spawn()
            .with_context(|| format!("{name}: cannot be started"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { name, child, lines })
    }

    /// Waits for an event.
    async fn event(&mut self, wanted: &str) -> Result<Value> {
        let found = async {
            while let Some(line) = self.lines.next_line().await? {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if event["event"] == wanted {
                    return Ok(event);
                }
            }
            anyhow::bail!("{} ended before it was {wanted}", self.name)
        };
        timeout(PATIENCE, found).await.with_context(|| {
            format!("{} was not {wanted} in {} s", self.name, PATIENCE.as_secs())
        })?
    }

    /// Gives it the line for which it waits.
    async fn go(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin is piped")?;
        stdin.write_all(b"\n").await?;
        Ok(())
    }

    /// CPU time of all its threads.
    fn cpu(&self) -> Result<Duration> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        usage::cpu_of_threads(pid.with_context(|| format!("{} has ended", self.name))?)
    }
}

fn text<'a>(event: &'a Value, key: &str) -> Result<&'a str> {
    event[key]
        .as_str()
        .with_context(|| format!("{event} has no {key}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn half_the_cpu_time_is_twice_as_much_per_cpu() {
        let run = |gbit_s, cpu_s_gb| Run { gbit_s, cpu_s_gb };
        let args = Args {
            transport: Wire::Quic,
            megabytes: 1,
            circuits: vec![1],
            common: Common::default(),
        };
        let measured = Measured {
            circuits: 1,
            ours: vec![run(2.0, 1.0), run(4.0, 1.0), run(3.0, 1.0)],
            plain: vec![run(2.0, 2.0)],
            iroh: vec![run(2.0, 0.5)],
        };
        let json = report(&args, &[measured]).json();
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
}
