//! The commands that ask a running node: `status`, `why`, and `dial` if a node is running.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, bail};
use libp2p::PeerId;
use p2pnode_daemon::{control, exit::Exit, signals::Shutdown};

use crate::{
    command::exit_code::exit_of,
    control::{Client, DialRequest},
    core::event::Event,
    observe::output::{self, Printer},
};

/// Prints the status of the node at `socket`, or of one of its peers; with `watch`, repeatedly.
pub(crate) async fn status(
    socket: &Path,
    peer: Option<PeerId>,
    watch: bool,
    json: bool,
) -> anyhow::Result<Exit> {
    let client = Client::new(socket);
    control::show(watch, json, async |colour| {
        let mut status = client.status().await?;
        if let Some(peer) = peer {
            status.peers.retain(|known| known.peer == peer);
            status.lost.retain(|lost| lost.peer == peer);
            if status.peers.is_empty() && status.lost.is_empty() && !watch {
                bail!("{peer} is not connected to this node; `p2pnode dial {peer}` connects it");
            }
        }
        Ok(if json {
            serde_json::to_string(&status)? + "\n"
        } else {
            output::status(&status, colour)
        })
    })
    .await
}

/// Prints why the node at `socket` uses its path to `peer`.
pub(crate) async fn why(socket: &Path, peer: PeerId, json: bool) -> anyhow::Result<Exit> {
    let why = Client::new(socket).why(peer).await?;
    let text = if json {
        serde_json::to_string(&why)? + "\n"
    } else {
        output::why(&why, io::stdout().is_terminal())
    };
    write!(io::stdout(), "{text}").context("cannot write to stdout")?;
    Ok(Exit::Success)
}

/// Has the node at `socket` dial the peer no longer when it is lost.
pub(crate) async fn forget(socket: &Path, peer: PeerId) -> anyhow::Result<Exit> {
    let text = match Client::new(socket).forget(peer).await? {
        true => "is not dialed again when it is lost",
        false => "was not wanted: no dial of this node has reached it",
    };
    writeln!(io::stdout(), "{peer} {text}").context("cannot write to stdout")?;
    Ok(Exit::Success)
}

/// Dials through the running node and prints the events.
pub(crate) async fn dial(
    client: &Client,
    request: &DialRequest,
    mut printer: Printer,
) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals()?;
    let started = Instant::now();
    let mut redraw = tokio::time::interval(output::PROGRESS_INTERVAL);
    let mut reports = client.dial(request).await?;
    loop {
        tokio::select! {
            report = reports.next() => {
                let event = report?.context("the node ended the dial without a result: it is stopping")?.event;
                printer.print(&event).context("cannot write to stdout")?;
                if let Event::Result(outcome) = event {
                    return Ok(exit_of(outcome.outcome, request.any_connection));
                }
            }
            _ = redraw.tick() => printer.progress(started.elapsed()).context("cannot write to stdout")?,
            () = shutdown.requested() => bail!("interrupted before the dial was over"),
        }
    }
}
