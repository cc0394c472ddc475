//! Reports on disk: `target/bench/NAME.json` and `NAME.svg`, and `index.md` with all of them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use p2pnode_tests::bins;
use serde::{Deserialize, Serialize};

use super::Report;
use crate::cargo;

/// Variables that name a program to measure instead of the one of this repository.
const NAMED: [&str; 6] = [
    "P2PNODE_BIN",
    "RELAY_NODE_BIN",
    "PLAIN_LIBP2P_BIN",
    "FLEET_BIN",
    "TRANSFER_BIN",
    "IROH_PEER_BIN",
];

/// A report, and what it is one of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// What it comes from.
    pub(crate) run: Provenance,
    /// The report.
    pub(crate) report: Report,
}

/// What a report comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Provenance {
    /// When it was made, in UTC.
    pub(crate) date: String,
    /// The commit, with `+` if the working tree had changes.
    pub(crate) commit: String,
    /// What was typed.
    pub(crate) command: String,
    /// CPU, cores, kernel.
    pub(crate) machine: String,
    /// Variables that named programs: those are not necessarily of the commit.
    pub(crate) named: Vec<String>,
}

impl Provenance {
    /// Of this moment, machine and command line.
    pub(crate) fn now() -> Self {
        let words = env::args().skip(1).collect::<Vec<_>>().join(" ");
        let named = NAMED.into_iter().filter(|name| env::var_os(name).is_some());
        Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            commit: commit(),
            command: format!("cargo xtask {words}"),
            machine: machine(),
            named: named.map(str::to_owned).collect(),
        }
    }
}

/// `target/bench`, made if it is not there.
///
/// # Errors
///
/// When it cannot be made.
pub(crate) fn directory() -> Result<PathBuf> {
    let directory = bins::target_dir()?.join("bench");
    fs::create_dir_all(&directory)
        .with_context(|| format!("{}: cannot be made", directory.display()))?;
    Ok(directory)
}

impl Saved {
    /// Writes `NAME.json` and `NAME.svg` into `directory`.
    ///
    /// # Errors
    ///
    /// When one cannot be written.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let json = serde_json::json!({"run": self.run, "report": self.report.json()});
        let json = serde_json::to_string_pretty(&json)?;
        let file = |ending| directory.join(format!("{}.{ending}", self.report.name));
        put(&file("json"), &json)?;
        put(&file("svg"), &self.report.svg())
    }

    /// What `directory` has of the benchmark `name`; `None` if it has nothing.
    ///
    /// # Errors
    ///
    /// When there is a file that is no report.
    pub(crate) fn read(directory: &Path, name: &str) -> Result<Option<Self>> {
        let file = directory.join(format!("{name}.json"));
        if !file.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let saved = serde_json::from_str(&text).with_context(|| {
            let file = file.display();
            format!("{file}: no report; delete it, or measure {name} again")
        })?;
        Ok(Some(saved))
    }

    fn section(&self) -> String {
        let Provenance {
            date,
            commit,
            command,
            machine,
            named,
        } = &self.run;
        let named = if named.is_empty() {
            String::new()
        } else {
            format!(" Programs that were named by {}.", named.join(", "))
        };
        let name = &self.report.name;
        format!(
            "## {name}\n\n{}\n![{name}]({name}.svg)\n\n`{command}`, {date}, commit {commit}, {machine}.{named}\n",
            self.report.markdown()
        )
    }
}

/// Writes `index.md` of the reports that are in `directory`, in the order of `names`; returns its path.
///
/// # Errors
///
/// When a report cannot be read or the file cannot be written.
pub(crate) fn write_index(directory: &Path, names: &[String]) -> Result<PathBuf> {
    let mut sections = Vec::new();
    for name in names {
        sections.extend(Saved::read(directory, name)?.map(|saved| saved.section()));
    }
    let index = directory.join("index.md");
    put(&index, &format!("# Benchmarks\n\n{}", sections.join("\n")))?;
    Ok(index)
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .current_dir(cargo::workspace())
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]).as_deref() {
        Some("") => commit,
        _ => format!("{commit}+"),
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores, Linux {}",
        cpu_model(&cpu).unwrap_or(env::consts::ARCH),
        kernel.trim()
    )
}

/// The first `model name` of `/proc/cpuinfo`; not every architecture has one.
fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::{super::tests::example, *};

    fn saved() -> Saved {
        Saved {
            run: Provenance {
                date: "2026-01-02T03:04:05Z".to_owned(),
                commit: "0123456789ab+".to_owned(),
                command: "cargo xtask bench example".to_owned(),
                machine: "A CPU, 2 cores, Linux 6.1".to_owned(),
                named: vec!["P2PNODE_BIN".to_owned()],
            },
            report: example(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_index_has_what_there_is() {
        let directory = tempfile::tempdir().unwrap();
        saved().write(directory.path()).unwrap();
        assert_eq!(
            Saved::read(directory.path(), "example").unwrap(),
            Some(saved())
        );
        assert!(directory.path().join("example.svg").is_file());
        let names = ["missing".to_owned(), "example".to_owned()];
        let index = fs::read_to_string(write_index(directory.path(), &names).unwrap()).unwrap();
        for part in [
            "# Benchmarks\n\n## example\n\nTwo programs <in turn>.\n",
            "![example](example.svg)",
            "`cargo xtask bench example`, 2026-01-02T03:04:05Z, commit 0123456789ab+, A CPU, 2 cores, Linux 6.1. Programs that were named by P2PNODE_BIN.",
        ] {
            assert!(index.contains(part), "{part}: {index}");
        }
        assert!(!index.contains("missing"));
    }

    #[test]
    fn a_file_that_is_no_report_is_an_error_with_its_remedy() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("example.json"), "{}").unwrap();
        let error = Saved::read(directory.path(), "example").unwrap_err();
        assert!(format!("{error:#}").contains("delete it"), "{error:#}");
    }

    #[test]
    fn the_model_of_the_cpu_is_found() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nmodel name\t: other\n";
        assert_eq!(cpu_model(text), Some("A CPU @ 2 GHz"));
        assert_eq!(cpu_model("Features : fp\n"), None);
    }
}
