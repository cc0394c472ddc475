//! `cargo xtask test`: everything, with the real binaries.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    cargo::{self, Build},
    tools,
};

/// Provides the tools, builds the binaries and runs unit, property, CLI and lab tests.
pub(crate) fn run(harness: &[String]) -> Result<ExitCode> {
    tools::provide()?;
    let bins = cargo::build(Build::Tests)?;
    let mut tests = cargo::cargo();
    tests
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("P2PNODE_BIN", &bins.p2pnode)
        .env("RELAY_NODE_BIN", &bins.relay_node);
    if !harness.is_empty() {
        tests.arg("--").args(harness);
    }
    println!("running `{}`", cargo::show(&tests));
    cargo::run(&mut tests)?;
    Ok(ExitCode::SUCCESS)
}
