//! Small text files that a configuration names, read whole and up to a limit.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::remedy;

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

impl Unreadable {
    /// What to do about it, if that does not depend on what the file should hold.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::System { path, source } => remedy::of(source, path),
            Self::NotAFile { .. } | Self::TooLong { .. } | Self::NotText { .. } => None,
        }
    }
}

/// The byte order mark.
const MARK: char = '\u{feff}';

/// How long a pipe may be silent.
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// The same, also of a pipe, such as `<(command)` of a shell: its writer may take 5 s for each part.
///
/// # Errors
///
/// [`Unreadable`].
pub fn read_or_receive(path: &Path, longest: u64) -> Result<String, Unreadable> {
    let is_pipe = |found: fs::Metadata| found.file_type().is_fifo();
    if !fs::metadata(path).is_ok_and(is_pipe) {
        return read(path, longest);
    }
    receive(path, longest)
        .map_err(|source| Unreadable::System {
            path: path.to_owned(),
            source,
        })
        .and_then(|bytes| text(path, longest, bytes))
}

fn receive(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let mut pipe = open(path)?;
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while u64::try_from(bytes.len()).is_ok_and(|read| read <= longest) {
        if poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&PATIENCE))? == 0 {
            let silent = "it is a pipe, and nothing has come through it for 5 s";
            return Err(io::Error::new(io::ErrorKind::TimedOut, silent));
        }
        match pipe.read(&mut part)? {
            0 => break,
            read => bytes.extend_from_slice(&part[..read]),
        }
    }
    Ok(bytes)
}

fn open(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
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
    let file = open(&path()).map_err(system)?;
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
    text(&path(), longest, bytes)
}

fn text(path: &Path, longest: u64, bytes: Vec<u8>) -> Result<String, Unreadable> {
    let path = || path.to_owned();
    if u64::try_from(bytes.len()).is_ok_and(|read| read > longest) {
        return Err(Unreadable::TooLong {
            path: path(),
            longest,
        });
    }
    let mut text = String::from_utf8(bytes).map_err(|error| Unreadable::NotText {
        path: path(),
        at: error.utf8_error().valid_up_to(),
    })?;
    // Some editors mark the encoding, and no reader of a text expects that.
    if text.starts_with(MARK) {
        text.drain(..MARK.len_utf8());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        for (content, longest, expected) in [
            (&b"text"[..], 4, Ok("text")),
            (b"", 0, Ok("")),
            (b"\xef\xbb\xbftext", 9, Ok("text")),
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
    fn a_pipe_is_read_to_its_end() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let writer = std::thread::spawn({
            let path = path.clone();
            move || fs::write(path, "a: 1\n").unwrap()
        });
        assert_eq!(read_or_receive(&path, 99).unwrap(), "a: 1\n");
        writer.join().unwrap();
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
