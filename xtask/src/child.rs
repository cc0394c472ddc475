//! A relay and nodes as child processes on this host.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use p2pnode_tests::bins::Bins;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// How long a process may take to say what is waited for. On loopback it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running relay. Killed when dropped.
pub(crate) struct Relay {
    /// An address of it that a node can be given as `--relay`.
    pub(crate) address: String,
    _child: Child,
}

impl Relay {
    /// Starts a relay on free ports of loopback with a key in `directory`.
    pub(crate) async fn start(bins: &Bins, directory: &Path) -> Result<Self> {
        let mut command = command(&bins.relay_node, directory);
        command
            .arg("run")
            .arg("--key")
            .arg(directory.join("relay.key"))
            .args([
                "--listen",
                "/ip4/127.0.0.1/udp/0/quic-v1",
                "--listen",
                "/ip4/127.0.0.1/tcp/0",
            ]);
        let mut child = command
            .spawn()
            .with_context(|| format!("{}: cannot be started", bins.relay_node.display()))?;
        let mut lines = lines(&mut child)?;
        let address = until("the address it listens on", &mut lines, |line| {
            line.strip_prefix("listening ")
                .filter(|address| address.contains("/quic-v1/"))
                .map(str::to_owned)
        });
        let address = address.await.context("relay-node")?;
        keep_reading(lines);
        Ok(Self {
            address,
            _child: child,
        })
    }
}

/// A running `p2pnode run`. Killed when dropped.
pub(crate) struct Node {
    /// Its peer id.
    pub(crate) peer: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// Starts a node with a key in `directory` and waits until it holds a reservation on `relay`.
    pub(crate) async fn start(bins: &Bins, directory: &Path, relay: &Relay) -> Result<Self> {
        let mut command = command(&bins.p2pnode, directory);
        command
            .arg("run")
            .arg("--json")
            .arg("--key")
            .arg(directory.join("node.key"))
            .args(["--relay", &relay.address]);
        let mut child = command
            .spawn()
            .with_context(|| format!("{}: cannot be started", bins.p2pnode.display()))?;
        let mut lines = lines(&mut child)?;
        let peer = until("its peer id", &mut lines, |line| {
            let event = named(line, "started")?;
            event["peer_id"].as_str().map(str::to_owned)
        });
        let peer = peer.await.context("p2pnode run")?;
        until("a reservation", &mut lines, |line| named(line, "reserved"))
            .await
            .context("p2pnode run")?;
        Ok(Self { peer, child, lines })
    }

    /// Waits for the direct path to its peer and returns the two sockets, its own first.
    pub(crate) async fn direct_path(&mut self) -> Result<(String, String)> {
        let sockets = until("a direct path", &mut self.lines, |line| {
            let event = named(line, "connected")?;
            let path = &event["path"];
            let hop = &path["hops"][0];
            let socket = |end: &str| hop[end].as_str().map(str::to_owned);
            (path["kind"] == "direct").then(|| Some((socket("local")?, socket("remote")?)))?
        });
        sockets.await.context("p2pnode run")
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("p2pnode run has ended")
    }
}

/// `program` with its state in `directory` instead of the user's, killed when dropped, its stdout read.
fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        // The terminal belongs to the dial.
        .args(["--log", "warn"])
        .env("XDG_STATE_HOME", directory)
        .env("XDG_RUNTIME_DIR", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn lines(child: &mut Child) -> Result<Lines<BufReader<ChildStdout>>> {
    Ok(BufReader::new(child.stdout.take().context("stdout is not piped")?).lines())
}

/// The JSON object on `line`, if it is an event of that name.
fn named(line: &str, name: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line)
        .ok()
        .filter(|event| event["event"] == name)
}

async fn until<T>(
    what: &str,
    lines: &mut Lines<BufReader<ChildStdout>>,
    wanted: impl Fn(&str) -> Option<T>,
) -> Result<T> {
    let search = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(found) = wanted(&line) {
                return Ok(found);
            }
        }
        bail!("ended before it told {what}")
    };
    timeout(PATIENCE, search)
        .await
        .with_context(|| format!("did not tell {what} within {PATIENCE:?}"))?
}

/// Takes what else comes, so that the writer never waits for a full pipe.
fn keep_reading(mut lines: Lines<BufReader<ChildStdout>>) {
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
}
