//! `cargo xtask test carry`: sessions under failures, with 1 GiB each way and the times of the default configuration, on release
//! binaries.

use std::{
    env,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{args::Transport, carry, lab::Lab, nat::NatKind};

use crate::{
    cargo::{self, Build},
    tools,
};

/// The pairs of NATs, and whether the path stays relayed.
const PAIRS: [(NatKind, NatKind, bool); 4] = [
    (NatKind::EimApdf, NatKind::EimApdfRewrite, false),
    (NatKind::RangeFirewall, NatKind::RangeFirewall, false),
    (NatKind::Symmetric, NatKind::FullCone, false),
    (NatKind::Symmetric, NatKind::Symmetric, true),
];

#[derive(Debug, Clone, Copy, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// carry: how many MiB go each way between each pair of NATs
    #[arg(long, requires = "suite", default_value_t = 1024)]
    mib: u64,
}

/// Runs it in a process of its own, which enters the lab's sandbox.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    tools::provide()?;
    let bins = cargo::bins(Build::Release)?;
    let this = env::current_exe().context("path of this executable")?;
    let status = Command::new(this)
        .arg("carry-in-lab")
        .arg(args.mib.to_string())
        .env("P2PNODE_BIN", &bins.p2pnode)
        .env("RELAY_NODE_BIN", &bins.relay_node)
        .status()
        .context("the lab cannot be started")?;
    ensure!(status.success(), "a session has not carried all ({status})");
    Ok(ExitCode::SUCCESS)
}

/// The process that [`run`] starts, after it has entered the sandbox.
pub(crate) fn in_lab(mib: u64) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        for (a, b, stays_relayed) in PAIRS {
            let lab = Lab::new(&format!("carry-{a}-{b}")).await?;
            let phases =
                carry::changes(lab, [a, b], mib << 20, Duration::ZERO, stays_relayed).await?;
            for phase in phases {
                let (took, pause) = (phase.took.as_secs_f64(), phase.longest_pause.as_secs_f64());
                println!(
                    "{a} x {b}, {}: {} bytes by then, {took:.1} s, longest pause {pause:.2} s",
                    phase.name, phase.bytes
                );
            }
        }
        let seconds = Duration::from_secs;
        for over in Transport::ALL {
            let lab = Lab::new(&format!("carry-stopped-{over}")).await?;
            carry::stopped(lab, over, seconds(60), seconds(20)).await?;
            println!("{over}: either node stopped for 20 s: all carried");
            let lab = Lab::new(&format!("carry-network-{over}")).await?;
            carry::network_gone(lab, over, seconds(60), [50, 70].map(seconds)).await?;
            println!("{over}: no network for 50 s: all carried; for 70 s: a reset on both sides");
            let lab = Lab::new(&format!("carry-killed-{over}")).await?;
            carry::caller_killed(lab, over, seconds(60), false).await?;
            println!("{over}: a calling node killed: a reset at the target after the linger");
        }
        carry::server_killed(Lab::new("carry-server").await?, seconds(60)).await?;
        println!("a serving node killed: a reset at the client after the linger");
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
