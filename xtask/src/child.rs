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
    /// An address of it that a node can be given as `--relay`: over QUIC.
    pub(crate) address: String,
    /// The same over TCP.
    pub(crate) tcp: String,
    child: Child,
}

impl Relay {
    /// Starts a relay on free ports of loopback with a key in `directory`.
    pub(crate) async fn start(bins: &Bins, directory: &Path) -> Result<Self> {
        Self::start_with(bins, directory, &[]).await
    }

    /// The same, with variables of its environment.
    pub(crate) async fn start_with(
        bins: &Bins,
        directory: &Path,
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = command(&bins.relay_node, directory);
        command
            .envs(env.iter().copied())
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
        let mut found = (None, None);
        while found.0.is_none() || found.1.is_none() {
            let address = until("the addresses it listens on", &mut lines, |line| {
                line.strip_prefix("listening ").map(str::to_owned)
            });
            let address = address.await.context("relay-node")?;
            if address.contains("/quic-v1/") {
                found.0 = Some(address);
            } else {
                found.1 = Some(address);
            }
        }
        let (Some(address), Some(tcp)) = found else {
            bail!("relay-node listens on one transport only");
        };
        keep_reading(lines);
        Ok(Self {
            address,
            tcp,
            child,
        })
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Result<i32> {
        pid(&self.child).context("relay-node")
    }

    /// Waits for its end, which nobody has asked for.
    pub(crate) async fn ends(&mut self) -> Result<()> {
        let status = self.child.wait().await.context("relay-node")?;
        bail!("relay-node has ended ({status})")
    }
}

/// A running `fleet` of `tests/peers`. Killed when dropped.
pub(crate) struct Fleet {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Fleet {
    /// Starts it.
    pub(crate) fn start(program: &Path, args: &[&str]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{}: cannot be started", program.display()))?;
        Ok(Self {
            lines: lines(&mut child)?,
            _child: child,
        })
    }

    /// Waits for an event of that name that is as `wanted`, from the next on; with the last one if it does not come.
    pub(crate) async fn event(
        &mut self,
        name: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let search = async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(event) = named(&line, name) {
                    if wanted(&event) {
                        return Ok(event);
                    }
                    last = event;
                }
            }
            bail!("fleet ended before")
        };
        match timeout(within, search).await {
            Ok(found) => found,
            Err(_) => bail!("fleet did not get there within {within:?}; its last {name}: {last}"),
        }
    }
}

fn pid(child: &Child) -> Result<i32> {
    let pid = child.id().context("has ended")?;
    i32::try_from(pid).context("no process id")
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
    pub(crate) fn pid(&self) -> Result<i32> {
        pid(&self.child).context("p2pnode run")
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
