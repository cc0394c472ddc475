//! Time to a direct connection: a cold `p2pnode dial` and a plain libp2p peer, in turn, through the same lab.
//!
//! Both peers are behind port-preserving NATs that filter by address and port, and the relay is ours for both. Each dial is
//! a process of its own from a port of its own, so no NAT remembers the one before. Both are measured from outside: from
//! the start of the process to the line that tells of the direct connection.

use std::{
    env,
    ffi::OsString,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::{Bins, bins, build_plain_libp2p, plain_libp2p},
    delay::Link,
    lab::{Host, Lab},
    nat::{NatKind, RANGE},
    node::Launch,
    plain::PlainArgs,
    relay::Relay,
};
use serde_json::{Value, json};

use crate::{
    cargo::{self, Build},
    tools,
};

/// The links: round trip in milliseconds, and loss in percent.
const LINKS: [(u64, f64); 5] = [(0, 0.0), (20, 0.0), (50, 0.0), (100, 0.0), (50, 1.0)];

/// The link that the goal is for, and the goal: ours as a part of plain libp2p's, medians.
const GOAL_LINK: (u64, f64) = (50, 0.0);
const GOAL: f64 = 0.4;

/// How long a plain dial may take. As ours.
const TIMEOUT_S: u64 = 20;

/// The ports of the plain peer: one to listen, and one for each dial from the next on. Outside our range.
const PLAIN_PORT: u16 = 42000;

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Dials of each kind and link; the median counts.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(5..=50))]
    runs: u16,
    /// The transport, to the relay and between the peers.
    #[arg(long, default_value = "quic")]
    transport: Wire,
    /// Only links of this round trip, in milliseconds.
    #[arg(long, value_name = "MS")]
    rtt: Option<u64>,
    /// One JSON object per link on stdout instead of the table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Wire {
    Quic,
    Tcp,
}

impl From<Wire> for Transport {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::Quic => Self::Quic,
            Wire::Tcp => Self::Tcp,
        }
    }
}

impl Args {
    fn to_words(&self) -> Vec<OsString> {
        let transport = Transport::from(self.transport).name();
        let mut words = vec![
            "--runs".into(),
            self.runs.to_string().into(),
            "--transport".into(),
            transport.into(),
        ];
        if let Some(rtt) = self.rtt {
            words.extend(["--rtt".into(), rtt.to_string().into()]);
        }
        if self.json {
            words.push("--json".into());
        }
        words
    }
}

/// Builds, then measures in a process of its own, which enters the lab's sandbox and cannot leave it.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    tools::provide()?;
    let bins = cargo::bins(Build::Release)?;
    let plain = match env::var_os("PLAIN_LIBP2P_BIN") {
        Some(program) => program.into(),
        None => build_plain_libp2p(true)?,
    };
    let this = env::current_exe().context("path of this executable")?;
    let status = Command::new(this)
        .arg("time-to-direct-in-lab")
        .args(args.to_words())
        .env("P2PNODE_BIN", bins.p2pnode)
        .env("RELAY_NODE_BIN", bins.relay_node)
        .env("PLAIN_LIBP2P_BIN", plain)
        .status()
        .context("the lab cannot be started")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Measures and prints; a goal that is missed is printed, not an error: machines differ.
