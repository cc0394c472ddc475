//! Cargo, called from within Cargo.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::bins::{self, Bins};

/// How the binaries are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// As it is shipped.
    Release,
}

/// Builds `p2pnode` and `relay-node` and tells where they are.
pub(crate) fn build(profile: Profile) -> Result<Bins> {
    println!("building p2pnode and relay-node");
    let mut command = cargo();
    command.args([
        "build",
        "--bins",
        "--package",
        "p2pnode",
        "--package",
        "relay-node",
    ]);
    let directory = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    run(&mut command)?;
    let directory = bins::target_dir()?.join(directory);
    Ok(Bins {
        p2pnode: directory.join("p2pnode"),
        relay_node: directory.join("relay-node"),
    })
}

/// A call of Cargo in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Runs `command` to a good end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .status()
        .with_context(|| format!("`{shown}` cannot be started"))?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}

/// `command` as it would be typed.
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

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
