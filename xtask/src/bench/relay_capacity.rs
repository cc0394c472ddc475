//! A relay with many reservations, held and renewed through two periods, and then with many circuits that move data at once.
//!
//! All of it runs on loopback, in three processes: the relay with its limits lifted, a fleet of peers that hold a reservation
//! each (`tests/peers/fleet`, unmodified libp2p), and a second one with the circuits, while the first goes on.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use p2pnode_tests::{
    bins::{Bins, build_plain_libp2p},
    fleet::sum,
    usage,
};
use serde_json::{Value, json};

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
#[derive(Debug, Clone, clap::Args)]
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
    /// One JSON object on stdout instead of the table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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

/// Builds, measures and prints; a goal that is missed is printed, not an error: machines differ.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let bins = cargo::bins(Build::Release)?;
    let fleet: PathBuf = match env::var_os("FLEET_BIN") {
        Some(program) => program.into(),
        None => build_plain_libp2p(true)?.with_file_name("fleet"),
    };
    provide_descriptors(args.reservations.max(2 * args.circuits) + SPARE)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let measured = runtime.block_on(measure(args, &bins, &fleet))?;
    if args.json {
        println!("{}", measured.json(args));
    } else {
        measured.print(args);
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets this process and its children open that many files each.
fn provide_descriptors(needed: u64) -> Result<()> {
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

async fn measure(args: &Args, bins: &Bins, program: &Path) -> Result<Measured> {
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
        Some(circuits(args, pid, program, address, &mut fleet).await?)
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
            counts["renewed_least"].as_u64() >= Some(3)
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

    fn print(&self, args: &Args) {
        let row = |name: &str, value: f64, unit: &str| println!("{name:44} {value:12.1}  {unit}");
        let [first, second] = self.periods;
        row("reservations held", number(&self.counts, "held"), "");
        row("  renewals", number(&self.counts, "renewed"), "");
        row("  lost", number(&self.counts, "lost"), "");
        row(
            "  handshakes begun anew",
            sum(&self.counts, "errors") as f64,
            "",
        );
        row("set-up", self.held.seconds_since(self.idle), "s");
        row("  CPU", self.held.cpu_since(self.idle), "s");
        let per_peer = self.held.cpu_since(self.idle) * 1000.0 / args.reservations as f64;
        row("  CPU per reservation", per_peer, "ms");
        row("first period", first.seconds_since(self.held), "s");
        row("  CPU", first.cpu_since(self.held), "s");
        row("second period", second.seconds_since(first), "s");
        row("  CPU", second.cpu_since(first), "s");
        row("RSS, idle", self.idle.memory / 1000.0, "MB");
        row("RSS, all held", self.held.memory / 1000.0, "MB");
        row("RSS, after two periods", second.memory / 1000.0, "MB");
        let (cost, verdict) = (self.per_reservation(args), self.verdict(args));
        row("RSS per reservation", cost, &format!("kB{verdict}"));
        row("file descriptors", second.descriptors as f64, "");
        if let Some(circuits) = &self.circuits {
            let moved = &circuits.moved;
            let kilo = |name| number(moved, name) / 1000.0;
            row("circuits at once", number(moved, "open"), "");
            row(
                "  that moved data to the end, unharmed",
                number(moved, "complete"),
                "",
            );
            row("  all bytes, both ways", number(moved, "bytes") / 1e6, "MB");
            row(
                "  least of a circuit, in its slower way",
                kilo("least"),
                "kB",
            );
            row("  median", kilo("median"), "kB");
            row("  most", kilo("most"), "kB");
            row("  least / median", starvation(moved), "");
            row(
                "  CPU of the relay",
                circuits.after.cpu_since(circuits.before),
                "s",
            );
            row("  RSS, all open", circuits.before.memory / 1000.0, "MB");
            row("  RSS, after", circuits.after.memory / 1000.0, "MB");
            row("  file descriptors", circuits.before.descriptors as f64, "");
            let lost = number(&circuits.counts, "lost");
            row("  reservations lost meanwhile", lost, "");
        }
        row("RSS, everybody gone", self.gone.memory / 1000.0, "MB");
        row("  file descriptors", self.gone.descriptors as f64, "");
        println!(
            "\n{} on loopback, limits lifted, reservations of {} s, renewed after three quarters of that; kB are 1000 bytes",
            args.transport.name(),
            args.lifetime
        );
    }

    /// The goal is for QUIC.
    fn verdict(&self, args: &Args) -> String {
        match (args.transport, self.per_reservation(args) <= GOAL) {
            (Wire::Tcp, _) => String::new(),
            (Wire::Quic, true) => format!("  goal {GOAL}"),
            (Wire::Quic, false) => format!("  goal {GOAL} missed"),
        }
    }

    fn json(&self, args: &Args) -> Value {
        let [first, second] = self.periods;
        let period = |now: Taken, before: Taken| json!({"seconds": now.seconds_since(before), "cpu_s": now.cpu_since(before), "rss_kb": now.memory});
        let circuits = self.circuits.as_ref().map(|circuits| {
            json!({
                "moved": circuits.moved,
                "least_to_median": starvation(&circuits.moved),
                "cpu_s": circuits.after.cpu_since(circuits.before),
                "rss_open_kb": circuits.before.memory,
                "rss_after_kb": circuits.after.memory,
                "descriptors": circuits.before.descriptors,
                "lost_meanwhile": circuits.counts["lost"],
            })
        });
        json!({
            "transport": args.transport.name(),
            "reservations": args.reservations,
            "lifetime_s": args.lifetime,
            "counts": self.counts,
            "idle_rss_kb": self.idle.memory,
            "setup": period(self.held, self.idle),
            "periods": [period(first, self.held), period(second, first)],
            "rss_per_reservation_kb": self.per_reservation(args),
            "goal_kb": (args.transport == Wire::Quic).then_some(GOAL),
            "descriptors": second.descriptors,
            "circuits": circuits,
            "gone_rss_kb": self.gone.memory,
            "gone_descriptors": self.gone.descriptors,
        })
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

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or(f64::NAN)
}

/// What the circuit that got least has of what the one in the middle has: 0 is a circuit that starved.
fn starvation(moved: &Value) -> f64 {
    number(moved, "least") / number(moved, "median")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_that_got_nothing_has_starved_and_one_that_is_not_there_is_no_number() {
        let moved = json!({"least": 0, "median": 1000});
        assert_eq!(starvation(&moved), 0.0);
        let fair = json!({"least": 800, "median": 1000});
        assert!((starvation(&fair) - 0.8).abs() < 1e-9);
        assert!(starvation(&json!({"least": null})).is_nan());
    }

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
