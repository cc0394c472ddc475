//! Processes under test: `p2pnode` and `relay-node` inside a host of the lab, and the JSON lines they print.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use patchbay::Device;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    runtime::Handle,
    time::timeout,
};

use crate::{
    args::PATIENCE,
    artifacts::Artifacts,
    command::end_with_lab,
    events::{self, Event, Lines, read_lines},
    host::Host,
    lab::Site,
};

const QUOTED_LINES: usize = 15;
pub const CONTROL_SOCKET: &str = "P2PNODE_CONTROL_SOCKET";
pub const RELAY_CONTROL_SOCKET: &str = "RELAY_NODE_CONTROL_SOCKET";

/// A job that starts a process.
type Spawn = Box<dyn FnOnce() -> Result<Child> + Send>;

pub struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    inherits_stdio: bool,
    stdin: Stdio,
}

impl Launch {
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            inherits_stdio: false,
            stdin: Stdio::null(),
        }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub fn inherit_stdio(mut self) -> Self {
        self.inherits_stdio = true;
        self
    }

    /// Lets it open so many files at once.
    pub fn open_files(mut self, files: u32) -> Self {
        let program = std::mem::replace(&mut self.program, "sh".into());
        let limited = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        let before = ["-c".into(), limited.into(), program.into_os_string()];
        self.args.splice(0..0, before);
        self
    }

    /// Gives it a stdin for [`Process::tell`], instead of none.
    pub fn told(mut self) -> Self {
        self.stdin = Stdio::piped();
        self
    }

    /// Starts it in the network of `host`. All namespaces share one file system, so each process has a control socket of its
    /// own, named like its logs.
    pub fn on(self, host: &Host) -> Result<Process> {
        self.start(&host.artifacts, |job| host.device.run_sync(job))
    }

    /// Starts it in the network of a site's router.
    pub fn on_router(self, site: &Site, artifacts: &Artifacts) -> Result<Process> {
        self.start(artifacts, |job| site.router.run_sync(job))
    }

    fn start(
        self,
        artifacts: &Artifacts,
        run_in_network: impl FnOnce(Spawn) -> Result<Child>,
    ) -> Result<Process> {
        let state = artifacts.file(&format!("{}.state", self.name));
        std::fs::create_dir_all(&state).with_context(|| state.display().to_string())?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env("XDG_STATE_HOME", &state)
            .env("XDG_RUNTIME_DIR", &state)
            .env("RUST_BACKTRACE", "1")
            .env(CONTROL_SOCKET, control_socket(artifacts, &self.name))
            .env(RELAY_CONTROL_SOCKET, control_socket(artifacts, &self.name))
            .envs(self.env)
            .stdin(self.stdin)
            .kill_on_drop(true);
        if !self.inherits_stdio {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        end_with_lab(&mut command);
        let mut child = run_in_network(spawn(command))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let (lines, log) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        let file = artifacts.file(&format!("{}.log", self.name));
        match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), Some(stderr)) => {
                let copy = artifacts.file(&format!("{}.jsonl", self.name));
                tokio::spawn(read_lines(stdout, copy, Arc::clone(&lines)));
                tokio::spawn(read_lines(stderr, file.clone(), Arc::clone(&log)));
            }
            _ => [&lines, &log].into_iter().for_each(|lines| lines.close()),
        }
        Ok(Process {
            name: self.name,
            pid: Pid::from_raw(pid.context("the process has no id")?),
            child,
            lines,
            log,
            file,
        })
    }
}

fn spawn(mut command: Command) -> Spawn {
    let runtime = Handle::current();
    Box::new(move || {
        let _entered = runtime.enter();
        let child = command.spawn();
        child.with_context(|| format!("{:?}: cannot be started", command.as_std().get_program()))
    })
}

/// A running process. Killed when dropped.
pub struct Process {
    name: String,
    pid: Pid,
    child: Child,
    lines: Arc<Lines>,
    log: Arc<Lines>,
    file: PathBuf,
}

impl Process {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    pub fn events(&self) -> Vec<Event> {
        self.lines.events().clone()
    }

    pub fn log(&self) -> String {
        let lines = self.log.events();
        lines
            .iter()
            .map(|line| format!("{}\n", line.line))
            .collect()
    }

    pub fn log_lines(&self) -> Vec<Event> {
        self.log.events().clone()
    }

