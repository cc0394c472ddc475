//! The programs of a run: a relay, a sender, a receiver.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use p2pnode_tests::usage;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// How long a step may take, such as a hundred reservations or all bytes.
const PATIENCE: Duration = Duration::from_secs(300);

/// No event has this name: whoever waits for it waits for the end of the program, or for its failure.
pub(super) const NEVER: &str = "done";

/// A process that tells of events on stdout. Killed when dropped.
pub(super) struct Running {
    /// What it is here.
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The connections that it has told to be lost.
    lost: Vec<String>,
}

impl Running {
    pub(super) fn start(name: &'static str, mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let program = Path::new(command.as_std().get_program()).to_owned();
        let mut child = command
            .spawn()
            .with_context(|| format!("{name}, {}: cannot be started", program.display()))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self {
            name,
            child,
            lines,
            lost: Vec::new(),
        })
    }

    /// Waits for an event; an error as soon as it cannot come any more.
    pub(super) async fn event(&mut self, wanted: &str) -> Result<Value> {
        let name = self.name;
        timeout(PATIENCE, self.search(wanted))
            .await
            .with_context(|| format!("{name} was not {wanted} in {} s", PATIENCE.as_secs()))?
    }

    async fn search(&mut self, wanted: &str) -> Result<Value> {
        while let Some(line) = self.lines.next_line().await? {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["event"] == wanted {
                return Ok(event);
            } else if event["event"] == "lost" {
                self.lost.push(format!(
                    "its connection to {}: {}",
                    text(&event, "to")?,
                    text(&event, "cause")?
                ));
            } else if event["event"] == "failed" {
                bail!("{}: {}{}", self.name, text(&event, "reason")?, self.lost());
            }
        }
        let status = self.child.wait().await?;
        bail!(
            "{} ended before it was {wanted} ({status}){}",
            self.name,
            self.lost()
        )
    }

    /// What went before, for an error.
    fn lost(&self) -> String {
        match self.lost.last() {
            Some(last) => format!("; it lost {} connections, at last {last}", self.lost.len()),
            None => String::new(),
        }
    }

    /// Gives it the line for which it waits.
    pub(super) async fn go(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin is piped")?;
        stdin.write_all(b"\n").await?;
        Ok(())
    }

    /// CPU time of all its threads.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        usage::cpu_of_threads(pid.with_context(|| format!("{} has ended", self.name))?)
    }
}

pub(super) fn text<'a>(event: &'a Value, key: &str) -> Result<&'a str> {
    event[key]
        .as_str()
        .with_context(|| format!("{event} has no {key}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    async fn failure(script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut running = Running::start("the sender", command).unwrap();
        format!("{:#}", running.event(NEVER).await.unwrap_err())
    }

    #[tokio::test]
    async fn a_program_that_fails_or_ends_is_named_at_once() {
        let lost = r#"echo '{"event":"lost","to":"the relay","cause":"timed out"}'"#;
        let failed = r#"echo '{"event":"failed","reason":"9 of 10 bytes were not sent"}'"#;
        assert_eq!(
            failure(&format!("{lost}; {failed}; sleep 1000")).await,
            "the sender: 9 of 10 bytes were not sent; it lost 1 connections, at last its connection to the relay: timed out"
        );
        let ended = failure("exit 3").await;
        assert!(
            ended.starts_with("the sender ended before it was done"),
            "{ended}"
        );
    }
}
