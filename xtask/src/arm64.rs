//! `cargo xtask test arm64`: what `dist` makes for arm64, started under qemu-user; dials between it and programs of this host.

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    bins::{self, Bins},
    sandbox::has_tool,
};

use crate::{
    cargo::{self, Build, output},
    demo,
    dist::{self, DistArgs},
    files, image, target, tools,
};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const EMULATOR: &str = "qemu-aarch64-static";

/// Names a directory with both programs for arm64, which are then not built.
const BINARIES: &str = "ARM64_BINARIES";

pub(crate) fn run(profile: Option<&str>) -> Result<ExitCode> {
    if !has_tool(EMULATOR) {
        tools::install("programs of arm64", &[(EMULATOR, "qemu-user-static")])?;
    }
    let profile = profile.unwrap_or(image::RELEASE);
    let binaries = match env::var_os(BINARIES) {
        Some(directory) => PathBuf::from(directory),
        None => target::build_static(profile, TARGET)?,
    };
    let here = cargo::bins(Build::Dev)?;
    dist::run(&DistArgs {
        profile: profile.to_owned(),
        target: Vec::new(),
        binaries: vec![binaries.clone()],
    })?;
    let wrappers = tempfile::tempdir()?;
    let wrapper = |name: &str| -> Result<PathBuf> {
        let (wrapper, binary) = (wrappers.path().join(name), binaries.join(name));
        let binary = binary.canonicalize().context(name.to_owned())?;
        let script = format!("#!/bin/sh\nexec {EMULATOR} {} \"$@\"\n", binary.display());
        files::write(&wrapper, &script, 0o755)?;
        print!(
            "{}",
            output(std::process::Command::new(&wrapper).arg("--version"))?
        );
        Ok(wrapper)
    };
    let arm64 = Bins {
        p2pnode: wrapper("p2pnode")?,
        relay_node: wrapper("relay-node")?,
    };
    for (relay, listener, dialer) in [(&here, &here, &arm64), (&arm64, &arm64, &here)] {
        let status = demo::between(relay, listener, dialer)?;
        ensure!(status.success(), "the dial failed ({status})");
    }
    println!(
        "arm64: packages in {}, and dials from and to this architecture",
        bins::target_dir()?.join("dist").display()
    );
    Ok(ExitCode::SUCCESS)
}
