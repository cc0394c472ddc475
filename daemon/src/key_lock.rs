//! Keeps two processes from one key: the relay would see one peer at two places, and give each the other's circuits.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The lock of a key file. It ends with the process or when it is dropped.
#[derive(Debug)]
pub struct KeyLock(Option<File>);

/// Another process runs with the key.
#[derive(Debug, thiserror::Error)]
#[error(
    "key file {} is in use by {}: two processes with one peer id take each other's circuits; stop it, or give this one a key of \
     its own (identity.key_file, --key)",
    .path.display(),
    .holder.as_deref().unwrap_or("another process")
)]
pub struct InUse {
    path: PathBuf,
    holder: Option<String>,
}

impl KeyLock {
    /// Locks the key file at `path`, which exists, with [flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html).
    ///
    /// A file system without such locks is no error: then nothing is locked.
    ///
    /// # Errors
    /// [`InUse`] names the process, where the system shows it.
    pub fn take(path: &Path) -> Result<Self, InUse> {
        let Ok(file) = File::open(path) else {
            return Ok(Self(None));
        };
        match file.try_lock() {
            Ok(()) => Ok(Self(Some(file))),
            Err(TryLockError::WouldBlock) => Err(InUse {
                path: path.to_owned(),
                holder: holder(&file),
            }),
            Err(TryLockError::Error(error)) => {
                tracing::debug!(path = %path.display(), %error, "the key file cannot be locked");
                Ok(Self(None))
            }
        }
    }
}

impl Drop for KeyLock {
    /// A program that this one is about to start has the file open until it runs: the lock would outlive a mere close.
    fn drop(&mut self) {
        if let Some(file) = &self.0
            && let Err(error) = file.unlock()
        {
            tracing::debug!(%error, "the key file cannot be unlocked");
        }
    }
}

/// Who holds the lock of `file`, as [/proc/locks](https://man7.org/linux/man-pages/man5/proc_locks.5.html) shows it.
fn holder(file: &File) -> Option<String> {
    let inode = file.metadata().ok()?.ino();
    let pid = pid_in(&fs::read_to_string("/proc/locks").ok()?, inode)?;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = command.split('\0').filter(|word| !word.is_empty());
    let name = words.next().and_then(|path| path.rsplit('/').next());
    let command: Vec<_> = name.into_iter().chain(words.take(1)).collect();
    Some(match command.is_empty() {
        true => format!("process {pid}"),
        false => format!(
            "process {pid} ({})",
            p2pnode_protocol::quote(&command.join(" "))
        ),
    })
}

fn pid_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = fields.as_slice() else {
            return None;
        };
        let is_this = place.rsplit(':').next()?.parse() == Ok(inode);
        pid.parse().ok().filter(|_| is_this)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_key_has_one_process_at_a_time_and_is_free_again_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.key");
        fs::write(&path, "key").unwrap();
        let first = KeyLock::take(&path).unwrap();
        let refused = KeyLock::take(&path).unwrap_err().to_string();
        let own = format!("is in use by process {} (", std::process::id());
        assert!(refused.contains(&own), "{refused}");
        drop(first);
        KeyLock::take(&path).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_not_locked() {
        KeyLock::take(Path::new("/nonexistent/key")).unwrap();
    }

    #[test]
    fn the_holder_is_the_one_of_the_same_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:7 0 EOF\n2: FLOCK  ADVISORY  WRITE 12 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 fe:00:7 0 EOF\n";
        assert_eq!(pid_in(locks, 7), Some(13));
        assert_eq!(pid_in(locks, 8), None);
    }
}
