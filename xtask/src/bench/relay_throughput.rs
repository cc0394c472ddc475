//! What a relay carries: ours and plain libp2p's without limits, in turn, on loopback.
//!
//! The peers are plain libp2p programs. A fixed number of bytes goes over one circuit, and over a hundred at once; measured
//! are the time until the last of them has come, and the CPU time of the relay meanwhile. Relay and peers share the CPUs of this host,
//! so the rate tells of all of them; the CPU time is the relay's alone.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use p2pnode_tests::bins::build_plain_libp2p;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::time_to_direct::Spread;
use crate::cargo::{self, Build};

/// The goal: what ours carries per CPU as a part of what plain libp2p's does, medians.
const GOAL: f64 = 1.2;

/// How long a step may take, such as a hundred reservations or all bytes.
const PATIENCE: Duration = Duration::from_secs(300);

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Runs of each relay and number of circuits; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    runs: u16,
    /// The transport between the peers and the relay.
    #[arg(long, default_value = "quic")]
    transport: Wire,
    /// Megabytes over all circuits together in one run.
    #[arg(long, value_name = "MB", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    megabytes: u64,
    /// How many circuits at once; repeatable. Default: 1 and 100.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    circuits: Vec<u16>,
    /// One JSON object per number of circuits on stdout instead of the table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
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

/// Measures and prints; a goal that is missed is printed, not an error: machines differ.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let bins = cargo::bins(Build::Release)?;
    let plain = match env::var_os("PLAIN_LIBP2P_BIN") {
        Some(program) => program.into(),
        None => build_plain_libp2p(true)?,
    };
    let programs = Programs {
        ours: bins.relay_node,
        plain,
        state: tempfile::tempdir().context("no directory for a key")?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let circuits = if args.circuits.is_empty() {
        &[1, 100]
    } else {
        args.circuits.as_slice()
    };
    if !args.json {
        println!("{HEADER}");
    }
    for circuits in circuits {
        let measured = runtime.block_on(measure(&programs, *circuits, args))?;
        if args.json {
            println!("{}", measured.json());
        } else {
            println!("{}", measured.rows());
        }
    }
    if !args.json {
        println!(
            "\n{} MB in each run over {} on loopback, {} runs of each in turn",
            args.megabytes,
            args.transport.name(),
            args.runs
        );
    }
    Ok(ExitCode::SUCCESS)
}

struct Programs {
    ours: PathBuf,
    plain: PathBuf,
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

struct Measured {
    circuits: u16,
    ours: Vec<Run>,
    plain: Vec<Run>,
}

async fn measure(programs: &Programs, circuits: u16, args: &Args) -> Result<Measured> {
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let relay = programs.ours(args.transport)?;
        ours.push(programs.load(relay, circuits, args).await?);
        let relay = programs.plain(args.transport)?;
        plain.push(programs.load(relay, circuits, args).await?);
    }
    Ok(Measured {
        circuits,
        ours,
        plain,
    })
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

    /// CPU time of all its threads: the first number of each `schedstat`, in nanoseconds.
    fn cpu(&self) -> Result<Duration> {
        let pid = self
            .child
            .id()
            .with_context(|| format!("{} has ended", self.name))?;
        let tasks = format!("/proc/{pid}/task");
        let mut nanos = 0;
        for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            let path = task?.path().join("schedstat");
            // A thread may end meanwhile.
            let Ok(times) = fs::read_to_string(&path) else {
                continue;
            };
            let first = times.split_whitespace().next();
            let time: Option<u64> = first.and_then(|time| time.parse().ok());
            nanos += time.with_context(|| format!("{}: {times}", path.display()))?;
        }
        ensure!(nanos > 0, "{tasks}: the kernel keeps no CPU times");
        Ok(Duration::from_nanos(nanos))
    }
}

fn text<'a>(event: &'a Value, key: &str) -> Result<&'a str> {
    event[key]
        .as_str()
        .with_context(|| format!("{event} has no {key}"))
}

const HEADER: &str = concat!(
    "CIRCUITS            |                OURS                 |                PLAIN                | RATIO  GOAL\n",
    "                    |  median   least     q1     q3   most |  median   least     q1     q3   most |"
);

impl Measured {
    fn rows(&self) -> String {
        let rate = Pair::of(self, |run| run.gbit_s);
        let cpu = Pair::of(self, |run| run.cpu_s_gb);
        let per_cpu = Pair::of(self, Run::per_cpu);
        let ratio = per_cpu.ratio();
        let missed = if ratio >= GOAL { "" } else { " missed" };
        let circuits = self.circuits;
        format!(
            "{circuits:8} Gbit/s     | {rate}\n{circuits:8} CPU s/GB   | {cpu}\n{circuits:8} Gbit/s/CPU | {per_cpu}  {GOAL}{missed}"
        )
    }

    fn json(&self) -> Value {
        let values = |of: fn(&Run) -> f64| {
            let pair = Pair::of(self, of);
            json!({
                "ours": self.ours.iter().map(of).collect::<Vec<_>>(),
                "plain": self.plain.iter().map(of).collect::<Vec<_>>(),
                "ours_median": pair.ours.median,
                "plain_median": pair.plain.median,
                "ratio": pair.ratio(),
            })
        };
        json!({
            "circuits": self.circuits,
            "gbit_s": values(|run| run.gbit_s),
            "cpu_s_gb": values(|run| run.cpu_s_gb),
            "gbit_s_cpu": values(Run::per_cpu),
            "goal": GOAL,
        })
    }
}

impl Run {
    /// What one CPU that does nothing else would carry, in 10^9 bits a second.
    fn per_cpu(&self) -> f64 {
        8.0 / self.cpu_s_gb
    }
}

/// A figure of both relays.
struct Pair {
    ours: Spread,
    plain: Spread,
}

impl Pair {
    fn of(measured: &Measured, of: fn(&Run) -> f64) -> Self {
        let spread = |runs: &[Run]| {
            let values: Vec<_> = runs.iter().map(|run| Some(of(run))).collect();
            Spread::of(&values)
        };
        Self {
            ours: spread(&measured.ours),
            plain: spread(&measured.plain),
        }
    }

    fn ratio(&self) -> f64 {
        self.ours.median / self.plain.median
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for spread in [&self.ours, &self.plain] {
            let Spread {
                least,
                q1,
                median,
                q3,
                most,
                ..
            } = spread;
            write!(
                f,
                "{median:7.2} {least:7.2} {q1:6.2} {q3:6.2} {most:6.2} | "
            )?;
        }
        write!(f, "{:5.2}", self.ratio())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(gbit_s: f64, cpu_s_gb: f64) -> Run {
        Run { gbit_s, cpu_s_gb }
    }

    #[test]
    fn half_the_cpu_time_is_twice_as_much_per_cpu() {
        let measured = Measured {
            circuits: 1,
            ours: vec![run(2.0, 1.0), run(4.0, 1.0), run(3.0, 1.0)],
            plain: vec![run(2.0, 2.0)],
        };
        assert!((Pair::of(&measured, Run::per_cpu).ratio() - 2.0).abs() < f64::EPSILON);
        let json = measured.json();
        assert_eq!(json["gbit_s"]["ours_median"], 3.0);
        assert_eq!(json["gbit_s"]["ratio"], 1.5);
        assert!(measured.rows().ends_with("2.00  1.2"));
    }
}
