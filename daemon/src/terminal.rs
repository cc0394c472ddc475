//! What a terminal may be sent, how much of it is seen at once, and the keys that it sends.

use std::{
    env,
    io::{self, IsTerminal, Read as _, Write as _},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::{
    process::getpgrp,
    termios::{
        LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
    },
};
use tokio::sync::oneshot;

/// Goes to the first column and empties the line.
pub const WIPE: &[u8] = b"\r\x1b[K";

static DRAWN: AtomicBool = AtomicBool::new(false);

/// Whether the last line of the terminal is one of progress: what is logged next takes its place.
pub fn set_drawn(is_drawn: bool) {
    DRAWN.store(is_drawn, Ordering::Relaxed);
}

/// What a log line on `stderr` begins with, so that it has a line of its own. A line of progress is drawn again after it.
pub(crate) fn before_log(stderr: &impl IsTerminal) -> &'static [u8] {
    match DRAWN.load(Ordering::Relaxed) && is_live(stderr) {
        true => WIPE,
        false => b"",
    }
}

/// Whether `stream` is a terminal that understands escape codes.
pub fn is_live(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && !is_dumb(env::var("TERM").ok().as_deref())
}

/// Whether `stream` is a terminal that is to show colours. A user who wants none sets [`NO_COLOR`](https://no-color.org).
pub fn has_colour(stream: &impl IsTerminal) -> bool {
    is_live(stream) && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn is_dumb(term: Option<&str>) -> bool {
    term == Some("dumb")
}

/// Columns of the terminal behind `stream`; `None` if it is none or does not say.
pub fn width(stream: &(impl IsTerminal + AsFd)) -> Option<usize> {
    let columns = tcgetwinsize(stream).ok()?.ws_col;
    (stream.is_terminal() && columns > 0).then_some(usize::from(columns))
}

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

/// The whole terminal on stdout, as long as this is held. What was there before is there again afterwards.
#[derive(Debug)]
pub struct Screen(());

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// If stdout cannot be written.
    pub fn open() -> io::Result<Self> {
        // The alternate screen, and no cursor.
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(Self(()))
    }

    /// Draws the lines over those of the last time, without clearing the screen in between. `lines` are made for the present
    /// size, in colour or without.
    ///
    /// # Errors
    ///
    /// If stdout cannot be written.
    pub fn draw(&self, lines: impl FnOnce(Size, bool) -> Vec<String>) -> io::Result<()> {
        let stdout = io::stdout();
        let size = tcgetwinsize(&stdout).ok();
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        // A terminal that does not know its size has that of the first ones.
        let (columns, rows) = size
            .filter(|size| size.0 > 0 && size.1 > 0)
            .unwrap_or((80, 24));
        let lines = lines(Size { columns, rows }, has_colour(&stdout));
        // To the first place; each line to its end, and then the screen to its end.
        let text = lines.join("\x1b[K\r\n");
        write(&format!("\x1b[H{text}\x1b[K\x1b[J"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        let _ = write("\x1b[?25h\x1b[?1049l");
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// `text` in lines of at most `width` columns: a longer line goes on in the next, between words and further to the right. A word
/// that is longer stays whole.
#[must_use]
pub fn fit(text: &str, width: usize) -> String {
    const INDENT: &str = "    ";
    let mut fitted = String::new();
    for line in text.lines() {
        if columns(line) <= width {
            fitted += line;
            fitted.push('\n');
            continue;
        }
        let mut used = 0;
        for word in line.split_whitespace() {
            let needed = columns(word) + usize::from(used > 0);
            if used > INDENT.len() && used + needed > width {
                fitted.push('\n');
                fitted += INDENT;
                used = INDENT.len();
            } else if used > 0 {
                fitted.push(' ');
            }
            fitted += word;
            used += needed;
        }
        fitted.push('\n');
    }
    fitted
}

/// Columns that a text takes: those of its escape codes are none.
fn columns(text: &str) -> usize {
    let parts = text.split('\x1b').enumerate();
    let seen = parts.map(|(number, part)| match number {
        0 => part,
        _ => part.split_once('m').map_or("", |(_, rest)| rest),
    });
    seen.map(|part| part.chars().count()).sum()
}

/// The key `q` of the terminal on stdin, as long as this is held. Lines are not edited in the meantime.
#[derive(Debug)]
pub struct QuitKey {
    before: Termios,
    /// Ends when the key is pressed.
    pressed: oneshot::Receiver<()>,
}

impl QuitKey {
    /// Listens, if stdin is a terminal and this process has it.
    #[must_use]
    pub fn listen() -> Option<Self> {
        let stdin = io::stdin();
        if !is_live(&stdin) || tcgetpgrp(&stdin).ok()? != getpgrp() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        let (press, pressed) = oneshot::channel();
        let listens = move || {
            let is_quit = |byte: &io::Result<u8>| matches!(byte, Ok(b'q' | b'Q'));
            if io::stdin().lock().bytes().any(|byte| is_quit(&byte)) {
                // An error means that nobody waits for the key any more.
                let _ = press.send(());
            }
        };
        // Without the thread there is no key; signals end the command all the same.
        let _ = thread::Builder::new().spawn(listens);
        Some(Self { before, pressed })
    }

    /// Completes when the key is pressed.
    pub async fn pressed(&mut self) {
        if (&mut self.pressed).await.is_err() {
            // stdin has ended without it.
            std::future::pending().await
        }
    }
}

impl Drop for QuitKey {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_that_says_so_is_dumb() {
        assert!(is_dumb(Some("dumb")));
        assert!(!is_dumb(Some("xterm-256color")) && !is_dumb(None));
    }

    #[test]
    fn a_line_that_is_too_long_breaks_between_words() {
        let text = "peer one\n\x1b[32mdirect\x1b[0m   quic/ip4 10.0.1.2:40017 > 198.51.100.7:51234   12 ms\n";
        let fitted = fit(text, 40);
        assert_eq!(
            fitted,
            "peer one\n\x1b[32mdirect\x1b[0m quic/ip4 10.0.1.2:40017 >\n    198.51.100.7:51234 12 ms\n"
        );
        assert_eq!(fit(text, 80), text);
        assert_eq!(fit("abcdefgh ij\n", 5), "abcdefgh\n    ij\n");
    }
}
