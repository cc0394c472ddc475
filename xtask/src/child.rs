//! Programs as child processes on this host, which print an event in JSON on each line.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use p2pnode_tests::bins::Bins;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child as Process, ChildStdout, Command},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(20);

/// No event has this name: whoever waits for it waits for the end of the program, or for its failure.
const NEVER: &str = "done";

/// A process that prints events. Killed when dropped.
pub(crate) struct Child {
    name: &'static str,
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub(crate) fn start(name: &'static str, mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let program = Path::new(command.as_std().get_program())
            .display()
            .to_string();
        let mut process = command
            .spawn()
            .with_context(|| format!("{name}, {program}: cannot be started"))?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        Ok(Self {
            name,
            process,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// Waits for an event; an error as soon as it cannot come any more.
    pub(crate) async fn event(&mut self, wanted: &str, within: Duration) -> Result<Value> {
        self.event_with(wanted, within, |_| true).await
    }

    pub(crate) async fn event_with(
        &mut self,
        wanted: &str,
        within: Duration,
        looks: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let name = self.name;
        let mut last = Value::Null;
        let search = self.search(wanted, looks, &mut last);
        match timeout(within, search).await {
            Ok(found) => found,
            Err(_) => bail!(
                "{name} was not {wanted} in {} s; its last: {last}",
                within.as_secs()
            ),
        }
    }

    async fn search(
        &mut self,
        wanted: &str,
        looks: impl Fn(&Value) -> bool,
        last: &mut Value,
    ) -> Result<Value> {
        while let Some(line) = self.lines.next_line().await? {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            match event["event"].as_str() {
                Some(name) if name == wanted => {
                    if looks(&event) {
                        return Ok(event);
                    }
                    *last = event;
                }
                Some("failed") => bail!("{}: {}", self.name, text(&event, "reason")?),
                _ => {}
            }
        }
        let status = self.process.wait().await?;
        bail!("{} ended before it was {wanted} ({status})", self.name)
    }

    /// Waits for its end, which nobody has asked for; until then it never waits for a reader.
    pub(crate) async fn ends(&mut self) -> anyhow::Error {
        match self.event(NEVER, Duration::MAX).await {
            Ok(event) => anyhow::anyhow!("{}: {event}", self.name),
            Err(error) => error,
        }
    }

    pub(crate) async fn go(&mut self) -> Result<()> {
        let stdin = self.process.stdin.as_mut().context("stdin is piped")?;
        stdin.write_all(b"\n").await?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> Result<i32> {
        let pid = self
            .process
            .id()
            .with_context(|| format!("{} has ended", self.name))?;
        i32::try_from(pid).context("no process id")
    }
}

pub(crate) fn text<'a>(event: &'a Value, key: &str) -> Result<&'a str> {
    event[key]
        .as_str()
        .with_context(|| format!("{event} has no {key}"))
}

pub(crate) struct Relay {
    pub(crate) quic: String,
    pub(crate) tcp: String,
    pub(crate) child: Child,
}

impl Relay {
    /// Starts a relay on free ports of loopback with a key in `directory` and variables of its environment.
    pub(crate) async fn start(bins: &Bins, directory: &Path, env: &[(&str, &str)]) -> Result<Self> {
        let mut command = command(&bins.relay_node, directory);
        command
            .envs(env.iter().copied())
            .args(["run", "--json", "--key"])
            .arg(directory.join("relay.key"))
            .args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"])
            .args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        let mut child = Child::start("relay-node", command)?;
        let (mut quic, mut tcp) = (String::new(), String::new());
        while quic.is_empty() || tcp.is_empty() {
            let listening = child.event("listening", SOON).await?;
            let address = text(&listening, "address")?;
            let of = if address.contains("/quic-v1/") {
                &mut quic
            } else {
                &mut tcp
            };
            address.clone_into(of);
        }
        Ok(Self { quic, tcp, child })
    }
}

pub(crate) struct Node {
    pub(crate) peer: String,
    pub(crate) child: Child,
}

impl Node {
    /// Starts a node with a key in `directory` and waits until it holds a reservation on `relay`.
    pub(crate) async fn start(bins: &Bins, directory: &Path, relay: &Relay) -> Result<Self> {
        let mut command = command(&bins.p2pnode, directory);
        command
            .args(["run", "--json", "--relay", &relay.quic, "--key"])
            .arg(directory.join("node.key"));
        let mut child = Child::start("p2pnode run", command)?;
        let started = child.event("started", SOON).await?;
        child.event("reserved", SOON).await?;
        let peer = text(&started, "peer_id")?.to_owned();
        Ok(Self { peer, child })
    }

    /// Waits for the direct path to its peer and returns the two sockets, its own first.
    pub(crate) async fn direct_path(&mut self) -> Result<(String, String)> {
        let is_direct = |event: &Value| event["path"]["kind"] == "direct";
        let connected = self.child.event_with("connected", SOON, is_direct).await?;
        let hop = &connected["path"]["hops"][0];
        Ok((
            text(hop, "local")?.to_owned(),
            text(hop, "remote")?.to_owned(),
        ))
    }
}

/// `program` with its state in `directory` instead of the user's.
fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        // The terminal belongs to the dial.
        .args(["--log", "warn"])
        .env("XDG_STATE_HOME", directory)
        .env("XDG_RUNTIME_DIR", directory);
    command
}
