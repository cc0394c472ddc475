//! Processes under test: `p2pnode` and `relay-node` inside a host of the lab, and the JSON lines they print.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
    },
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
    artifacts::Artifacts,
    events::{Event, Lines, read_lines},
};

/// How much of a log an error quotes.
const QUOTED_LINES: usize = 15;
const QUOTED_BYTES: u64 = 16 * 1024;

/// The variable that names a node's control socket.
pub const CONTROL_SOCKET: &str = "P2PNODE_CONTROL_SOCKET";

/// The variable that names a relay's.
pub const RELAY_CONTROL_SOCKET: &str = "RELAY_NODE_CONTROL_SOCKET";

/// What a process does with its standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streams {
    /// stdout is read as JSON lines and kept, stderr is kept.
    Read,
    /// Those of this process: for a person who watches.
    Inherited,
}

/// A process to be started.
#[derive(Debug)]
pub struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    streams: Streams,
    is_told: bool,
}

impl Launch {
    /// `name` names its logs among the artifacts.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            streams: Streams::Read,
            is_told: false,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Shows its output on this process's own stdout and stderr instead of reading it.
    pub fn inherit_stdio(mut self) -> Self {
        self.streams = Streams::Inherited;
        self
    }

    /// Gives it a stdin for [`Process::tell`], instead of none.
    pub fn told(mut self) -> Self {
        self.is_told = true;
        self
    }

    /// Starts it in the network of `device`. All namespaces share one file system, so each process has a control socket of its
    /// own, named like its logs.
    pub fn start(self, device: &Device, artifacts: &Artifacts) -> Result<Process> {
        let log = artifacts.file(&format!("{}.log", self.name));
        let state = artifacts.file(&format!("{}.state", self.name));
        std::fs::create_dir_all(&state)
            .with_context(|| format!("{}: cannot be made", state.display()))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env("XDG_STATE_HOME", &state)
            .env("XDG_RUNTIME_DIR", &state)
            .env("RUST_BACKTRACE", "1")
            .env(CONTROL_SOCKET, control_socket(artifacts, &self.name))
            .env(RELAY_CONTROL_SOCKET, control_socket(artifacts, &self.name))
            .envs(self.env)
            .stdin(if self.is_told {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .kill_on_drop(true);
        match self.streams {
            Streams::Inherited => command.stdout(Stdio::inherit()).stderr(Stdio::inherit()),
            Streams::Read => {
                let file = File::create(&log)
                    .with_context(|| format!("{}: cannot be made", log.display()))?;
                command.stdout(Stdio::piped()).stderr(file)
            }
        };
        end_with_lab(&mut command);
        let runtime = Handle::current();
        let program = self.program.clone();
        let mut child = device.run_sync(move || {
            let _entered = runtime.enter();
            command
                .spawn()
                .with_context(|| format!("{}: cannot be started", program.display()))
        })?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .context("the process has no id")?;
        let lines = Arc::new(Lines::default());
        if let Some(stdout) = child.stdout.take() {
            let copy = artifacts.file(&format!("{}.jsonl", self.name));
            tokio::spawn(read_lines(stdout, copy, Arc::clone(&lines)));
        } else {
            lines.close();
        }
        Ok(Process {
            name: self.name,
            pid: Pid::from_raw(pid),
            child,
            lines,
            log,
        })
    }
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    child: Child,
    lines: Arc<Lines>,
    log: PathBuf,
}

impl Process {
    /// The name of its logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// The events it has printed so far.
    pub fn events(&self) -> Vec<Event> {
        self.lines.events().clone()
    }

    /// What it has printed on stderr so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Writes a line to its stdin, which [`Launch::told`] has made.
    pub async fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut();
        let stdin = stdin.with_context(|| format!("{} has no stdin", self.name))?;
        let written = stdin.write_all(format!("{line}\n").as_bytes()).await;
        written.with_context(|| format!("{} does not read its stdin", self.name))
    }

    /// Waits until `text` is in what it has printed on stderr.
    pub async fn logged(&self, text: &str, within: Duration) -> Result<()> {
        let search = async {
            while !self.log().contains(text) {
                // The log is a file, which tells nobody that it has grown.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = timeout(within, search).await;
        found.map_err(|_| anyhow::anyhow!("{} did not log {text:?} within {within:?}", self.name))
    }

    /// Waits until `look` finds what it looks for in the events so far.
    pub async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        look: impl Fn(&[Event]) -> Option<T>,
    ) -> Result<T> {
        let mut grown = self.lines.grown.subscribe();
        let search = async {
            loop {
                // The state is read before the events: nothing is appended once it says closed.
                let closed = grown.borrow_and_update().closed;
                if let Some(found) = look(&self.lines.events()) {
                    return Ok(found);
                }
                if closed || grown.changed().await.is_err() {
                    bail!("{} ended before it printed {what}", self.name);
                }
            }
        };
        let found = match timeout(within, search).await {
            Ok(found) => found,
            Err(_) => Err(anyhow::anyhow!(
                "{} did not print {what} within {within:?}",
                self.name
            )),
        };
        found.with_context(|| self.quote())
    }

    /// Waits for the first event of that name.
    pub async fn event(&self, name: &str, within: Duration) -> Result<Event> {
        self.event_after(0, name, within).await
    }

    /// Waits for the first event of that name after the first `skip` events.
    pub async fn event_after(&self, skip: usize, name: &str, within: Duration) -> Result<Event> {
        let look = |events: &[Event]| {
            events
                .iter()
                .skip(skip)
                .find(|event| event.name() == name)
                .cloned()
        };
        self.until(&format!("{name:?}"), within, look).await
    }

    /// Waits for its end and everything it printed.
    pub async fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let mut grown = self.lines.grown.subscribe();
        let ended = async {
            let status = self.child.wait().await?;
            // Not before all its output is read; an error means that nobody is left to read it.
            let _read = grown.wait_for(|state| state.closed).await;
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

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) -> Result<()> {
        kill(self.pid, Signal::SIGTERM)
            .with_context(|| format!("{}: cannot be told to end", self.name))
    }

    /// Ends it at once (SIGKILL) and waits for its end.
    pub async fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("{}: cannot be killed", self.name))
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    fn quote(&self) -> String {
        let log = tail(&self.log).unwrap_or_default();
        format!("the end of {}:\n{log}", self.log.display())
    }
}

/// Where the control socket of the process with that name is.
pub fn control_socket(artifacts: &Artifacts, name: &str) -> PathBuf {
    artifacts.file(&format!("{name}.sock"))
}

/// Runs a program in the network of `device` to its end and returns what it printed.
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
    let runtime = Handle::current();
    let child = device.run_sync(move || {
        let _entered = runtime.enter();
        Ok(command.spawn()?)
    });
    let child = child.with_context(|| format!("{}: cannot be started", program.display()))?;
    let output = timeout(within, child.wait_with_output())
        .await
        .with_context(|| {
            format!(
                "{} {} did not end within {within:?}",
                program.display(),
                args.join(" ")
            )
        })??;
    Ok(output)
}

/// Lets a command end with the thread that starts it, which ends with the lab: also a test that is killed leaves no process
/// behind.
pub(crate) fn end_with_lab(command: &mut Command) {
    #[allow(
        unsafe_code,
        reason = "prctl is the only way to tie a child's life to its parent's, and it is async-signal-safe"
    )]
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(QUOTED_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n"))
}
