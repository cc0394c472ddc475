//! The lines that a node prints, as they come.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::Result;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::ChildStdout,
    sync::watch,
};

/// One line of a node's stdout.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it was read.
    pub at: Instant,
    /// The line.
    pub line: String,
    /// The object, if it is JSON, else null.
    pub json: Value,
}

impl Event {
    /// Its `event` field.
    pub fn name(&self) -> &str {
        self.json["event"].as_str().unwrap_or_default()
    }

    /// The string at a JSON pointer (RFC 6901); empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// `direct` or `relayed`, for an event with a path.
    pub fn path_kind(&self) -> &str {
        self.text("/path/kind")
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Growth {
    pub(crate) events: usize,
    pub(crate) closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Lines {
    events: Mutex<Vec<Event>>,
    pub(crate) grown: watch::Sender<Growth>,
}

impl Lines {
    pub(crate) fn events(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: Event) {
        self.events().push(event);
        self.grown.send_modify(|state| state.events += 1);
    }

    pub(crate) fn close(&self) {
        self.grown.send_modify(|state| state.closed = true);
    }
}

pub(crate) async fn read_lines(
    stdout: ChildStdout,
    copy: PathBuf,
    lines: Arc<Lines>,
) -> Result<()> {
    let read = async {
        let mut copy = tokio::fs::File::create(&copy).await?;
        let mut stdout = BufReader::new(stdout).lines();
        while let Some(line) = stdout.next_line().await? {
            copy.write_all(format!("{line}\n").as_bytes()).await?;
            let json = serde_json::from_str(&line).unwrap_or(Value::Null);
            lines.push(Event {
                at: Instant::now(),
                line,
                json,
            });
        }
        copy.flush().await?;
        anyhow::Ok(())
    };
    let result = read.await;
    lines.close();
    result
}
