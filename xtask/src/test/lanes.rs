//! Test binaries side by side. `cargo test` runs them one after the other, and most of a lab test is waiting.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cargo;

/// How many binaries of lab tests run at once for each processor.
const LANES_PER_PROCESSOR: usize = 2;

/// What takes longest begins first, so that it does not run alone at the end.
const LONGEST: [&str; 8] = [
    "port_range",
    "matrix",
    "relay_abuse",
    "relay_load",
    "golden",
    "soak",
    "interop",
    "path_lost",
];

/// A test binary.
#[derive(Debug)]
pub(super) struct Binary {
    package: PathBuf,
    /// Its target's name.
    name: String,
    executable: PathBuf,
    /// A lab test is in namespaces of its own. The others share the loopback interface of this host, and run one by one.
    is_lab: bool,
}

impl Binary {
    /// Reads a line of what Cargo prints about a build.
    fn read(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["profile"]["test"] == true;
        let executable = message["executable"].as_str().filter(|_| is_test)?;
        let manifest = Path::new(message["manifest_path"].as_str()?);
        let package = manifest.parent()?;
        let target = &message["target"];
        Some(Self {
            package: package.to_owned(),
            name: target["name"].as_str()?.to_owned(),
            executable: executable.into(),
            is_lab: package == cargo::workspace().join("tests") && target["kind"][0] == "test",
        })
    }

    fn rank(&self) -> usize {
        let known = LONGEST.iter().position(|name| *name == self.name);
        known.unwrap_or(LONGEST.len())
    }

    /// Runs it, prints what it printed, and returns its name if it fails.
    fn run(&self, harness: &[String], vars: &[(&str, &Path)]) -> Result<Option<String>> {
        let began = Instant::now();
        let mut output = tempfile::tempfile()?;
        let mut command = Command::new(&self.executable);
        command
            .args(harness)
            .envs(vars.iter().copied())
            // An error says what failed; its backtrace says how tokio polls.
            .env("RUST_LIB_BACKTRACE", "0")
            .env("CARGO_MANIFEST_DIR", &self.package)
            .current_dir(&self.package)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?);
        let status = command.status();
        let status = status.with_context(|| self.executable.display().to_string())?;
        let package = self.package.file_name().unwrap_or_default();
        let name = format!("{} of {}", self.name, package.display());
        let title = format!("{name}, {} s", began.elapsed().as_secs());
        print(&title, &mut output)?;
        Ok((!status.success()).then(|| format!("{name} ({status})")))
    }
}

fn print(title: &str, output: &mut File) -> io::Result<()> {
    let mut text = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut text)?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "     Ran {title}")?;
    stdout.write_all(&text)?;
    stdout.flush()
}

/// Builds the tests of the workspace.
pub(super) fn build() -> Result<Vec<Binary>> {
    let mut command = cargo::cargo();
    command
        .args(["test", "--workspace", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let shown = cargo::show(&command);
    println!("running `{shown}`");
    let built = command.output().with_context(|| shown.clone())?;
    if !built.status.success() {
        bail!("`{shown}` failed ({})", built.status);
    }
    let messages = String::from_utf8(built.stdout)?;
    Ok(messages.lines().filter_map(Binary::read).collect())
}

/// Runs all of them. `vars` are variables of their environment.
///
/// # Errors
///
/// If some of them fail, which ones.
pub(super) fn run(binaries: Vec<Binary>, harness: &[String], vars: &[(&str, &Path)]) -> Result<()> {
    let count = binaries.len();
    let (mut lab, others): (Vec<_>, Vec<_>) =
        binaries.into_iter().partition(|binary| binary.is_lab);
    lab.sort_by_key(Binary::rank);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    println!("running {count} test binaries side by side; each one's output follows its end");
    let [lab, others] = [lab, others].map(|queue| Mutex::new(VecDeque::from(queue)));
    let failed = Mutex::new(Vec::new());
    let lane = |queue: &Mutex<VecDeque<Binary>>| {
        loop {
            let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
            let Some(binary) = next else {
                return;
            };
            let ended = binary.run(harness, vars);
            let failure = ended.unwrap_or_else(|error| Some(format!("{error:#}")));
            if let Ok(mut failed) = failed.lock() {
                failed.extend(failure);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| lane(&others));
        for _ in 0..LANES_PER_PROCESSOR * processors {
            scope.spawn(|| lane(&lab));
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    if !failed.is_empty() {
        bail!(
            "{} of {count} test binaries failed: {}",
            failed.len(),
            failed.join(", ")
        );
    }
    Ok(())
}
