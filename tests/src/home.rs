//! The programs under test without a network: commands in a directory of their own, and the process that they ask.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::bins::bins;

/// A command ends within 5 s. The rest is for a machine that has much to do.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with a control socket, and with everything that a command may write.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/control.sock")
    }

    pub fn listen(&self) -> Result<UnixListener> {
        fs::create_dir_all(self.path("run"))?;
        Ok(UnixListener::bind(self.socket())?)
    }

    pub fn command(&self, program: &str, args: &[&str]) -> Result<Command> {
        let bins = bins()?;
        let path = match program {
            "p2pnode" => bins.p2pnode,
            _ => bins.relay_node,
        };
        let mut command = Command::new(path);
        self.prepare(&mut command, args);
        Ok(command)
    }

    pub fn prepare(&self, command: &mut Command, args: &[&str]) {
        command
            .args(args)
            .env_clear()
            .env("XDG_STATE_HOME", self.path("state"))
            .env("P2PNODE_CONTROL_SOCKET", self.socket())
            .env("RELAY_NODE_CONTROL_SOCKET", self.socket())
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
    }

    /// A process that runs and has printed its first line.
    pub async fn run(&self, program: &str) -> Result<Child> {
        let listen: &[&str] = match program {
            "p2pnode" => &["run", "--json"],
            _ => &["run", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"],
        };
        let mut child = self.command(program, listen)?.spawn()?;
        let stdout = child.stdout.take().context("stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        timeout(PATIENCE, lines.next_line())
            .await??
            .context("no line")?;
        self.until_served(program).await?;
        Ok(child)
    }

    /// The control socket comes after the first line.
    pub async fn until_served(&self, program: &str) -> Result<()> {
        let served = async {
            while ended(self.command(program, &["healthcheck", "--live"])?)
                .await?
                .status
                .code()
                != Some(0)
            {}
            Ok(())
        };
        timeout(PATIENCE, served).await?
    }
}

pub async fn ended(mut command: Command) -> Result<Output> {
    let child = command.spawn()?;
    let what = format!("{:?}", command.as_std());
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    Ok(output.with_context(|| format!("{what} does not end"))??)
}

pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().context("it has ended")?;
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
}
