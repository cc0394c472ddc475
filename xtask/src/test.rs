//! `cargo xtask test`: everything, with the real binaries.

use std::process::ExitCode;

use anyhow::Result;
use p2pnode_tests::{bins, services};

use crate::{
    cargo::{self, Build},
    docs, layers, tools,
};

/// Checks the layers and the prose, provides the tools, builds the binaries and runs unit, property, CLI and lab tests.
pub(crate) fn run(harness: &[String]) -> Result<ExitCode> {
    // Before anything that takes long.
    layers::check()?;
    docs::check()?;
    tools::provide()?;
    let missing = services::missing_tools();
    if !missing.is_empty() {
        tools::install("the tests of services", &missing)?;
    }
    let bins = cargo::build(Build::Tests)?;
    println!("building the programs of other make in tests/peers");
    let plain = bins::build_plain_libp2p(false)?;
    let mut tests = cargo::cargo();
    tests
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("P2PNODE_BIN", &bins.p2pnode)
        .env("RELAY_NODE_BIN", &bins.relay_node)
        .env("PLAIN_LIBP2P_BIN", &plain)
        // An error says what failed; its backtrace says how tokio polls.
        .env("RUST_LIB_BACKTRACE", "0");
    if !harness.is_empty() {
        tests.arg("--").args(harness);
    }
    println!("running `{}`", cargo::show(&tests));
    cargo::run(&mut tests)?;
    Ok(ExitCode::SUCCESS)
}
