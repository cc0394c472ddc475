//! The lines that a process prints, as they come.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader},
    sync::watch,
};

#[derive(Clone, Debug)]
pub struct Event {
    pub at: Instant,
    pub line: String,
    pub json: Value,
}

impl Event {
    pub fn name(&self) -> &str {
        self.json["event"].as_str().unwrap_or_default()
    }

    /// The string at a JSON pointer (RFC 6901); empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        let value = self.json.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default()
    }

    pub fn path_kind(&self) -> &str {
        self.text("/path/kind")
    }

    pub fn connects(&self, peer: &str, kind: &str) -> bool {
        self.name() == "connected" && self.text("/peer") == peer && self.path_kind() == kind
    }

    pub fn disconnects(&self, peer: &str, kind: &str) -> bool {
        self.name() == "disconnected" && self.text("/peer") == peer && self.text("/kind") == kind
    }

    pub fn has(&self, wanted: &Value) -> Result<()> {
        has(&self.json, wanted)
    }
}

/// Asserts that all of `wanted` is in `json`, where objects and arrays may have more; null is also what is not there.
pub fn has(json: &Value, wanted: &Value) -> Result<()> {
    fn includes(json: &Value, wanted: &Value) -> bool {
        match (json, wanted) {
            (Value::Object(_), Value::Object(wanted)) => wanted
                .iter()
                .all(|(key, wanted)| includes(&json[key], wanted)),
            (Value::Array(json), Value::Array(wanted)) => {
                json.len() >= wanted.len()
                    && json
                        .iter()
                        .zip(wanted)
                        .all(|(json, wanted)| includes(json, wanted))
            }
            _ => json == wanted,
        }
    }
    ensure!(includes(json, wanted), "not {wanted}: {json}");
    Ok(())
}

pub fn result(events: &[Event]) -> Result<&Event> {
    let result = events.iter().find(|event| event.name() == "result");
    result.context("there is no result")
}

#[derive(Debug, Default)]
pub(crate) struct Lines {
    events: Mutex<Vec<Event>>,
    /// Changes with every line; true after the last.
    closed: watch::Sender<bool>,
}

impl Lines {
    pub(crate) fn events(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) async fn until<T>(&self, look: impl Fn(&[Event]) -> Option<T>) -> Option<T> {
        let mut grown = self.closed.subscribe();
        loop {
            // The state is read before the events: nothing is appended once it says closed.
            let closed = *grown.borrow_and_update();
            if let Some(found) = look(&self.events()) {
                return Some(found);
            }
            if closed || grown.changed().await.is_err() {
                return None;
            }
        }
    }

    pub(crate) async fn closed(&self) {
        // An error means that nobody is left to read.
        let mut closed = self.closed.subscribe();
        let _read = closed.wait_for(|closed| *closed).await;
    }
}

pub(crate) async fn read_lines(
    stream: impl AsyncRead + Unpin,
    copy: PathBuf,
    lines: Arc<Lines>,
) -> Result<()> {
    let read = async {
        let mut copy = tokio::fs::File::create(&copy).await?;
        let mut stream = BufReader::new(stream).lines();
        while let Some(line) = stream.next_line().await? {
            // Before the copy: the disk of a machine under load takes its time.
            let at = Instant::now();
            copy.write_all(format!("{line}\n").as_bytes()).await?;
            let json = serde_json::from_str(&line).unwrap_or(Value::Null);
            lines.events().push(Event { at, line, json });
            lines.closed.send_modify(|_| ());
        }
        copy.flush().await?;
        anyhow::Ok(())
    };
    let result = read.await;
    lines.close();
    result
}
