//! A running node as its commands see it: `p2pnode status`, `why` and `dial` over its control socket.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::Command,
    time::timeout,
};

use crate::{
    args::{DIAL_TIMEOUT, PATIENCE},
    node::{CONTROL_SOCKET, Launch},
};

#[derive(Clone, Debug)]
pub struct Control {
    p2pnode: PathBuf,
    socket: PathBuf,
}

impl Control {
    pub fn new(p2pnode: &Path, socket: &Path) -> Self {
        Self {
            p2pnode: p2pnode.to_owned(),
            socket: socket.to_owned(),
        }
    }

    pub async fn status(&self) -> Result<Value> {
        self.json(&["status", "--json"]).await
    }

    pub async fn why(&self, peer: &str) -> Result<Value> {
        self.json(&["why", peer, "--json"]).await
    }

    pub async fn text(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.p2pnode)
            .args(args)
            .env(CONTROL_SOCKET, &self.socket)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let what = args.join(" ");
        let output = timeout(PATIENCE, output)
            .await
            .with_context(|| format!("p2pnode {what} does not end"))?
            .with_context(|| format!("{}: cannot be started", self.p2pnode.display()))?;
        ensure!(
            output.status.success(),
            "p2pnode {what}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    pub fn dial(&self, name: &str, peer: &str) -> Launch {
        self.dial_within(name, peer, DIAL_TIMEOUT)
    }

    pub fn dial_within(&self, name: &str, peer: &str, timeout: &str) -> Launch {
        Launch::new(name, &self.p2pnode)
            .args(["dial", peer, "--json", "--timeout", timeout])
            .env(CONTROL_SOCKET, &self.socket)
    }

    /// The same without a process: asks the node over its socket, and returns the result.
    pub async fn dial_at_once(&self, peer: &str) -> Result<Value> {
        let timeout_ms = u64::try_from(PATIENCE.as_millis())?;
        let body = json!({"peer": peer, "addrs": [], "any_connection": false, "timeout_ms": timeout_ms, "pings": 0});
        let body = body.to_string();
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .with_context(|| self.socket.display().to_string())?;
        let request = format!(
            "POST /v1/dial HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE * 3, stream.read_to_string(&mut answer))
            .await
            .context("a dial does not end")??;
        // One report a line, between the lengths of the chunks.
        let mut reports = answer
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let result = reports.find(|report| report["event"]["event"] == "result");
        result
            .map(|report| report["event"].clone())
            .with_context(|| format!("a dial has no result: {answer}"))
    }

    /// A command that asks the node.
    pub fn command(&self, name: &str, args: &[&str]) -> Launch {
        Launch::new(name, &self.p2pnode)
            .args(args.iter().copied())
            .env(CONTROL_SOCKET, &self.socket)
    }

    pub fn watch(&self, name: &str) -> Launch {
        Launch::new(name, &self.p2pnode)
            .args(["status", "--watch", "--json"])
            .env(CONTROL_SOCKET, &self.socket)
    }

    pub async fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.text(args).await?;
        serde_json::from_str(&text)
            .with_context(|| format!("p2pnode {} prints {text}", args.join(" ")))
    }
}

/// What a status says of a peer; null if it is not connected.
pub fn peer<'a>(status: &'a Value, id: &str) -> &'a Value {
    let peers = status["peers"].as_array().into_iter().flatten();
    peers
        .into_iter()
        .find(|peer| peer["peer"] == id)
        .unwrap_or(&Value::Null)
}

pub fn paths<'a>(status: &'a Value, id: &str, kind: &str) -> Vec<&'a Value> {
    let paths = peer(status, id)["paths"].as_array().into_iter().flatten();
    paths.filter(|path| path["kind"] == kind).collect()
}
