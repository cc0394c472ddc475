//! Unmodified libp2p at the far side, as the peer that is dialed and as the one that dials.
//!
//! `P2PNODE_LAB_CELLS` narrows it to the cells whose name contains that text, such as `plain-full-cone`.

use std::{env, sync::Arc};

use anyhow::{Result, ensure};
use p2pnode_tests::{interop, matrix};
use tokio::{sync::Semaphore, task::JoinSet};

p2pnode_tests::lab_tests!();

#[tokio::test(flavor = "multi_thread")]
async fn plain_libp2p_gets_direct_wherever_its_own_limits_allow_whichever_side_dials() -> Result<()>
{
    p2pnode_tests::sandbox::check()?;
    let wanted = env::var("P2PNODE_LAB_CELLS").unwrap_or_default();
    let mut cells = interop::cells();
    cells.retain(|cell| cell.to_string().contains(&wanted));
    ensure!(
        !cells.is_empty(),
        "P2PNODE_LAB_CELLS={wanted}: no cell has that in its name"
    );
    let slots = Arc::new(Semaphore::new(matrix::parallelism()));
    let mut running = JoinSet::new();
    for cell in cells {
        let slots = Arc::clone(&slots);
        running.spawn(async move {
            // The semaphore is never closed: without a permit the cell would only run at once.
            let _slot = slots.acquire_owned().await;
            let failure = interop::run(cell).await.err();
            failure.map(|error| format!("{cell}: {error:#}"))
        });
    }
    let failures: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    ensure!(
        failures.is_empty(),
        "{} cells failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}
