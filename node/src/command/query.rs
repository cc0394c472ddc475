//! The commands that ask a running node: `status`, `why`, and `dial` if a node is running.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Fuse, FusedFuture as _},
};
use libp2p::PeerId;
use p2pnode_daemon::{
    command::{block_on, print, with_causes},
    control::{self, ClientError, Form},
    exit::{Exit, Usage},
    signals::{Shutdown, Signal},
    terminal,
};
use tokio::time::{Instant, interval, sleep_until};

use crate::{
    command::{
        exit_code::exit_of,
        look::{Look, Seen},
        so_far::SoFar,
    },
    config::Names,
    control::{Client, DialRequest, Report},
    core::{event::Event, finding::Finding},
    observe::{
        output::{self, Printer},
        status::Status,
    },
};

/// How much later than the time of the dial its result may come.
const LATE: Duration = Duration::from_secs(2);

/// How long a node may be silent after that. Its pings come more often, except over a slow path.
const SILENCE: Duration = Duration::from_secs(5);

/// How long before the end of that a node is asked for a sign of life.
const PROBE: Duration = Duration::from_secs(2);

/// How long a dial may take to end after a signal.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// The peer that a question is about: the id that it means for the command, or a name that the node may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The id or the name.
    pub(crate) text: String,
    /// Why it is no peer, if no node is there that may know the name.
    unknown: Option<String>,
}

impl Asked {
    /// What `text` means for a command with these names.
    ///
    /// # Errors
    /// [`Usage`] if it can be neither an id nor a name.
    pub(crate) fn new(text: &str, names: &Names) -> Result<Self, Usage> {
        match names.peer(text) {
            Ok(peer) => Ok(Self {
                text: peer.to_string(),
                unknown: None,
            }),
            Err(error) if !is_name(text) => Err(error),
            Err(Usage(unknown)) => Ok(Self {
                text: text.to_owned(),
                unknown: Some(unknown),
            }),
        }
    }

    /// The id, by the names that the node knows.
    fn peer(&self, status: &Status) -> Result<PeerId, Usage> {
        let names = Names::default().with_running(&status.names);
        names.peer(&self.text)
    }

    /// A name that nobody knows is wrong usage.
    fn failed(&self, error: ClientError) -> anyhow::Error {
        if let (ClientError::NotRunning { .. }, Some(unknown)) = (&error, &self.unknown) {
            return Usage(unknown.clone()).into();
        }
        refused(error)
    }
}

/// Whether a node answers. If that cannot be seen, a node of its own does.
pub(super) fn is_served(client: &Client) -> anyhow::Result<bool> {
    let is_served = block_on(async { Ok(client.is_served().await) })?;
    Ok(is_served.unwrap_or_else(|error| {
        // If stderr is closed, there is nowhere to report it.
        let _ = writeln!(io::stderr(), "note: {error}; using a node of its own");
        false
    }))
}

/// Whether a peer may have this name.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&text.len()) && text.bytes().all(plain)
}

/// What the node refuses as wrong usage is that.
pub(crate) fn refused(error: ClientError) -> anyhow::Error {
    if let ClientError::Refused { status, reason } = &error
        && status.as_u16() == 400
    {
        return Usage(reason.clone()).into();
    }
    error.into()
}

/// Shows the status of the node at `socket`, or of one of its peers.
pub(crate) async fn status(
    socket: &Path,
    asked: Option<&Asked>,
    sessions: bool,
    form: Form,
) -> anyhow::Result<Exit> {
    let client = Client::new(socket);
    let watch = form.watch;
    control::show(form, async || {
        let status = match sessions {
            true => client.status_with_sessions().await,
            false => client.status().await,
        };
        let mut status = match asked {
            Some(asked) if !watch => status.map_err(|error| asked.failed(error))?,
            Some(_) | None => status?,
        };
        if let Some(asked) = asked {
            only(&mut status, asked, watch)?;
        }
        Ok(status)
    })
    .await
}

