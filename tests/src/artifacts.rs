//! The directory of one lab run: logs and captures, kept when the test fails.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::bins;

/// Set to anything, it keeps the artifacts of successful runs too.
const KEEP: &str = "P2PNODE_LAB_KEEP";

tokio::task_local! {
    static TEST: &'static str;
}

/// `target/lab/<name>`, and a directory for sockets, whose paths must be short.
pub struct Artifacts {
    dir: PathBuf,
    sockets: TempDir,
    /// Not those of a test, which ends later than its lab.
    ends: Option<Ends>,
}

impl Artifacts {
    pub fn new(name: &str) -> Result<Self> {
        let dir = dir_of(name)?;
        let ends = Some(Ends::new(dir.clone()));
        Self::make(dir, ends)
    }

    pub(crate) fn of_test() -> Result<Self> {
        let name = TEST.try_with(|name| *name);
        let name = name.context("no test of `lab_tests!` is running")?;
        Self::make(dir_of(name)?, None)
    }

    fn make(dir: PathBuf, ends: Option<Ends>) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self {
            dir,
            sockets: TempDir::new().context("a directory for sockets")?,
            ends,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn sockets(&self) -> &Path {
        self.sockets.path()
    }

    pub fn succeeded(&self) {
        if let Some(ends) = &self.ends {
            ends.well.store(true, Ordering::Relaxed);
        }
    }
}

struct Ends {
    dir: PathBuf,
    well: AtomicBool,
}

impl Ends {
    fn new(dir: PathBuf) -> Self {
        let well = AtomicBool::new(false);
        Self { dir, well }
    }
}

impl Drop for Ends {
    #[allow(
        clippy::print_stderr,
        reason = "the person who reads the failed test has to learn the path"
    )]
    fn drop(&mut self) {
        if env::var_os(KEEP).is_some() {
            return;
        }
        if self.well.load(Ordering::Relaxed) {
            // What cannot be removed only takes space; the next run of the same name empties it or fails.
            let _left_over = fs::remove_dir_all(&self.dir);
        } else {
            eprintln!("logs and captures of this run: {}", self.dir.display());
        }
    }
}

/// Runs a test, whose labs are named after it.
pub async fn test(name: &'static str, body: impl Future<Output = Result<()>>) -> Result<()> {
    let ends = Ends::new(dir_of(name)?);
    TEST.scope(name, body).await?;
    ends.well.store(true, Ordering::Relaxed);
    Ok(())
}

fn dir_of(name: &str) -> Result<PathBuf> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    Ok(root()?.join(name.replace(|c| !is_plain(c), "_")))
}

pub fn root() -> Result<PathBuf> {
    let root = bins::target_dir()?.join("lab");
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    Ok(root)
}
