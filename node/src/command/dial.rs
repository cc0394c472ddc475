//! `p2pnode dial`: a node that lives as long as one dial.

use std::time::Instant;

use anyhow::Context as _;
use libp2p::identity::Keypair;
use p2pnode_daemon::{exit::Exit, signals::Shutdown};

use crate::{
    command::{
        exit_code::exit_of,
        look::{Look, Seen},
        query::interrupted,
        so_far::SoFar,
    },
    config::Config,
    core::{
        dialer::{Request, Until},
        event::Event,
    },
    observe::output::{PROGRESS_INTERVAL, Printer},
    swarm::node::start_held,
};

/// Dials `request.peer` with a node of its own and prints the events, until the result or a signal.
///
/// # Errors
///
/// If the file of join tokens is invalid, the node cannot start, or stdout is closed.
pub(crate) async fn dial(
    keypair: &Keypair,
    config: &Config,
    request: Request,
    mut printer: Printer,
    shutdown: &Shutdown,
) -> anyhow::Result<Exit> {
    let any_connection = request.until == Until::Connected;
    // The dialer needs no reservation: only a peer that is dialed does.
    let (node, stop) = start_held(keypair, config, 0)?;
    // The dial has its own channel of events.
    drop(node.events);
    let started = Instant::now();
    let handle = node.handle.clone();
    let peer = request.peer;
    let ask = async move {
        let report = handle.netcheck(false).await.ok()?;
        let why = handle.why(peer).await.ok().flatten();
        let search = why.and_then(|why| why.last_search);
        Some(Seen { report, search })
    };
    let mut look = Look::new(ask, request.timeout);
    let mut reports = node.handle.dial(request).await?;
    let mut redraw = tokio::time::interval(PROGRESS_INTERVAL);
    let mut so_far = SoFar::default();
    let exit = loop {
        tokio::select! {
            report = reports.recv() => {
                let mut event = report.context("the event loop ended without a result; please report this with the log")?;
                if let Event::Result(outcome) = &mut event
                    && exit_of(outcome.outcome, any_connection) != Exit::Success
                {
                    look.add_to(outcome, &so_far).await;
                }
                printer.print(&event).context("cannot write to stdout")?;
                so_far.handle(&event);
                if let Event::Result(outcome) = event {
                    break exit_of(outcome.outcome, any_connection);
                }
            }
            () = look.go_on(), if !so_far.is_direct() => {}
            _ = redraw.tick() => printer.progress(started.elapsed()).context("cannot write to stdout")?,
            signal = shutdown.signalled() => {
                break interrupted(&mut printer, &mut so_far, signal, started.elapsed())?;
            }
        }
    };
    drop(stop);
    node.task
        .await
        .context("the event loop panicked; please report this with the log")?;
    Ok(exit)
}
