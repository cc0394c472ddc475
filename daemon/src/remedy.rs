//! What to do about an error of the system.

use std::{io, os::unix::fs::MetadataExt as _, path::Path};

use rustix::{io::Errno, process};

/// If a process has as many files open as it may.
const FILES: &str =
    "too many files are open: raise the limit (`ulimit -n`, LimitNOFILE of the service)";

/// If all processes together do.
const FILES_OF_ALL: &str = "all processes of this host have too many files open: raise fs.file-max, or end what holds them";

/// What to do about `error`, whatever it concerns.
#[must_use]
pub fn of_any(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => Some(FILES),
        Some(Errno::NFILE) => Some(FILES_OF_ALL),
        _ => None,
    }
}

/// What to do about `error`, which concerns `path`, if it does not depend on what the path is for.
#[must_use]
pub fn of(error: &io::Error, path: &Path) -> Option<String> {
    use io::ErrorKind as Kind;

    // An error of a library has a kind and no number.
    let text = match (error.kind(), Errno::from_io_error(error)) {
        (Kind::PermissionDenied, _) => return Some(access(path)),
        (Kind::StorageFull | Kind::QuotaExceeded, _) => {
            "the disk is full: free space there, or give a path on another one"
        }
        (Kind::ReadOnlyFilesystem, _) => {
            "the file system is read-only: give a path on one that can be written"
        }
        (Kind::NotADirectory, _) => "a part of the path is a file: give another path",
        (Kind::IsADirectory, _) => "it is a directory: give the path of a file",
        (_, Some(Errno::LOOP)) => {
            "symbolic links in the path form a loop: mend them, or give another path"
        }
        (_, Some(Errno::NAMETOOLONG)) => "the path is too long: give a shorter one",
        (_, Some(Errno::IO)) => "the disk fails: see the log of the kernel",
        _ => of_any(error)?,
    };
    Some(text.to_owned())
}

/// Whether another path, or another user, would do: the user has to mend the configuration, and not the system.
#[must_use]
pub fn is_of_path(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;

    let is_long = [Some(Errno::LOOP), Some(Errno::NAMETOOLONG)];
    matches!(
        error.kind(),
        Kind::PermissionDenied
            | Kind::ReadOnlyFilesystem
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::NotFound
    ) || is_long.contains(&Errno::from_io_error(error))
}

/// Who may use `path`: the owner of the first part of it that can be seen from here.
fn access(path: &Path) -> String {
    let seen = path.ancestors().find_map(|part| {
        let part = match part.as_os_str().is_empty() {
            true => Path::new("."),
            false => part,
        };
        Some((part, part.metadata().ok()?))
    });
    let Some((part, metadata)) = seen else {
        return "give this user access to it".to_owned();
    };
    format!(
        "{} is of user {}, group {} (mode {:04o}), and this process is user {}, group {}: run it as a user that has access, or \
         give it access",
        part.display(),
        metadata.uid(),
        metadata.gid(),
        metadata.mode() & 0o7777,
        process::geteuid().as_raw(),
        process::getegid().as_raw()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::with_causes;

    #[test]
    fn each_error_of_the_system_has_its_remedy() {
        let remedy = |errno: Errno| of(&errno.into(), Path::new("/etc/none/such"));
        for (errno, part) in [
            (Errno::NOSPC, "disk is full"),
            (Errno::DQUOT, "disk is full"),
            (Errno::ROFS, "read-only"),
            (Errno::NOTDIR, "is a file"),
            (Errno::LOOP, "loop"),
            (Errno::MFILE, "too many files"),
            (Errno::NFILE, "raise fs.file-max"),
            (Errno::ACCESS, "/etc is of user 0, group 0 (mode 0755)"),
        ] {
            let text = remedy(errno).unwrap_or_default();
            assert!(text.contains(part), "{errno}: {text}");
        }
        assert_eq!(remedy(Errno::NOENT), None);
    }

    #[test]
    fn an_error_that_any_step_may_meet_ends_with_its_remedy_once() {
        let error = |errno: Errno| anyhow::Error::from(io::Error::from(errno)).context("no list");
        let text = with_causes(&error(Errno::MFILE));
        assert!(text.starts_with("no list: Too many open files"), "{text}");
        assert!(text.ends_with(FILES), "{text}");
        let text = with_causes(&error(Errno::MFILE).context(text));
        assert_eq!(text.matches(FILES).count(), 1, "{text}");
        assert!(!with_causes(&error(Errno::NOENT)).contains("raise"));
    }
}
