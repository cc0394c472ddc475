//! What the NAT lab needs from the machine: installed where that is possible, named where it is not.

use std::{env, process::Command};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::sandbox;

use crate::cargo;

pub(crate) fn provide() -> Result<()> {
    let missing = sandbox::missing_tools();
    if !missing.is_empty() {
        install("the NAT lab", &missing)?;
    }
    // In a process of its own: a process that enters the sandbox stays in it.
    let this = env::current_exe().context("path of this executable")?;
    let output = Command::new(this)
        .arg("check-lab")
        .output()
        .context("cannot check for namespaces")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .trim_start_matches("error: ")
    );
    Ok(())
}

/// Installs the packages of `missing` tools, or names them and the command.
pub(crate) fn install(purpose: &str, missing: &[(&str, &str)]) -> Result<()> {
    let tools = missing
        .iter()
        .map(|(tool, _)| *tool)
        .collect::<Vec<_>>()
        .join(", ");
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let by_hand = format!("apt-get install {}", packages.join(" "));
    ensure!(
        sandbox::has_tool("apt-get"),
        "{purpose} needs {tools}: install the packages of this system that have them (on Debian: {by_hand})"
    );
    ensure!(
        sandbox::is_root(),
        "{purpose} needs {tools}: install them as root with `{by_hand}`, or run this as root"
    );
    eprintln!("installing {} for {purpose} ({tools})", packages.join(", "));
    let mut install = Command::new("apt-get");
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&packages);
    // A fresh image has no package lists, or old ones.
    cargo::run(Command::new("apt-get").arg("update"))?;
    cargo::run(&mut install)?;
    let left = missing.iter().find(|(tool, _)| !sandbox::has_tool(tool));
    ensure!(
        left.is_none(),
        "{by_hand} ran and {} is still not in PATH: add /usr/sbin to it",
        left.map_or("a tool", |(tool, _)| *tool)
    );
    Ok(())
}

/// A runtime for what only watches other programs.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")
}
