//! Small files of text that a configuration names: read whole, and never more of them than is wanted.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Why a file is not read. Each names the file; what it is to hold, and so the remedy, the caller knows.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The system does not let it be read.
    #[error("cannot read {}: {source}", .path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{} is {what}", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It has more bytes than are read.
    #[error("{} has more than the {longest} bytes that are read", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most bytes.
        longest: u64,
    },
    /// It is no text.
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
    // Of the open file, so that nobody can change it in between.
    let metadata = file.metadata().map_err(system)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "a directory"
        } else {
            "no regular file"
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
        for (content, longest, told) in [
            (&b"text"[..], 4, Ok("text")),
            (b"", 0, Ok("")),
            (b"text", 3, Err("more than the 3 bytes")),
            (b"te\xff", 9, Err("not UTF-8 (byte 2)")),
        ] {
            fs::write(&path, content).unwrap();
            match (read(&path, longest), told) {
                (Ok(text), Ok(wanted)) => assert_eq!(text, wanted),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (read, told) => panic!("{read:?} and not {told:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_file_is_named_and_nobody_waits_for_it() {
        let home = tempfile::tempdir().unwrap();
        let pipe = home.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for (path, part) in [
            (home.path().join("missing"), "No such file"),
            (home.path().to_owned(), "is a directory"),
            (pipe, "is no regular file"),
            ("/dev/zero".into(), "is no regular file"),
        ] {
            let error = read(&path, 9).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
