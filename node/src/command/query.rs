//! The commands that ask a running node: `status`, `why`, and `dial` if a node is running.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use libp2p::PeerId;
use p2pnode_daemon::{control, exit::Exit, signals::Shutdown, terminal};
use tokio::time::{Instant, interval, sleep_until};

use crate::{
    command::exit_code::exit_of,
    control::{Client, DialRequest},
    core::event::Event,
    observe::output::{self, Printer},
};

/// How long a node that dials may be silent once the time of the dial is over. Its pings come more often.
const SILENCE: Duration = Duration::from_secs(5);

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
            if status.peers.is_empty() && !watch {
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
    let client = Client::new(socket);
    let shutdown = Shutdown::on_signals()?;
    let why = tokio::select! {
        why = client.why(peer) => why?,
        signal = shutdown.signalled() => return Ok(Exit::of_signal(signal)),
    };
    let text = if json {
        serde_json::to_string(&why)? + "\n"
    } else {
        output::why(&why, terminal::has_colour(&io::stdout()))
    };
    write!(io::stdout(), "{text}").context("cannot write to stdout")?;
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
    let timeout = started + Duration::from_millis(request.timeout_ms);
    let mut heard = started;
    let mut redraw = interval(output::PROGRESS_INTERVAL);
    let mut reports = tokio::select! {
        reports = client.dial(request) => reports?,
        signal = shutdown.signalled() => return Ok(Exit::of_signal(signal)),
    };
    loop {
        tokio::select! {
            report = reports.next() => {
                let event = report?.context("the node ended the dial without a result: it is stopping")?.event;
                heard = Instant::now();
                printer.print(&event).context("cannot write to stdout")?;
                if let Event::Result(outcome) = event {
                    return Ok(exit_of(outcome.outcome, request.any_connection));
                }
            }
            _ = redraw.tick() => printer.progress(started.elapsed()).context("cannot write to stdout")?,
            () = sleep_until(timeout.max(heard) + SILENCE) => {
                bail!("the node has not reported for 5 s and the time of the dial is over: it is stopped, or has too much to do");
            }
            signal = shutdown.signalled() => return Ok(Exit::of_signal(signal)),
        }
    }
}
