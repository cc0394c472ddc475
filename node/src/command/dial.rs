//! `p2pnode dial`: a node that lives as long as one dial.

use std::{future::Future, time::Instant};

use anyhow::Context as _;
use libp2p::identity::Keypair;
use tokio::sync::oneshot;

use crate::{
    config::Config,
    core::{
        dialer::Request,
        event::{Event, Reached},
    },
    observe::{
        metrics::Metrics,
        output::{PROGRESS_INTERVAL, Printer},
        readiness,
    },
    swarm::{node, token_file::TokenFile},
};

/// Dials `request.peer` with a node of its own and prints the course. Ends with what was reached, or early at `shutdown`.
///
/// # Errors
///
/// If the file of join tokens is not as it has to be, the node cannot start, or stdout is gone.
pub(crate) async fn dial(
    keypair: &Keypair,
    config: &Config,
    request: Request,
    mut printer: Printer,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<Reached> {
    let local = keypair.public().to_peer_id();
    let tokens = config.token_file.as_deref();
    let tokens = tokens
        .map(|path| TokenFile::open(path, local))
        .transpose()?;
    let (stop, stopped) = oneshot::channel::<()>();
    // The dialer needs no reservation: it is the other side that is called.
    let reservations = 0;
    let node = node::start(
        keypair,
        config,
        reservations,
        Metrics::default(),
        readiness::new(),
        tokens,
        async {
            // An error says that this function is gone, which is the same wish.
            let _ = stopped.await;
        },
    )?;
    // The dial has its own channel; what the node tells besides is not of interest.
    drop(node.events);
    let started = Instant::now();
    let mut reports = node.handle.dial(request).await?;
    let mut shutdown = std::pin::pin!(shutdown);
    let mut redraw = tokio::time::interval(PROGRESS_INTERVAL);
    let mut reached = None;
    loop {
        tokio::select! {
            report = reports.recv() => {
                let Some(event) = report else { break };
                printer.print(&event).context("cannot write to stdout")?;
                if let Event::Result(outcome) = event {
                    reached = Some(outcome.outcome);
                    break;
                }
            }
            _ = redraw.tick() => printer.progress(started.elapsed()).context("cannot write to stdout")?,
            () = &mut shutdown => break,
        }
    }
    drop(stop);
    node.task
        .await
        .context("the event loop panicked; please report this with the log")?;
    reached.context("interrupted before the dial was over")
}
