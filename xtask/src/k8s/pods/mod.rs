//! The shipped pods behind the lab's NATs, played by podman.
//!
//! Everything runs in PID and mount namespaces of its own, with catatonit as their first process: when the command ends, however it
//! does, no container and no mount is left.

mod operator;
mod scenes;
mod stage;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    k8s::podman::{self, Podman},
    sandbox::{self, tool},
};

use super::Bench;
use crate::{
    cargo,
    image::{self, Engine, ImageArgs},
    tools,
};

/// What podman and its network plugins keep outside of the directories that they are given. Each is an empty one of this command.
const RUNTIME_DIRECTORIES: [&str; 3] = ["/run", "/dev/shm", "/var/lib/cni"];

/// Whether pods can be played here.
///
/// # Errors
/// If this is not root, or a tool is missing and cannot be installed.
pub(super) fn provide() -> Result<()> {
    ensure!(
        tools::is_root()?,
        "playing pods needs root, since podman gives each pod a user of its own: run this with sudo, or with --without-pods"
    );
    let missing = [sandbox::missing_tools(), podman::missing_tools()].concat();
    if !missing.is_empty() {
        tools::install("playing pods", &missing)?;
    }
    Ok(())
}

/// Builds the images and plays every scene.
pub(super) fn run(bench: &Bench, profile: Option<&str>) -> Result<()> {
    let images = Podman::new(directory(bench).join("images"), None)?;
    image::make(
        &Engine::podman(images.env()),
        &ImageArgs::of_manifests(profile),
    )?;
    let mut lab = Command::new(tool("unshare"));
    lab.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--", "catatonit", "--"])
        .arg(env::current_exe().context("path of this executable")?)
        .arg("pods-in-lab")
        .env("P2PNODE_BIN", &bench.bins.p2pnode)
        .env("RELAY_NODE_BIN", &bench.bins.relay_node);
    let status = lab.status().context("unshare")?;
    ensure!(
        status.success(),
        "the pods are not as they should be ({status})"
    );
    Ok(())
}

/// The part of [`run`] inside the namespaces.
pub(crate) fn in_lab() -> Result<ExitCode> {
    sandbox::stay_root()?;
    for directory in RUNTIME_DIRECTORIES {
        fs::create_dir_all(directory).with_context(|| directory.to_owned())?;
        let mut mount = Command::new(tool("mount"));
        cargo::run(mount.args(["-t", "tmpfs", "tmpfs", directory]))?;
    }
    let bench = Bench::provide()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(scenes::play(&bench))?;
    Ok(ExitCode::SUCCESS)
}

/// For images and for what podman keeps of each node.
fn directory(bench: &Bench) -> PathBuf {
    bench.directory.join("podman")
}

/// Where the images are.
fn images(bench: &Bench) -> impl AsRef<Path> {
    directory(bench).join("images")
}