/// Leaves what a status says of one peer or relay.
fn only(status: &mut Status, asked: &Asked, watch: bool) -> anyhow::Result<()> {
    let peer = asked.peer(status)?;
    if peer == status.peer_id {
        return Err(Usage(format!(
            "PEER: {peer} is the running node itself; `p2pnode status` shows it"
        ))
        .into());
    }
    if let Some(sessions) = &mut status.sessions {
        sessions.retain(|session| session.peer == peer);
    }
    status.peers.retain(|known| known.peer == peer);
    status.lost.retain(|lost| lost.peer == peer);
    status.refused.retain(|refused| refused.peer == peer);
    let is_absent = status.peers.is_empty() && status.lost.is_empty() && status.refused.is_empty();
    if status.relays.iter().any(|known| known.relay == peer) {
        status.relays.retain(|known| known.relay == peer);
    } else if is_absent && !watch {
        bail!("{peer} is not connected to this node; `p2pnode dial {peer}` connects it");
    }
    Ok(())
}

/// Prints why the node at `socket` uses its path to the peer.
pub(crate) async fn why(socket: &Path, asked: &Asked, json: bool) -> anyhow::Result<Exit> {
    let client = Client::new(socket);
    let why = client.why(&asked.text).await;
    let mut why = why.map_err(|error| asked.failed(error))?;
    if let Some(reason) = why.stays_relayed()
        && let Ok(report) = client.netcheck(false).await
    {
        why.finding = Finding::first(why.finding, || {
            let path = why.candidates.first().map(|of| &of.path.path);
            report.in_the_way(&reason, why.last_search.as_ref(), path)
        });
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
    print(&text)?;
    Ok(Exit::Success)
}

/// Has the node at `socket` dial the peer no longer when it is lost.
pub(crate) async fn forget(socket: &Path, asked: &Asked) -> anyhow::Result<Exit> {
    let was_wanted = Client::new(socket).forget(&asked.text).await;
    let peer = &asked.text;
    let text = match was_wanted.map_err(|error| asked.failed(error))? {
        true => "is not dialed again when it is lost",
        false => "was not wanted: no dial of this node has reached it, or it was forgotten before",
    };
    print(&format!("{peer} {text}\n"))?;
    Ok(Exit::Success)
}

/// Dials through the running node and prints the events. With JSON, every end but wrong usage has a result.
pub(crate) async fn dial(
    client: &Client,
    request: &DialRequest,
    mut printer: Printer,
) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let mut so_far = SoFar::default();
    let dialed = dial_with(client, request, &mut printer, &mut so_far).await;
    if let Err(error) = &dialed
        && printer.is_json()
        && !error.is::<Usage>()
    {
        let outcome = so_far.ended(with_causes(error), started.elapsed());
        let printed = printer.print(&Event::Result(outcome));
        printed.context("cannot write to stdout")?;
    }
    dialed
}

