//! The output on stdout, for people and for programs.

mod columns;
mod ending;
mod netcheck;
mod screen;
mod served;
mod table;
mod text;
mod words;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use libp2p::PeerId;
use p2pnode_daemon::terminal;
use p2pnode_protocol::{escape, to_json};
use serde::Serialize;

use crate::core::event::Event;

pub(crate) use columns::size;
pub(crate) use ending::explain;
pub(crate) use netcheck::netcheck;
pub(crate) use table::{status, why};
pub(crate) use words::{label, plain, short};

/// Time between two redraws of the progress line.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A timeline for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Writes events to stdout.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    /// Whether a progress line may be drawn and wiped again.
    live: bool,
    /// What the node is waiting for.
    phase: &'static str,
    /// The peers that have a name.
    names: BTreeMap<PeerId, String>,
}

/// An event, and the name of its peer.
#[derive(Serialize)]
struct Named<'a> {
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl Printer {
    /// A printer on stdout.
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            live: format == Format::Text && terminal::is_live(&io::stdout()),
            phase: "",
            names: BTreeMap::new(),
        }
    }

    /// Whether it writes for people, to a terminal, which may know no escape codes.
    pub(crate) fn is_watched(&self) -> bool {
        self.format == Format::Text && io::stdout().is_terminal()
    }

    /// Whether it writes for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// A peer has this name.
    pub(crate) fn name(&mut self, peer: PeerId, name: String) {
        self.names.insert(peer, name);
    }

    /// Writes one event.
    ///
    /// # Errors
    ///
    /// Those of stdout, as when its reader is gone.
    pub(crate) fn print(&mut self, event: &Event) -> io::Result<()> {
        let name = event.peer().and_then(|peer| self.names.get(&peer));
        let name = name.map(String::as_str);
        match self.format {
            Format::Json => self.write(&to_json(&Named { event, name })?)?,
            Format::Text => self.write(&escape(text::line(event, name)))?,
        }
        if let Some(phase) = text::phase(event) {
            self.phase = phase;
        }
        Ok(())
    }

    fn write(&self, line: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.live {
            out.write_all(terminal::WIPE)?;
            terminal::set_drawn(false);
        }
        writeln!(out, "{line}")?;
        out.flush()
    }

    /// Draws the progress line, if stdout is a terminal.
    ///
    /// # Errors
    ///
    /// Those of stdout.
    pub(crate) fn progress(&self, elapsed: Duration) -> io::Result<()> {
        if !self.live || self.phase.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(terminal::WIPE)?;
        write!(out, "{:>8.1} s  {}", elapsed.as_secs_f64(), self.phase)?;
        terminal::set_drawn(true);
        out.flush()
    }
}
