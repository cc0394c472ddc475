//! The commands that ask a running node: `status`, `why`, and `dial` if a node is running.

use std::{io, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use libp2p::PeerId;
use p2pnode_daemon::{
    command::print,
    control,
    exit::Exit,
    signals::{Shutdown, Signal},
    terminal,
};
use tokio::time::{Instant, interval, sleep_until};

use crate::{
    command::{
        exit_code::{exit_of, is_worth_a_look},
        so_far::SoFar,
    },
    control::{Client, DialRequest},
    core::event::Event,
    observe::output::{self, Printer},
};

/// How much later than the time of the dial its result may come.
const LATE: Duration = Duration::from_secs(2);

/// How long a node may be silent after that. Its pings come more often.
const SILENCE: Duration = Duration::from_secs(5);

/// How long a dial may take to end after a signal.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

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
            p2pnode_protocol::to_json(&status)? + "\n"
        } else {
            output::status(&status, colour)
        })
    })
    .await
}

/// Prints why the node at `socket` uses its path to `peer`.
pub(crate) async fn why(socket: &Path, peer: PeerId, json: bool) -> anyhow::Result<Exit> {
    let client = Client::new(socket);
    let mut why = client.why(peer).await?;
    if let Some(reason) = why.stays_relayed()
        && let Ok(report) = client.netcheck().await
    {
        why.finding = report.in_the_way(&reason);
    }
    let text = if json {
        p2pnode_protocol::to_json(&why)? + "\n"
    } else {
        let text = output::why(&why, terminal::has_colour(&io::stdout()));
        match terminal::width(&io::stdout()) {
            Some(width) => terminal::fit(&text, width),
            None => text,
        }
    };
    print(&text).context("cannot write to stdout")?;
    Ok(Exit::Success)
}

/// Has the node at `socket` dial the peer no longer when it is lost.
pub(crate) async fn forget(socket: &Path, peer: PeerId) -> anyhow::Result<Exit> {
    let text = match Client::new(socket).forget(peer).await? {
        true => "is not dialed again when it is lost",
        false => "was not wanted: no dial of this node has reached it",
    };
    print(&format!("{peer} {text}\n")).context("cannot write to stdout")?;
    Ok(Exit::Success)
}

/// Dials through the running node and prints the events.
pub(crate) async fn dial(
    client: &Client,
    request: &DialRequest,
    mut printer: Printer,
) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals(Some(GRACE))?;
    let started = Instant::now();
    let timeout = started + Duration::from_millis(request.timeout_ms);
    let mut heard = started;
    let mut redraw = interval(output::PROGRESS_INTERVAL);
    let mut so_far = SoFar::default();
    let mut reports = tokio::select! {
        reports = client.dial(request) => reports?,
        signal = shutdown.signalled() => {
            return interrupted(&mut printer, so_far, signal, started.elapsed());
        }
    };
    loop {
        tokio::select! {
            report = reports.next() => {
                let mut event = report?.context("the node ended the dial without a result: it is stopping")?.event;
                if let Event::Result(outcome) = &mut event
                    && is_worth_a_look(outcome.outcome, request.any_connection)
                    // A node of an earlier release does not know the question.
                    && let Ok(report) = client.netcheck().await
                {
                    outcome.finding = report.finding(outcome);
                }
                heard = Instant::now();
                printer.print(&event).context("cannot write to stdout")?;
                so_far.handle(&event);
                if let Event::Result(outcome) = event {
                    return Ok(exit_of(outcome.outcome, request.any_connection));
                }
            }
            _ = redraw.tick() => printer.progress(started.elapsed()).context("cannot write to stdout")?,
            () = sleep_until((timeout + LATE).max(heard + SILENCE)) => {
                bail!("the node reports nothing, and the time of the dial is over: it is stopped, or has too much to do");
            }
            signal = shutdown.signalled() => {
                return interrupted(&mut printer, so_far, signal, started.elapsed());
            }
        }
    }
}

/// Prints the result of a dial that a signal has ended.
///
/// # Errors
///
/// If stdout cannot be written.
pub(crate) fn interrupted(
    printer: &mut Printer,
    so_far: SoFar,
    signal: Signal,
    elapsed: Duration,
) -> anyhow::Result<Exit> {
    let outcome = so_far.interrupted(&signal.to_string(), elapsed);
    let printed = printer.print(&Event::Result(outcome));
    printed.context("cannot write to stdout")?;
    Ok(Exit::of_signal(signal))
}