async fn dial_with(
    client: &Client,
    request: &DialRequest,
    printer: &mut Printer,
    so_far: &mut SoFar,
) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals(Some(GRACE))?;
    let started = Instant::now();
    let (time, asked) = (Duration::from_millis(request.timeout_ms), client.clone());
    let pings = Duration::from_secs(u64::from(request.pings.saturating_sub(1)));
    let (timeout, mut limit) = (started + time, started + time + pings + LATE);
    let mut probe: Fuse<BoxFuture<'_, bool>> = Fuse::terminated();
    let mut probed = started;
    // A node of an earlier release does not know the question.
    let peer = request.peer.clone();
    let ask = async move {
        let report = asked.netcheck(false).await.ok()?;
        let search = asked.why(&peer).await.ok().and_then(|why| why.last_search);
        Some(Seen { report, search })
    };
    let mut look = Look::new(ask, time);
    let mut heard = started;
    let mut redraw = interval(output::PROGRESS_INTERVAL);
    let mut reports = tokio::select! {
        reports = client.dial(request, time) => reports.map_err(refused)?,
        signal = shutdown.signalled() => {
            return interrupted(printer, so_far, signal, started.elapsed());
        }
    };
    loop {
        tokio::select! {
            report = reports.next() => {
                let Report { mut event, name } = report?.context("the node ended the dial without a result: it is stopping")?;
                if let (Some(peer), Some(name)) = (event.peer(), name) {
                    printer.name(peer, name);
                }
                if let Event::Result(outcome) = &mut event
                    && exit_of(outcome.outcome, request.any_connection) != Exit::Success
                {
                    look.add_to(outcome, so_far).await;
                }
                heard = Instant::now();
                if let Event::Ping { rtt, .. } = &event {
                    // As the node extends the dial on a slow path.
                    limit += rtt.saturating_sub(Duration::from_secs(1));
                }
                printer.print(&event).context("cannot write to stdout")?;
                so_far.handle(&event);
                if let Event::Result(outcome) = event {
                    return Ok(exit_of(outcome.outcome, request.any_connection));
                }
            }
            () = look.go_on(), if !so_far.is_direct() => {}
            _ = redraw.tick() => printer.progress(started.elapsed()).context("cannot write to stdout")?,
            // One slow ping is no silence: the node is asked whether it answers.
            () = sleep_until((timeout + LATE).max(heard + SILENCE) - PROBE), if probed <= heard => {
                probed = Instant::now();
                probe = async { client.status().await.is_ok() }.boxed().fuse();
            }
            is_there = &mut probe, if !probe.is_terminated() => if is_there {
                heard = Instant::now();
            },
            () = sleep_until(limit.min((timeout + LATE).max(heard + SILENCE))) => {
                bail!("the node reports nothing, and the time of the dial is over: it is stopped, or has too much to do");
            }
            signal = shutdown.signalled() => {
                return interrupted(printer, so_far, signal, started.elapsed());
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
    so_far: &mut SoFar,
    signal: Signal,
    elapsed: Duration,
) -> anyhow::Result<Exit> {
    let outcome = std::mem::take(so_far).ended(format!("interrupted by {signal}"), elapsed);
    let printed = printer.print(&Event::Result(outcome));
    printed.context("cannot write to stdout")?;
    Ok(Exit::of_signal(signal))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::collections::BTreeMap;

    use super::*;
    use crate::observe::status::RelayStatus;

    fn id() -> PeerId {
        PeerId::random()
    }

    fn status(relay: PeerId) -> Status {
        let relay = RelayStatus {
            relay,
            name: None,
            found: false,
            connected: false,
            reserved: false,
            reserved_families: Vec::new(),
            refused: None,
            reason: Some("no answer in time".to_owned()),
            unreserved: None,
            expires: None,
            hidden_at: None,
            paths: Vec::new(),
        };
        Status {
            peer_id: id(),
            key_also_at: None,
            turned_away: Vec::new(),
            listen: Vec::new(),
            port_range: "40000-40050".parse().unwrap(),
            punch_ports: BTreeMap::new(),
            mappings: Vec::new(),
            exposed: Vec::new(),
            relays: vec![relay],
            peers: Vec::new(),
            lost: Vec::new(),
            refused: Vec::new(),
            services: Vec::new(),
            forwards: Vec::new(),
            sessions: None,
            addresses: Vec::new(),
            names: BTreeMap::from([("db".to_owned(), id().to_string())]),
        }
    }

    fn ask(status: &mut Status, text: &str) -> anyhow::Result<()> {
        only(status, &Asked::new(text, &Names::default())?, false)
    }

    #[test]
    fn a_status_is_asked_for_a_relay_a_name_and_nothing_that_is_no_peer() {
        let relay = id();
        let mut known = status(relay);
        // A relay has a line, connected or not, and no advice to dial it.
        ask(&mut known, &relay.to_string()).unwrap();
        assert_eq!(known.relays.len(), 1);
        let own = known.peer_id.to_string();
        let error = ask(&mut known, &own).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("itself"));
        let error = ask(&mut known, "db").unwrap_err().to_string();
        assert!(error.contains(&known.names["db"]), "{error}");
        assert!(error.contains("p2pnode dial"), "{error}");
        for text in ["cache", "not a name", ""] {
            let error = ask(&mut known, text).unwrap_err();
            assert!(error.is::<Usage>(), "{text}: {error}");
        }
        let error = ask(&mut known, "cache").unwrap_err().to_string();
        assert!(error.contains("the running node knows db"), "{error}");
        known.names.clear();
        let error = ask(&mut known, "cache").unwrap_err().to_string();
        assert!(error.contains("knows no name"), "{error}");
    }
}
