//! The directory of one lab run: logs and captures, kept when the test fails.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::bins;

/// Set to anything, it keeps the artifacts of successful runs too.
const KEEP: &str = "P2PNODE_LAB_KEEP";

/// `target/lab/<name>`. Removed by [`Artifacts::succeeded`]; otherwise kept, and its path is printed when it is dropped.
#[derive(Debug)]
pub struct Artifacts {
    dir: PathBuf,
    succeeded: bool,
}

impl Artifacts {
    /// Makes the directory anew. `name` becomes its last component.
    pub fn new(name: &str) -> Result<Self> {
        let clean: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let dir = root()?.join(clean);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| {
                format!("{}: cannot empty the last run's artifacts", dir.display())
            })?;
        }
        fs::create_dir_all(&dir).with_context(|| {
            format!("{}: cannot make the directory for artifacts", dir.display())
        })?;
        Ok(Self {
            dir,
            succeeded: false,
        })
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of one file among them.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The run did what it should: nothing needs to be kept.
    pub fn succeeded(&mut self) {
        self.succeeded = true;
    }
}

impl Drop for Artifacts {
    #[allow(
        clippy::print_stderr,
        reason = "the person who reads the failed test has to learn the path"
    )]
    fn drop(&mut self) {
        if env::var_os(KEEP).is_some() {
            return;
        }
        if self.succeeded {
            // What cannot be removed only takes space; the next run of the same name empties it or fails.
            let _left_over = fs::remove_dir_all(&self.dir);
        } else {
            eprintln!("logs and captures of this run: {}", self.dir.display());
        }
    }
}

/// `target/lab`, made if it is not there.
pub fn root() -> Result<PathBuf> {
    let root = bins::target_dir()?.join("lab");
    fs::create_dir_all(&root)
        .with_context(|| format!("{}: cannot make the directory", root.display()))?;
    Ok(root)
}
