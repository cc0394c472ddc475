//! `cargo xtask test`: everything, with the real binaries.

mod lanes;

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
    let vars = [
        ("P2PNODE_BIN", &*bins.p2pnode),
        ("RELAY_NODE_BIN", &*bins.relay_node),
        ("PLAIN_LIBP2P_BIN", &*plain),
    ];
    let ran = lanes::run(lanes::build()?, harness, &vars);
    let mut examples = cargo::cargo();
    examples.args(["test", "--workspace", "--doc", "--no-fail-fast"]);
    if !harness.is_empty() {
        examples.arg("--").args(harness);
    }
    println!("running `{}`", cargo::show(&examples));
    let examples = cargo::run(&mut examples);
    ran.and(examples)?;
    Ok(ExitCode::SUCCESS)
}