pub(crate) fn in_lab(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        if !args.json {
            println!("{HEADER}");
        }
        let wanted = |(rtt, _): &(u64, f64)| args.rtt.is_none_or(|only| only == *rtt);
        for link in LINKS.into_iter().filter(wanted) {
            let measured = measure(link, args).await?;
            if args.json {
                println!("{}", measured.json());
            } else {
                println!("{}", measured.row());
            }
        }
        if !args.json {
            println!(
                "\nmilliseconds from the start of the process to its direct connection, {}, {} runs of each in turn; \
                 (n) did not get direct and count as the slowest",
                Transport::from(args.transport),
                args.runs
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The times of one link; `None` did not become direct.
struct Measured {
    link: (u64, f64),
    ours: Vec<Option<f64>>,
    plain: Vec<Option<f64>>,
}

async fn measure(link: (u64, f64), args: &Args) -> Result<Measured> {
    let bins = bins()?;
    let program = plain_libp2p()?;
    let transport = Transport::from(args.transport);
    let mut lab = Lab::new(&format!("time-to-direct-{}-{}", link.0, link.1)).await?;
    let relay = Relay::start(&lab, &bins, "relay").await?;
    let (here, there) = (
        lab.site("a", NatKind::EimApdf).await?,
        lab.site("b", NatKind::EimApdf).await?,
    );
    let (a, b) = (
        lab.host("host-a", &here).await?,
        lab.host("host-b", &there).await?,
    );
    if link != (0, 0.0) {
        lab.impair(Link::rtt(Duration::from_millis(link.0)).loss(link.1))?;
    }
    let relay_address = relay
        .addresses(&a, &[transport])
        .into_iter()
        .next()
        .context("the relay has no address")?;
    let plain = |port| PlainArgs {
        program: &program,
        relay: &relay_address,
        transport,
        port,
    };
    let ours_at_b = NodeArgs::new(&relay, &b, &[transport])
        .run(&lab, &bins, "ours-b")
        .start(&b.device, lab.artifacts())?;
    let plain_at_b = plain(PLAIN_PORT)
        .listen("plain-b")
        .start(&b.device, lab.artifacts())?;
    let (ours_id, plain_id) = (reserved(&ours_at_b).await?, reserved(&plain_at_b).await?);

    let mut measured = Measured {
        link,
        ours: Vec::new(),
        plain: Vec::new(),
    };
    for run in 1..=args.runs {
        let dial = our_dial(&relay, &a, transport, &bins, run, &ours_id);
        measured.ours.push(time(dial, &a, &lab, &ours_id).await?);
        let name = format!("plain-{run}");
        let dial = plain(PLAIN_PORT + run).dial(&name, &plain_id, TIMEOUT_S);
        measured.plain.push(time(dial, &a, &lab, &plain_id).await?);
    }
    lab.succeeded();
    Ok(measured)
}

/// From a port that no dial before had.
fn our_dial(
    relay: &Relay,
    host: &Host,
    transport: Transport,
    bins: &Bins,
    run: u16,
    peer: &str,
) -> Launch {
    let port = RANGE.start() + run;
    NodeArgs::new(relay, host, &[transport])
        .range(port..=port)
        .dial(bins, &format!("ours-{run}"), peer)
        .args(["--count", "1"])
}

/// Milliseconds from the start of the dial to the line that tells of the direct connection.
async fn time(dial: Launch, host: &Host, lab: &Lab, peer: &str) -> Result<Option<f64>> {
    let began = Instant::now();
    let mut dial = dial.start(&host.device, lab.artifacts())?;
    dial.exit(PATIENCE * 2).await?;
    let direct = dial
        .events()
        .into_iter()
        .find(|event| {
            event.name() == "connected"
                && event.path_kind() == "direct"
                && event.text("/peer") == peer
        })
        .map(|event| event.at);
    Ok(direct.map(|at| (at - began).as_secs_f64() * 1000.0))
}

const HEADER: &str = concat!(
    "  RTT  LOSS |                OURS                 |                PLAIN                |\n",
    "   ms     % |  median   least     q1     q3   most |  median   least     q1     q3   most | RATIO  GOAL"
);

impl Measured {
    fn ratio(&self) -> f64 {
        Spread::of(&self.ours).median / Spread::of(&self.plain).median
    }

    fn row(&self) -> String {
        let (rtt, loss) = self.link;
        let (ours, plain) = (Spread::of(&self.ours), Spread::of(&self.plain));
        let ratio = self.ratio();
        let goal = match (self.link == GOAL_LINK, ratio <= GOAL) {
            (false, _) => String::new(),
            (true, true) => format!("  {GOAL}"),
            (true, false) => format!("  {GOAL} missed"),
        };
        format!("{rtt:5} {loss:5} | {ours} | {plain} | {ratio:5.2}{goal}")
    }

    fn json(&self) -> Value {
        json!({
            "rtt_ms": self.link.0,
            "loss_percent": self.link.1,
            "ours_ms": self.ours,
            "plain_ms": self.plain,
            "ours_median_ms": finite(Spread::of(&self.ours).median),
            "plain_median_ms": finite(Spread::of(&self.plain).median),
            "ratio": finite(self.ratio()),
            "goal": (self.link == GOAL_LINK).then_some(GOAL),
        })
    }
}

/// JSON has no infinity: half of the dials or more did not get direct.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Quartiles of a sample. What did not become direct took for ever.
pub(super) struct Spread {
    pub(super) least: f64,
    pub(super) q1: f64,
    pub(super) median: f64,
    pub(super) q3: f64,
    pub(super) most: f64,
    failed: usize,
}

impl Spread {
    pub(super) fn of(sample: &[Option<f64>]) -> Self {
        let mut sorted: Vec<f64> = sample
            .iter()
            .map(|time| time.unwrap_or(f64::INFINITY))
            .collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            // Between the two neighbours of the position, which for the median is their middle.
            let position = part * (sorted.len().saturating_sub(1)) as f64;
            let (low, high) = (position.floor(), position.ceil());
            let value = |index: f64| sorted.get(index as usize).copied().unwrap_or(f64::NAN);
            if low == high {
                value(low)
            } else {
                value(low) + (value(high) - value(low)) * (position - low)
            }
        };
        Self {
            least: at(0.0),
            q1: at(0.25),
            median: at(0.5),
            q3: at(0.75),
            most: at(1.0),
            failed: sample.iter().filter(|time| time.is_none()).count(),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:7.0} {:7.0} {:6.0} {:6.0} {:6.0}",
            self.median, self.least, self.q1, self.q3, self.most
        )?;
        if self.failed > 0 {
            write!(f, " ({})", self.failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_a_failure_is_the_slowest() {
        let spread = Spread::of(&[Some(30.0), None, Some(10.0), Some(20.0)]);
        assert!((spread.median - 25.0).abs() < f64::EPSILON);
        assert!(spread.most.is_infinite());
        assert_eq!(spread.failed, 1);
        let odd = Spread::of(&[Some(3.0), Some(1.0), Some(2.0)]);
        assert!((odd.median - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_arguments_reach_the_process_in_the_lab() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Whole {
            #[command(flatten)]
            args: Args,
        }
        let args = Args {
            runs: 7,
            transport: Wire::Tcp,
            rtt: Some(50),
            json: true,
        };
        let words = std::iter::once("x".into()).chain(args.to_words());
        let read = Whole::try_parse_from(words).map(|whole| whole.args.to_words());
        assert_eq!(read.ok(), Some(args.to_words()));
    }
}