    pub async fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut();
        let stdin = stdin.with_context(|| format!("{} has no stdin", self.name))?;
        let written = stdin.write_all(format!("{line}\n").as_bytes()).await;
        written.with_context(|| format!("{} does not read its stdin", self.name))
    }

    /// As [`Process::until`], of its log.
    pub async fn log_until<T>(
        &self,
        what: &str,
        within: Duration,
        look: impl Fn(&[Event]) -> Option<T>,
    ) -> Result<T> {
        let found = timeout(within, self.log.until(look)).await.ok().flatten();
        found.with_context(|| {
            format!(
                "{} did not log {what} within {within:?}: {}",
                self.name,
                self.log()
            )
        })
    }

    pub async fn logged(&self, text: &str, within: Duration) -> Result<()> {
        let look = |lines: &[Event]| {
            lines
                .iter()
                .any(|line| line.line.contains(text))
                .then_some(())
        };
        let found = timeout(within, self.log.until(look)).await;
        let found = found.ok().flatten();
        found.with_context(|| format!("{} did not log {text:?} within {within:?}", self.name))
    }

    pub async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        look: impl Fn(&[Event]) -> Option<T>,
    ) -> Result<T> {
        match timeout(within, self.lines.until(look)).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => Err(anyhow::anyhow!(
                "{} ended before it printed {what}",
                self.name
            )),
            Err(_) => Err(anyhow::anyhow!(
                "{} did not print {what} within {within:?}",
                self.name
            )),
        }
        .with_context(|| self.quote())
    }

    /// Waits for the first event that `is_it` after the first `skip`, for twice as long as healthy processes take.
    pub async fn first(
        &self,
        what: &str,
        skip: usize,
        is_it: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        let look = |events: &[Event]| events.iter().skip(skip).find(|event| is_it(event)).cloned();
        self.until(what, PATIENCE * 2, look).await
    }

    pub async fn event(&self, name: &str, within: Duration) -> Result<Event> {
        self.event_after(0, name, within).await
    }

    pub async fn event_after(&self, skip: usize, name: &str, within: Duration) -> Result<Event> {
        let named = |event: &&Event| event.name() == name;
        let look = |events: &[Event]| events.iter().skip(skip).find(named).cloned();
        self.until(&format!("{name:?}"), within, look).await
    }

    pub async fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let ended = async {
            let status = self.child.wait().await?;
            self.lines.closed().await;
            self.log.closed().await;
            anyhow::Ok(status)
        };
        match timeout(within, ended).await {
            Ok(status) => status,
            Err(_) => Err(anyhow::anyhow!(
                "{} did not end within {within:?}",
                self.name
            ))
            .with_context(|| self.quote()),
        }
    }

    pub async fn ended(&mut self) -> Result<Dial> {
        self.ended_within(PATIENCE * 2).await
    }

    pub async fn ended_within(&mut self, within: Duration) -> Result<Dial> {
        let status = self.exit(within).await?;
        let code = status.code();
        Ok(Dial {
            code: code.with_context(|| format!("{} was ended: {status}", self.name))?,
            events: self.events(),
            log: self.log(),
        })
    }

    pub fn terminate(&self) -> Result<()> {
        kill(self.pid, Signal::SIGTERM)
            .with_context(|| format!("{}: cannot be told to end", self.name))
    }

    /// It reads its configuration again.
    pub fn reload(&self) -> Result<()> {
        kill(self.pid, Signal::SIGHUP).with_context(|| format!("{}: no SIGHUP", self.name))
    }

    /// Stops it, as a host that sleeps, until [`Process::resume`].
    pub fn suspend(&self) -> Result<()> {
        kill(self.pid, Signal::SIGSTOP).with_context(|| format!("{}: cannot be stopped", self.name))
    }

    pub fn resume(&self) -> Result<()> {
        kill(self.pid, Signal::SIGCONT).with_context(|| format!("{}: cannot go on", self.name))
    }

    pub async fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("{}: cannot be killed", self.name))
    }

    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    fn quote(&self) -> String {
        let lines = self.log.events();
        let last = lines.iter().skip(lines.len().saturating_sub(QUOTED_LINES));
        let last: Vec<_> = last.map(|line| line.line.as_str()).collect();
        format!("the end of {}:\n{}", self.file.display(), last.join("\n"))
    }
}

#[derive(Clone, Debug)]
pub struct Dial {
    pub code: i32,
    pub events: Vec<Event>,
    pub log: String,
}

impl Dial {
    pub fn result(&self) -> Result<&Event> {
        let result = events::result(&self.events);
        result.with_context(|| format!("exit code {}: {}", self.code, self.log))
    }

    /// Asserts how it ended: `direct`, `relayed` or `unreachable`, with the exit code of that. Returns the `result`.
    pub fn is(&self, outcome: &str) -> Result<&Event> {
        let result = self.result()?;
        let code = match outcome {
            "direct" => 0,
            "relayed" => 3,
            _ => 4,
        };
        ensure!(
            result.text("/outcome") == outcome && self.code == code,
            "not {outcome}: exit code {}, {}; {}",
            self.code,
            result.line,
            self.log
        );
        Ok(result)
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.name() == name)
    }
}

pub fn control_socket(artifacts: &Artifacts, name: &str) -> PathBuf {
    artifacts.sockets().join(format!("{name}.sock"))
}

pub async fn output(
    device: &Device,
    program: &Path,
    args: &[&str],
    within: Duration,
) -> Result<std::process::Output> {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let ended = timeout(within, device.run_sync(spawn(command))?.wait_with_output()).await;
    let what = || {
        format!(
            "{} {args:?} did not end within {within:?}",
            program.display()
        )
    };
    Ok(ended.with_context(what)??)
}

pub async fn printed(host: &Host, program: &Path, args: &[&str]) -> Result<String> {
    let output = output(&host.device, program, args, PATIENCE).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} {args:?}: {error}",
        program.display()
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
