//! What `serve`, `forward`, `connect` and `services` print.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use libp2p::PeerId;
use p2pnode_daemon::terminal;
use serde::Serialize;

use crate::{
    observe::{output::size, status::SessionStatus},
    services::{Listed, Report, SessionReport, State},
};

/// Between two drawings of the live line.
const REDRAW: Duration = Duration::from_secs(1);

/// How reports are printed.
#[derive(Debug)]
pub(crate) struct Output {
    /// JSON; text otherwise.
    json: bool,
    /// stdout carries the session: reports go to stderr, those for people only if something is wrong.
    is_pipe: bool,
    /// Whether the totals stand on a line that is drawn again.
    is_live: bool,
    /// The length of the live line.
    drawn: usize,
    /// The sessions that are open, as they were reported last.
    open: BTreeMap<String, SessionReport>,
    total: u64,
    bytes: (u64, u64),
}

impl Output {
    /// For a command whose stdout is for reports.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            is_pipe: false,
            is_live: !json && terminal::is_live(&io::stdout()),
            drawn: 0,
            open: BTreeMap::new(),
            total: 0,
            bytes: (0, 0),
        }
    }

    /// For a command whose stdout carries the session.
    pub(crate) fn beside_session(json: bool) -> Self {
        Self {
            is_pipe: true,
            is_live: false,
            ..Self::new(json)
        }
    }

    /// How often the live line is drawn.
    pub(crate) const fn interval(&self) -> Duration {
        REDRAW
    }

    /// Whether there is a live line.
    pub(crate) fn is_live(&self) -> bool {
        self.is_live
    }

    /// What the sessions of the node have moved by now. Those of other commands are among them.
    pub(crate) fn moved(&mut self, sessions: &[SessionStatus]) {
        for session in sessions {
            if let Some(open) = self.open.get_mut(&session.session) {
                (open.bytes_in, open.bytes_out) = (session.bytes_in, session.bytes_out);
            }
        }
    }

    /// Whether sessions are open.
    pub(crate) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Sessions that are open are over for the command, as its node no longer reports them.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn close(&mut self, reason: &str) -> anyhow::Result<()> {
        let open = std::mem::take(&mut self.open);
        // Beside a session, people read of faults only.
        let is_printed = self.json || !self.is_pipe;
        for report in open.into_values().filter(|_| is_printed) {
            let report = SessionReport {
                state: State::Closed,
                reason: Some(reason.to_owned()),
                ..report
            };
            self.print(&Report::Session(Box::new(report)))?;
        }
        Ok(())
    }

    /// Prints a report.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn print(&mut self, report: &Report) -> anyhow::Result<()> {
        self.count(report);
        let line = match self.json {
            true => p2pnode_protocol::to_json(report)?,
            false if self.is_pipe && !is_fault(report) => return Ok(()),
            false => text(report),
        };
        if self.is_pipe {
            // If stderr is closed, there is nowhere to report it.
            let _ = writeln!(io::stderr(), "{line}");
            return Ok(());
        }
        self.wipe()?;
        writeln!(io::stdout(), "{line}").context("cannot write to stdout")?;
        self.progress()
    }

    fn count(&mut self, report: &Report) {
        let Report::Session(session) = report else {
            return;
        };
        match session.state {
            State::Opened => {
                let report = SessionReport::clone(session);
                self.open.insert(session.session.clone(), report);
                self.total += 1;
            }
            State::Closed | State::Refused => {
                self.open.remove(&session.session);
                self.bytes.0 += session.bytes_in;
                self.bytes.1 += session.bytes_out;
            }
            State::Moved | State::Resumed => {
                if let Some(open) = self.open.get_mut(&session.session) {
                    *open = SessionReport::clone(session);
                }
            }
        }
    }

    /// Draws the live line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn progress(&mut self) -> anyhow::Result<()> {
        if !self.is_live {
            return Ok(());
        }
        let open = self.open.values();
        let (bytes_in, bytes_out) = open.fold(self.bytes, |sum, open| {
            (sum.0 + open.bytes_in, sum.1 + open.bytes_out)
        });
        let mut line = format!(
            "{} open, {} in all, {} in, {} out",
            self.open.len(),
            self.total,
            size(bytes_in),
            size(bytes_out)
        );
        // A line that goes on in the next one could not be drawn again.
        if let Some(width) = terminal::width(&io::stdout()) {
            line.truncate(width.saturating_sub(1));
        }
        self.wipe()?;
        self.drawn = line.len();
        terminal::set_drawn(true);
        let mut stdout = io::stdout();
        write!(stdout, "{line}")
            .and_then(|()| stdout.flush())
            .context("cannot write to stdout")
    }

    fn wipe(&mut self) -> anyhow::Result<()> {
        let drawn = std::mem::take(&mut self.drawn);
        terminal::set_drawn(false);
        if drawn == 0 {
            return Ok(());
        }
        write!(io::stdout(), "\r{:drawn$}\r", "").context("cannot write to stdout")
    }

    /// Ends the live line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        terminal::set_drawn(false);
        if std::mem::take(&mut self.drawn) == 0 {
            return Ok(());
        }
        writeln!(io::stdout()).context("cannot write to stdout")
    }
}

fn is_fault(report: &Report) -> bool {
    matches!(report, Report::Session(session) if session.reason.is_some())
}

fn text(report: &Report) -> String {
    match report {
        Report::Listening { listen, to } => format!("listening on {listen} for {to}"),
        Report::Serving {
            peer_id,
            service,
            target,
        } => format!("serving {target} as {service}@{peer_id}"),
        Report::Session(session) => session_text(session),
    }
}

fn session_text(session: &SessionReport) -> String {
    let mut line = format!(
        "{} {:8} {}",
        session.session,
        session.state.name(),
        session.service
    );
    if let Some(client) = session.client {
        let _ = write!(line, " {client}");
    }
    if let Some(kind) = session.kind {
        let _ = write!(line, " {kind}");
    }
    if let Some(transport) = session.transport {
        let _ = write!(line, "/{transport}");
    }
    if matches!(session.state, State::Closed) {
        let (bytes_in, bytes_out) = (size(session.bytes_in), size(session.bytes_out));
        let _ = write!(line, ", {bytes_in} in, {bytes_out} out");
    }
    if let Some(reason) = &session.reason {
        let _ = write!(line, ": {reason}");
    }
    line
}

#[derive(Serialize)]
struct Services<'a> {
    #[serde(with = "crate::core::json::text")]
    peer: PeerId,
    services: &'a [Listed],
}

/// What a peer offers.
///
/// # Errors
/// If it is no JSON, which it is.
pub(crate) fn listed(peer: PeerId, services: &[Listed], json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(p2pnode_protocol::to_json(&Services { peer, services })? + "\n");
    }
    let mut text = String::new();
    for Listed {
        name,
        kind,
        protocol,
    } in services
    {
        let protocol = protocol.as_deref().unwrap_or_default();
        let line = format!("{name:24} {kind:5} {protocol}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if services.is_empty() {
        let _ = writeln!(text, "{peer} offers nothing to this node");
    }
    Ok(text)
}
