//! The wall clock of one process, which a test sets while the process runs.
//!
//! A time namespace moves only the monotonic clock and that of the boot, so this is a library of a few lines of C that the loader puts
//! before the system's (`clock/shift.c`). A program that is linked statically does not see it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::artifacts::Artifacts;

pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    pub async fn new(artifacts: &Artifacts) -> Result<Self> {
        Self::named(artifacts, "clock").await
    }

    /// One of several.
    pub async fn named(artifacts: &Artifacts, name: &str) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clock/shift.c");
        let library = artifacts.file(&format!("{name}.so"));
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let built = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .await
            .with_context(|| format!("no C compiler: {}", compiler.display()))?;
        ensure!(
            built.status.success(),
            "{}: {}",
            source.display(),
            String::from_utf8_lossy(&built.stderr)
        );
        let offset = artifacts.file(name);
        fs::write(&offset, 0_i64.to_ne_bytes()).with_context(|| offset.display().to_string())?;
        Ok(Self { library, offset })
    }

    pub fn env(&self) -> Result<[(&'static str, &str); 2]> {
        Ok([
            ("LD_PRELOAD", self.library.to_str().context("a path")?),
            ("TEST_CLOCK", self.offset.to_str().context("a path")?),
        ])
    }

    /// Sets it that many seconds before or after the right time.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // In place: the process has the file mapped.
        let file = File::options().write(true).open(&self.offset)?;
        Ok(file.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }
}
