//! `cargo xtask test soak`: the long form of the soak, on release binaries, by a seed.

use std::{
    env,
    path::Path,
    process::{Child, Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    bins::Bins,
    lab::Lab,
    nat::NatKind,
    soak::{
        self,
        schedule::{Fault, Form, Schedule, Side},
    },
};

use crate::{
    cargo::{self, Build},
    tools,
};

/// The pairs of NATs that a seed chooses from. Each pair can be direct.
const PAIRS: [[NatKind; 2]; 5] = [
    [NatKind::EimApdf, NatKind::EimApdfRewrite],
    [NatKind::EimApdf, NatKind::EimApdf],
    [NatKind::FullCone, NatKind::EimApdf],
    [NatKind::AddressRestricted, NatKind::EimApdfRewrite],
    [NatKind::EimApdfRewrite, NatKind::FullCone],
];

#[derive(Debug, Clone, Copy, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// soak: how long faults come, in minutes
    #[arg(long, requires = "suite", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
    /// soak: the longest fault, in seconds
    #[arg(long, requires = "suite", default_value_t = 200, value_parser = clap::value_parser!(u64).range(5..=3600))]
    longest: u64,
    /// soak: the seed of the schedule; a new one if it is not given
    #[arg(long, requires = "suite")]
    seed: Option<u64>,
    /// soak: instead of a schedule, three outages of so many seconds, at the same time in a lab each
    #[arg(long, requires = "suite", conflicts_with_all = ["minutes", "longest", "seed"], value_parser = clap::value_parser!(u64).range(5..=3600))]
    outage: Option<u64>,
}

/// What is away for long, and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Outage {
    /// The link of one side.
    Link,
    /// The program of the other side.
    Remote,
    /// Both relays, which come back without memory, and the program of the other side.
    RelaysAndRemote,
}

impl Outage {
    const ALL: [Self; 3] = [Self::Link, Self::Remote, Self::RelaysAndRemote];

    const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Remote => "remote",
            Self::RelaysAndRemote => "relays-and-remote",
        }
    }

    const fn faults(self) -> &'static [Fault] {
        match self {
            Self::Link => &[Fault::LinkSilent(Side::A)],
            Self::Remote => &[Fault::Suspended(Side::B)],
            Self::RelaysAndRemote => &[
                Fault::RelayKilled(0),
                Fault::RelayKilled(1),
                Fault::Suspended(Side::B),
            ],
        }
    }
}

impl Args {
    fn seed(self) -> u64 {
        self.seed.unwrap_or_else(|| u64::from(std::process::id()))
    }
}

/// Runs it in processes of their own, which enter the lab's sandbox.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    tools::provide()?;
    let bins = cargo::bins(Build::Release)?;
    let this = env::current_exe().context("path of this executable")?;
    if let Some(seconds) = args.outage {
        let seconds = seconds.to_string();
        let begun = Outage::ALL.map(|outage| {
            let words = ["outage-in-lab", outage.name(), &seconds];
            start(&this, &bins, &words)
        });
        let ended: Vec<_> = begun.into_iter().map(|child| succeed(child?)).collect();
        ended.into_iter().collect::<Result<Vec<()>>>()?;
        return Ok(ExitCode::SUCCESS);
    }
    let numbers = [args.seed(), args.minutes, args.longest].map(|number| number.to_string());
    let [seed, minutes, longest] = &numbers;
    eprintln!("seed {seed}");
    succeed(start(
        &this,
        &bins,
        &["soak-in-lab", seed, minutes, longest],
    )?)?;
    Ok(ExitCode::SUCCESS)
}

fn start(this: &Path, bins: &Bins, words: &[&str]) -> Result<Child> {
    Command::new(this)
        .args(words)
        .env("P2PNODE_BIN", &bins.p2pnode)
        .env("RELAY_NODE_BIN", &bins.relay_node)
        .spawn()
        .context("the lab cannot be started")
}

fn succeed(mut child: Child) -> Result<()> {
    let status = child.wait().context("the soak cannot be awaited")?;
    ensure!(status.success(), "the soak has failed ({status})");
    Ok(())
}

/// The process that [`run`] starts, after it has entered the sandbox.
pub(crate) fn in_lab(seed: u64, minutes: u64, longest: u64) -> Result<ExitCode> {
    let length = Duration::from_secs(60 * minutes);
    let schedule = Schedule::new(seed, Form::long(length, Duration::from_secs(longest)));
    let pair = PAIRS[usize::try_from(seed % PAIRS.len() as u64)?];
    println!(
        "seed {seed}: {} faults in {minutes} minutes between {} and {}",
        schedule.episodes.len(),
        pair[0],
        pair[1]
    );
    soaked(format!("soak-{seed}"), schedule, pair)
}

/// One of the processes that [`run`] starts for outages.
pub(crate) fn outage_in_lab(outage: Outage, seconds: u64) -> Result<ExitCode> {
    let schedule = Schedule::outage(outage.faults(), Duration::from_secs(seconds));
    let name = format!("outage-{}", outage.name());
    println!("{name}: {seconds} seconds");
    soaked(name, schedule, PAIRS[0])
}

fn soaked(name: String, schedule: Schedule, pair: [NatKind; 2]) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let report = runtime.block_on(async {
        // Its artifacts are the result: they stay, whatever comes of it.
        let lab = Lab::new(&name).await?;
        soak::run(lab, schedule, pair).await
    })?;
    println!(
        "{name}: direct again after {:?}; {} pings in {} dials; {} findings",
        report.healed,
        report.pings,
        report.dials,
        report.findings.len()
    );
    report.passed()?;
    Ok(ExitCode::SUCCESS)
}
