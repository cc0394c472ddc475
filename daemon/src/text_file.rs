//! Small text files that a configuration names, read whole and up to a limit.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Why a file was not read. Each error names the file. The caller adds the remedy, since it knows what the file should hold.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The system refuses to read the file.
    #[error("cannot read {}: {source}", .path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The path is that of a directory, a pipe or a device.
    #[error("{} is {what}", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The file exceeds the limit.
    #[error("{} has more than {longest} bytes", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most bytes.
        longest: u64,
    },
    /// The file is not text.
    #[error("{} is not UTF-8 (byte {at})", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where the text ends, counted from 0.
        at: usize,
    },
}

/// The text of the regular file at `path`, of at most `longest` bytes.
///
/// # Errors
///
/// [`Unreadable`].
pub fn read(path: &Path, longest: u64) -> Result<String, Unreadable> {
    let path = || path.to_owned();
    let system = |source| Unreadable::System {
        path: path(),
        source,
    };
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path())
        .map_err(system)?;
    // The metadata of the open file, which cannot be replaced in between.
    let metadata = file.metadata().map_err(system)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "a directory"
        } else {
            "not a regular file"
        };
        return Err(Unreadable::NotAFile { path: path(), what });
    }
    let mut bytes = Vec::new();
    file.take(longest.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(system)?;
    if u64::try_from(bytes.len()).is_ok_and(|read| read > longest) {
        return Err(Unreadable::TooLong {
            path: path(),
            longest,
        });
    }
    String::from_utf8(bytes).map_err(|error| Unreadable::NotText {
        path: path(),
        at: error.utf8_error().valid_up_to(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        for (content, longest, expected) in [
            (&b"text"[..], 4, Ok("text")),
            (b"", 0, Ok("")),
            (b"text", 3, Err("more than 3 bytes")),
            (b"te\xff", 9, Err("not UTF-8 (byte 2)")),
        ] {
            fs::write(&path, content).unwrap();
            match (read(&path, longest), expected) {
                (Ok(text), Ok(wanted)) => assert_eq!(text, wanted),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (read, expected) => panic!("{read:?} and not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_path_that_is_no_file_is_named_without_waiting_for_it() {
        let home = tempfile::tempdir().unwrap();
        let pipe = home.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for (path, part) in [
            (home.path().join("missing"), "No such file"),
            (home.path().to_owned(), "is a directory"),
            (pipe, "is not a regular file"),
            ("/dev/zero".into(), "is not a regular file"),
        ] {
            let error = read(&path, 9).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
