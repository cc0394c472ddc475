//! `cargo xtask test soak`: the long form of the soak, on release binaries, by a seed.

use std::{
    env,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    lab::Lab,
    nat::NatKind,
    soak::{
        self,
        schedule::{Form, Schedule},
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
}

impl Args {
    fn seed(self) -> u64 {
        self.seed.unwrap_or_else(|| u64::from(std::process::id()))
    }
}

/// Runs it in a process of its own, which enters the lab's sandbox.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    tools::provide()?;
    let bins = cargo::bins(Build::Release)?;
    let this = env::current_exe().context("path of this executable")?;
    let numbers = [args.seed(), args.minutes, args.longest].map(|number| number.to_string());
    eprintln!("seed {}", numbers[0]);
    let status = Command::new(this)
        .arg("soak-in-lab")
        .args(numbers)
        .env("P2PNODE_BIN", &bins.p2pnode)
        .env("RELAY_NODE_BIN", &bins.relay_node)
        .status()
        .context("the lab cannot be started")?;
    ensure!(status.success(), "the soak has failed ({status})");
    Ok(ExitCode::SUCCESS)
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let report = runtime.block_on(async {
        // Its artifacts are the result: they stay, whatever comes of it.
        let lab = Lab::new(&format!("soak-{seed}")).await?;
        soak::run(lab, schedule, pair).await
    })?;
    println!(
        "direct again after {:?}; {} pings in {} dials; {} findings",
        report.healed,
        report.pings,
        report.dials,
        report.findings.len()
    );
    report.passed()?;
    Ok(ExitCode::SUCCESS)
}
