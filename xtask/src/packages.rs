//! `cargo xtask test packages`: the packages of `dist`, installed on a Debian with systemd that boots in a container without a network.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{bins, sandbox};

use crate::{
    cargo,
    dist::{self, DistArgs},
    image, tools,
};

/// What happens inside, with its checks. It leaves `passed` if all hold.
const SCRIPT: &str = include_str!("packages.sh");
/// The pages, followed in three containers.
const GUIDE: &str = include_str!("packages_guide.sh");
/// Runs [`SCRIPT`] once the system is up, and then ends the container.
const UNIT: &str = "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/root/check\nExecStopPost=/bin/systemctl poweroff --no-block\n";

/// Builds, installs, starts, reloads, freezes, stops and purges both services.
pub(crate) fn run(profile: Option<&str>) -> Result<ExitCode> {
    let missing: Vec<_> = [
        ("debootstrap", "debootstrap"),
        ("systemd-nspawn", "systemd-container"),
    ]
    .into_iter()
    .filter(|(tool, _)| !sandbox::has_tool(tool))
    .collect();
    if !missing.is_empty() {
        tools::install("the test of the packages", &missing)?;
    }
    ensure!(
        sandbox::is_root(),
        "containers of systemd-nspawn need root: run this as root"
    );
    let target = bins::target_dir()?;
    let profile = profile.unwrap_or(image::RELEASE).to_owned();
    let binaries = named(&target.join("named"))?;
    dist::run(&DistArgs {
        profile,
        target: Vec::new(),
        binaries: binaries.into_iter().collect(),
    })?;
    let base = target.join("debian");
    if !base.join("usr/sbin/sshd").exists() {
        println!("making a Debian with systemd in {}", base.display());
        if base.exists() {
            fs::remove_dir_all(&base)?;
        }
        let mut bootstrap = Command::new("debootstrap");
        bootstrap
            .args([
                "--variant=minbase",
                "--include=systemd,systemd-sysv,dbus,openssh-server,openssh-client",
                "stable",
            ])
            .arg(&base);
        cargo::run(&mut bootstrap)?;
    }
    check(&base, &target.join("dist"))?;
    guide(&base, &target.join("dist"))
}

/// Copies the binaries that `P2PNODE_BIN` and `RELAY_NODE_BIN` name into `directory`, which it returns; `None` if they name none.
fn named(directory: &Path) -> Result<Option<PathBuf>> {
    let (Some(node), Some(relay)) = (env::var_os("P2PNODE_BIN"), env::var_os("RELAY_NODE_BIN"))
    else {
        return Ok(None);
    };
    fs::create_dir_all(directory)?;
    fs::copy(node, directory.join("p2pnode")).context("P2PNODE_BIN")?;
    fs::copy(relay, directory.join("relay-node")).context("RELAY_NODE_BIN")?;
    Ok(Some(directory.to_owned()))
}

/// Follows four pages of the documentation to the letter: a relay and two peers behind NATs, a direct dial, a forwarded database,
/// a DNS server, ssh.
fn guide(base: &Path, dist: &Path) -> Result<ExitCode> {
    let script = tempfile::NamedTempFile::new()?;
    fs::write(script.path(), GUIDE)?;
    let docs = cargo::workspace().join("docs");
    let mut follow = Command::new("bash");
    follow.arg(script.path()).args([base, dist, &docs]);
    cargo::run(&mut follow)?;
    println!("packages: the pages hold, from `apt install` to a forwarded database and ssh");
    Ok(ExitCode::SUCCESS)
}

fn check(base: &Path, dist: &Path) -> Result<()> {
    let home = base.join("root");
    for entry in fs::read_dir(dist).with_context(|| dist.display().to_string())? {
        let package = entry?.path();
        if let (Some(name), true) = (
            package.file_name(),
            package.extension().is_some_and(|kind| kind == "deb"),
        ) {
            fs::copy(&package, home.join(name))?;
        }
    }
    let check = home.join("check");
    fs::write(&check, SCRIPT)?;
    fs::set_permissions(&check, fs::Permissions::from_mode(0o755))?;
    fs::write(base.join("etc/systemd/system/check.service"), UNIT)?;
    let outcome = tempfile::tempdir()?;
    let mut container = Command::new("systemd-nspawn");
    // The container's changes are thrown away, but for the outcome.
    container
        .args([
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--quiet",
            "--volatile=overlay",
            "--boot",
        ])
        .arg("--bind")
        .arg(format!("{}:/outcome", outcome.path().display()))
        .arg("--directory")
        .arg(base)
        .args([
            "systemd.wants=check.service",
            "systemd.journald.forward_to_console=no",
        ]);
    cargo::output(&mut container)?;
    let seen = fs::read_to_string(outcome.path().join("log")).unwrap_or_default();
    ensure!(
        outcome.path().join("passed").exists(),
        "the packages failed; the last lines inside:\n{}",
        last(&seen, 25)
    );
    println!(
        "packages: installed, started, reloaded, restarted by the watchdog, stopped and purged"
    );
    Ok(())
}

fn last(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
