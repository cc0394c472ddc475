//! The main job over the whole NAT matrix.
//!
//! `P2PNODE_LAB_CELLS` narrows it to the cells whose name contains that text, such as `symmetric--full-cone--quic`.

use std::env;

use anyhow::{Result, ensure};
use p2pnode_tests::matrix;

p2pnode_tests::lab_tests!();

#[tokio::test(flavor = "multi_thread")]
#[allow(
    clippy::print_stdout,
    reason = "the table is what the test is for; it shows with --nocapture and on failure"
)]
async fn every_pair_of_nats_ends_as_it_must_over_quic_and_tcp_and_no_packet_leaves_the_range()
-> Result<()> {
    p2pnode_tests::sandbox::check()?;
    let wanted = env::var("P2PNODE_LAB_CELLS").unwrap_or_default();
    let mut cells = matrix::cells();
    cells.retain(|cell| cell.name().contains(&wanted));
    ensure!(
        !cells.is_empty(),
        "P2PNODE_LAB_CELLS={wanted}: no cell has that in its name"
    );
    let outcomes = matrix::run(cells, matrix::parallelism(), |outcome| {
        println!(
            "{}: {} ({} ms)",
            outcome.cell.name(),
            outcome.outcome,
            outcome.took_ms
        );
    })
    .await;
    matrix::write(&outcomes)?;
    println!("{}", matrix::table(&outcomes));
    let failures = matrix::failures(&outcomes);
    ensure!(
        failures.is_empty(),
        "{} of {} cells failed:\n{}",
        failures.len(),
        outcomes.len(),
        failures.join("\n")
    );
    Ok(())
}
