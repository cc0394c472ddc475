//! Files of a distribution: their modes and times are those that are given, so the same source makes the same bytes.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::cargo::output;

/// How much time goes into making files smaller.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Compression {
    Small,
    Quick,
}

impl Compression {
    /// Arguments of gzip, which writes no name and no time.
    pub(crate) const fn gzip(self) -> [&'static str; 2] {
        match self {
            Self::Small => ["-9", "-n"],
            Self::Quick => ["-1", "-n"],
        }
    }
}

/// An archive of `tree`, whose files are of the time `created`, in seconds since 1970.
pub(crate) fn compress(
    tree: &Path,
    archive: &Path,
    created: u64,
    compression: Compression,
) -> Result<PathBuf> {
    let (parent, name) = tree
        .parent()
        .zip(tree.file_name())
        .context("a tree below dist")?;
    let mut tar = tar(created);
    tar.arg("--use-compress-program")
        .arg(format!("gzip {}", compression.gzip().join(" ")))
        .args(["--create", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(parent)
        .arg(name);
    output(&mut tar)?;
    Ok(archive.to_owned())
}

/// Tar, for files of the time `created` that belong to root.
pub(crate) fn tar(created: u64) -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .arg(format!("--mtime=@{created}"));
    tar
}

pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in files(from)? {
        let name = entry.file_name().context("an entry has a name")?;
        match entry.is_dir() {
            true => copy_tree(&entry, &to.join(name))?,
            false => copy(&entry, &to.join(name), 0o644)?,
        }
    }
    Ok(())
}

pub(crate) fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = fs::read(from).with_context(|| from.display().to_string())?;
    place(to, &bytes, mode)
}

pub(crate) fn write(to: &Path, text: &str, mode: u32) -> Result<()> {
    place(to, text.as_bytes(), mode)
}

pub(crate) fn place(to: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let named = || to.display().to_string();
    let directory = to.parent().with_context(named)?;
    fs::create_dir_all(directory).with_context(named)?;
    fs::write(to, bytes).with_context(named)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(named)
}

pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// What the files below `root` need on a disk.
pub(crate) fn kibibytes(root: &Path) -> Result<u64> {
    let mut sum = 0;
    for path in files(root)? {
        sum += match path.is_dir() {
            true => kibibytes(&path)?,
            false => fs::metadata(&path)?.len().div_ceil(1024),
        };
    }
    Ok(sum)
}
