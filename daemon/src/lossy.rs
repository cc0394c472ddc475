//! A stream for lines that may be lost: a reader that is gone, slow or stopped, and a full disk, never hold up the process.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::terminal;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a reader may hold up the process, once. After that, lines are lost until it reads again.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// A pipe that is [ready](https://man7.org/linux/man-pages/man7/pipe.7.html) takes this many bytes without a wait (`PIPE_BUF`).
const AT_ONCE: usize = 4096;

/// A stream whose lines may be lost. Writing never fails.
#[derive(Debug)]
pub struct Lossy<'a, W> {
    inner: W,
    stalled: &'a AtomicBool,
}

impl<'a, W: Write + AsFd> Lossy<'a, W> {
    /// `stalled` is whether the reader was not ready at the last write, and is shared by all that write to the stream.
    pub fn new(inner: W, stalled: &'a AtomicBool) -> Self {
        Self { inner, stalled }
    }

    fn is_ready(&self) -> bool {
        let patience = match self.stalled.load(Ordering::Relaxed) {
            true => Timespec::default(),
            false => PATIENCE,
        };
        let mut polled = [PollFd::new(&self.inner, PollFlags::OUT)];
        // What cannot be polled is written.
        let is_ready = poll(&mut polled, Some(&patience)) != Ok(0);
        self.stalled.store(!is_ready, Ordering::Relaxed);
        is_ready
    }
}

impl<W: Write + AsFd> Write for Lossy<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_ready() {
            return Ok(bytes.len());
        }
        let part = bytes.len().min(AT_ONCE);
        Ok(self.inner.write(&bytes[..part]).unwrap_or(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        // Output that is not written is lost.
        let _ = self.inner.flush();
        Ok(())
    }
}

/// stdout whose lines may be lost.
pub type Stdout = Lossy<'static, io::Stdout>;

/// stderr, for the log.
#[must_use]
pub fn stderr() -> Lossy<'static, io::StderrLock<'static>> {
    static STALLED: AtomicBool = AtomicBool::new(false);
    let mut stderr = Lossy::new(io::stderr().lock(), &STALLED);
    // It never fails.
    let _ = stderr.write_all(terminal::before_log(&stderr.inner));
    stderr
}

/// stdout, for what a process that serves prints.
#[must_use]
pub fn stdout() -> Stdout {
    static STALLED: AtomicBool = AtomicBool::new(false);
    Lossy::new(io::stdout(), &STALLED)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{fs::File, io::Read as _};

    use super::*;

    #[test]
    fn a_reader_that_stops_loses_lines_and_one_that_reads_again_gets_the_next() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stalled = AtomicBool::new(false);
        let mut lossy = Lossy::new(writer, &stalled);
        // More than a pipe holds.
        for _ in 0..100 {
            lossy.write_all(&[b'x'; AT_ONCE]).unwrap();
        }
        assert!(stalled.load(Ordering::Relaxed));
        let mut held = vec![0; 16 * AT_ONCE];
        reader.read_exact(&mut held).unwrap();
        lossy.write_all(b"again\n").unwrap();
        assert!(!stalled.load(Ordering::Relaxed));
        drop(lossy);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"again\n"));
    }

    #[test]
    fn a_full_disk_and_a_reader_that_is_gone_are_no_error() {
        let stalled = AtomicBool::new(false);
        let full = File::options().write(true).open("/dev/full").unwrap();
        Lossy::new(full, &stalled).write_all(b"line\n").unwrap();
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        Lossy::new(writer, &stalled).write_all(b"line\n").unwrap();
    }
}
