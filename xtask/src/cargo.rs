//! Cargo, called from within Cargo.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::bins::{self, Bins};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    Dev,
    Tests,
    Release,
}

impl Build {
    /// Cargo's arguments.
    ///
    /// Cargo unites the features of what it is asked to build at once. The whole workspace is asked for in each of the
    /// quick builds, so that one does not compile again, with other features, what another has compiled.
    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &["build", "--workspace", "--exclude", "xtask", "--bins"],
            Self::Tests => &["build", "--workspace", "--all-targets"],
            Self::Release => &["build", "--release", "-p", "p2pnode", "-p", "relay-node"],
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Self::Dev | Self::Tests => "debug",
            Self::Release => "release",
        }
    }
}

/// The binaries named by `P2PNODE_BIN` and `RELAY_NODE_BIN`, or else those that are built as `what` says.
pub(crate) fn bins(what: Build) -> Result<Bins> {
    let named = |variable| env::var_os(variable).is_some();
    if named("P2PNODE_BIN") && named("RELAY_NODE_BIN") {
        bins::bins()
    } else {
        build(what)
    }
}

pub(crate) fn build(what: Build) -> Result<Bins> {
    let mut command = cargo();
    command.args(what.args());
    eprintln!("running `{}`", show(&command));
    run(&mut command)?;
    let directory = bins::target_dir()?.join(what.directory());
    Ok(Bins {
        p2pnode: directory.join("p2pnode"),
        relay_node: directory.join("relay-node"),
    })
}

pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .status()
        .with_context(|| format!("`{shown}` cannot be started"))?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}

pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .output()
        .with_context(|| format!("`{shown}` cannot be started"))?;
    ensure!(
        output.status.success(),
        "`{shown}` failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

pub(crate) fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
