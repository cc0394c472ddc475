//! Runs the NAT matrix and prints it: `cargo run -p p2pnode-tests --example matrix [PART OF A CELL'S NAME]`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to a person at a terminal"
)]

use std::{env, process::ExitCode};

use anyhow::Result;
use p2pnode_tests::{matrix, sandbox};

fn main() -> Result<ExitCode> {
    sandbox::enter()?;
    sandbox::check()?;
    let wanted = env::args().nth(1).unwrap_or_default();
    let mut cells = matrix::cells();
    cells.retain(|cell| cell.name().contains(&wanted));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcomes = runtime.block_on(matrix::run(cells, matrix::parallelism(), |outcome| {
        let state = if outcome.failure.is_some() {
            "FAILED"
        } else {
            "ok"
        };
        println!(
            "{state:6} {:50} {:11} {:>6} ms {}",
            outcome.cell.name(),
            outcome.outcome,
            outcome.took_ms,
            outcome.reason.as_deref().unwrap_or_default(),
        );
    }));
    println!(
        "\n{}written to {}",
        matrix::table(&outcomes),
        matrix::write(&outcomes)?.display()
    );
    let failures = matrix::failures(&outcomes);
    for failure in &failures {
        eprintln!("{failure}");
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
